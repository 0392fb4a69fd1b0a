"""Studies of mechanisms of several rooms at work on one network."""
