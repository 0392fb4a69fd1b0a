"""Studies of networks that are changed after training."""
