"""Studies of networks that keep what they learned."""
