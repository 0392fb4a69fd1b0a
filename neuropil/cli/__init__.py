"""The command `neuropil`. Each command is a file; nothing is imported before it is asked for."""
