"""``python -m medsegdiff``."""

from medsegdiff.cli import main

if __name__ == "__main__":
    main()
