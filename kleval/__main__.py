"""`python -m kleval` is the `kleval` command."""

from kleval.cli.main import main

if __name__ == "__main__":
    main()
