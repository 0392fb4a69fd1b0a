"""`python -m neuropil` is the command `neuropil`."""

from neuropil.cli.main import main

if __name__ == "__main__":
    main()
