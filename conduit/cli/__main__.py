"""`python -m conduit.cli`, which is what the `conduit` script runs."""

from conduit.cli.main import main

if __name__ == "__main__":
    main()
