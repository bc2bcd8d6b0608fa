"""The command line as `python -m wobbliness`."""

from wobbliness.cli.main import main

if __name__ == "__main__":
    main()
