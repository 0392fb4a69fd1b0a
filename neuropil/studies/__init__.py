"""One runnable study per published system."""
