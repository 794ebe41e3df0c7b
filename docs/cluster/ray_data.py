"""Segment with Ray Data, which hands cases to a pool of actors; records and tables are those of `medsegdiff segment`.

python ray_data.py IMAGES RUN OUT ACTORS GPUS     # GPUS of each actor: 1, 0.5, or 0 for none
"""

import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ray

from medsegdiff import Segmenter
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.team import Alone

ASKED = {"parts": ("masks", "probability"), "members": 10, "batch_size": 10}  # those of `Segmenter.stream` too


class Actor:
    """Has the weights once; reads ahead, computes, and writes behind, in threads."""

    def __init__(self, run: Path, out: Path, gpus: float) -> None:
        self.segmenter, self.out = Segmenter.from_pretrained(run, device="cuda" if gpus else "cpu"), out

    def __call__(self, batch: dict) -> dict:
        """Do some cases."""
        done = segment_files(self.segmenter, list(batch["case"]), self.out, team=OneOfPool(), **ASKED)
        return {"made": [done.made]}


@dataclass(frozen=True)
class OneOfPool(Alone):
    """Does what it is given, beside others; the driver tells of all."""

    leads: bool = False
    alone: bool = False
    together: bool = True

    def rest(self, files: int, missing: int) -> str:
        """Leave it to the driver."""
        return "" if self.leads else "The driver tells of all."


@dataclass(frozen=True)
class Driver(OneOfPool):
    """Finds out what is left to do, has the pool do it, does what lost actors have left, and writes the tables."""

    leads: bool = True
    pool: tuple = ()

    def pulled(self, files: list, track: object) -> Iterator:
        """Wait for the pool."""
        run, out, actors, gpus = self.pool
        cases = ray.data.from_items([{"case": case} for case in files])
        pool = ray.data.ActorPoolStrategy(size=actors)
        asked = {"fn_constructor_args": (run, out, gpus), "compute": pool, "num_gpus": gpus, "batch_size": 16}
        made = sum(row["made"] for row in cases.map_batches(Actor, **asked).iter_rows())
        logging.info("Actors have made %d results.", made)
        yield from ()


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    images, run, out = (Path(path).absolute() for path in sys.argv[1:4])
    team = Driver(pool=(run, out, int(sys.argv[4]), float(sys.argv[5])))
    done = segment_files(Segmenter.from_pretrained(run, device="cpu"), find_inputs([images]), out, team=team, **ASKED)
    sys.exit(3 if done.failed else 0)
