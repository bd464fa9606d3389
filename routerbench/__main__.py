"""`python -m routerbench` is the command `routerbench`."""

from routerbench.cli import main

if __name__ == "__main__":
    main()
