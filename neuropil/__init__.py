"""Brain-inspired learning for PyTorch: published mechanisms as parts that work together on one model."""

__version__ = "0.1.0"
