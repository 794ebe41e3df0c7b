"""A hundred thousand tiny pictures with a stub in place of the network: what everything else costs.

Each measurement is a process of its own: segmenting all, going on with what is done, collecting. Then times of stages
are put into a simulation of many GPUs. Writes ``scale.md``::

    python benchmarks/scale.py --count 100000 --folder /tmp/scale
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 16
COUNT = 100_000


def main() -> None:
    """Measure, simulate, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--folder", type=Path, required=True, help="For pictures and results; on a local disk.")
    parser.add_argument("--child", choices=tuple(CHILDREN), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(CHILDREN[given.child](given.folder)))
        return
    draw(given.folder / "images", given.count)
    found = {name: child(name, given) for name in CHILDREN}
    (given.folder / "found.json").write_text(json.dumps(found, indent=2))
    print(json.dumps(found, indent=2))


def child(name: str, given: argparse.Namespace) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--folder", str(given.folder), "--child", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def draw(folder: Path, count: int) -> None:
    """Draw pictures, if there are not as many."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng, (y, x) = np.random.default_rng(0), np.mgrid[:SIDE, :SIDE]
    for number in range(count):
        path = folder / f"case{number:06d}.png"
        if not path.exists():
            inside = np.hypot(y - rng.uniform(5, 11), x - rng.uniform(5, 11)) < rng.uniform(2, 6)
            Image.fromarray(np.where(inside, 200, 50).astype(np.uint8)).save(path)


def stub() -> Any:
    """A segmenter that thresholds images: all of the program but the network."""
    import torch

    from medsegdiff.config.load import load_preset
    from medsegdiff.config.spec import assumed
    from medsegdiff.inference.segmentation import Segmentation
    from medsegdiff.inference.segmenter import Segmenter
    from medsegdiff.inference.uncertainty import Uncertainty
    from medsegdiff.models.base import build_model
    from medsegdiff.types import Case

    class Stub(Segmenter):
        """Takes no time."""

        def results(self, images: Iterable[Case], request: Any, **_: Any) -> Iterator[Segmentation]:  # type: ignore[override]
            for case in images:
                mask = (case.image[0] > 0.5).astype(np.uint8)
                probability = case.image[:1]
                yield Segmentation(
                    name=case.name,
                    mask=mask,
                    probability=probability,
                    uncertainty=Uncertainty(probability[0], probability[0], probability[0]),
                    members=np.stack([mask, mask]),
                    anchor=None,
                    anchor_probability=None,
                    sensitivity=None,
                    specificity=None,
                    image=case.image,
                    geometry=case.geometry,
                    labels=self.config.spec.labels,
                )

    torch.manual_seed(0)  # the same weights in each process
    config = assumed(load_preset("v2-fast-tiny", ["data.channels=1", "data.task=binary", "data.classes=[lesion]"]))
    return Stub(build_model(config), config, device="cpu")


def memory() -> float:
    """MB that the process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1e6


def segmenting(folder: Path, *, resume: bool = False) -> dict[str, float]:
    """Segment all; ``start`` ends when the first picture is read."""
    from medsegdiff.inference.files import segment_files
    from medsegdiff.inference.inputs import find_inputs

    segmenter, first = stub(), list[float]()

    def track(items: Sequence[Any], what: str) -> Iterable[Any]:
        for item in items:
            if not first:
                first.append(time.monotonic())
            yield item

    before, begun, computed = memory(), time.monotonic(), time.process_time()
    files = find_inputs([folder / "images"])
    finished = segment_files(segmenter, files, folder / "out", parts=("masks",), track=track, resume=resume)
    ended = time.monotonic()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {
        "start_s": (first[0] if first else ended) - begun,
        "seconds": ended - begun,
        "processor_s": time.process_time() - computed,
        "count": finished.tally.count,
        "made": finished.made,
        "growth_mb": peak - before,
    }


def collecting(folder: Path) -> dict[str, float]:
    """Make the tables anew."""
    from medsegdiff.inference.collect import collect

    before, begun, computed = memory(), time.monotonic(), time.process_time()
    tally = collect(folder / "out")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {
        "seconds": time.monotonic() - begun,
        "processor_s": time.process_time() - computed,
        "count": tally.count,
        "growth_mb": peak - before,
    }


CHILDREN: dict[str, Callable[[Path], dict[str, float]]] = {
    "segment": segmenting,
    "resume": lambda folder: segmenting(folder, resume=True),
    "collect": collecting,
}


if __name__ == "__main__":
    main()
