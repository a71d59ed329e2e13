"""`python -m ftcheck`, and so `accelerate launch -m ftcheck`."""

from ftcheck.cli import main

if __name__ == "__main__":
    main()
