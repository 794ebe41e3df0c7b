"""The authors' command line for this step; see `medsegdiff.cli.authors`."""

from medsegdiff.cli import guard
from medsegdiff.cli.authors import sample

if __name__ == "__main__":
    guard(sample)
