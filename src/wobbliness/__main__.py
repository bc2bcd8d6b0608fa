"""The command line as `python -m wobbliness`."""

from wobbliness.cli import main

if __name__ == "__main__":
    main()
