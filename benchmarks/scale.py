"""A hundred thousand tiny pictures with a stub in place of the network: what everything else costs.

Each measurement is a process of its own: segmenting all, going on with what is done, collecting. Then times of stages
are put into a simulation of many GPUs. Writes ``scale.md``::

    python benchmarks/scale.py --count 100000 --folder /tmp/scale
"""

from __future__ import annotations

import argparse
import heapq
import json
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from common import machine, table, timed, write_page
from PIL import Image

SIDE = 16
COUNT = 100_000


def main() -> None:
    """Measure, simulate, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=COUNT)
    parser.add_argument("--folder", type=Path, required=True, help="For pictures and results; on a local disk.")
    parser.add_argument("--child", choices=tuple(CHILDREN), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(CHILDREN[given.child](given.folder)))
        return
    kept = given.folder / "found.json"
    found = json.loads(kept.read_text()) if kept.exists() else {}
    draw(given.folder / "images", 0 if found else given.count)
    for name in CHILDREN:
        if name not in found:
            found[name] = child(name, given)
            kept.write_text(json.dumps(found, indent=2))
    write_page("scale", page(found))


def child(name: str, given: argparse.Namespace) -> dict[str, float]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--folder", str(given.folder), "--child", name]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def draw(folder: Path, count: int) -> None:
    """Draw pictures, if there are not as many."""
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
        """Takes no time, or waits as for a device."""

        waits = 0.0

        def results(self, images: Iterable[Case], request: Any, **_: Any) -> Iterator[Segmentation]:  # type: ignore[override]
            for case in images:
                if self.waits:
                    time.sleep(self.waits)
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


class Begun(Exception):  # noqa: N818 - it is no error
    """The first picture is read."""


def starting(folder: Path) -> dict[str, float]:
    """List all pictures, and stop where the first one is read."""
    from medsegdiff.inference.files import segment_files
    from medsegdiff.inference.inputs import find_inputs

    segmenter, begun, computed = stub(), time.monotonic(), time.process_time()

    def track(items: Sequence[Any], what: str) -> Iterable[Any]:
        raise Begun

    with suppress(Begun):
        segment_files(segmenter, find_inputs([folder / "images"]), folder / "begun", parts=("masks",), track=track)
    return {"seconds": time.monotonic() - begun, "processor_s": time.process_time() - computed}


def segmenting(folder: Path, *, resume: bool = False) -> dict[str, float]:
    """Segment all."""
    from medsegdiff.inference.files import segment_files
    from medsegdiff.inference.inputs import find_inputs

    segmenter = stub()
    before, begun, computed = memory(), time.monotonic(), time.process_time()
    files = find_inputs([folder / "images"])
    finished = segment_files(segmenter, files, folder / "out", parts=("masks",), resume=resume)
    ended = time.monotonic()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return {
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


def hashing(folder: Path) -> dict[str, float]:
    """Read and hash volumes (gzipped NIfTI) and pictures, in turns: what hashing adds to reading, and to writing."""
    from medsegdiff.io.hashes import sha256_of
    from medsegdiff.io.image import read_image, write_labels, write_map

    rng, found = np.random.default_rng(0), dict[str, float]()
    voxels = np.cumsum(rng.integers(-9, 10, (192, 192, 64)), axis=0).astype(np.int16)
    volume = folder / "volume.nii.gz"
    nib.save(nib.Nifti1Image(voxels, np.diag([1.0, 1.0, 3.0, 1.0])), volume)  # type: ignore[no-untyped-call]
    picture = folder / "picture.png"
    Image.fromarray(rng.integers(0, 256, (512, 512, 3), dtype=np.uint8)).save(picture)
    _, geometry = read_image(volume)
    probability = (voxels % 1000 / np.float32(1000)).astype(np.float32)

    def write() -> None:
        write_labels(folder, "labels", (probability > 0.5).astype(np.uint8), geometry)
        write_map(folder, "map", probability, geometry)

    def hash_written() -> None:
        sha256_of(folder / "labels.nii.gz")
        sha256_of(folder / "map.nii.gz")

    pairs: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "read_volume": (lambda: sha256_of(volume), lambda: read_image(volume)),
        "read_picture": (lambda: sha256_of(picture), lambda: read_image(picture)),
        "write_volume": (hash_written, write),
    }
    for name, (extra, work) in pairs.items():
        work()
        ratios = [timed(extra, clock=time.process_time) / timed(work, clock=time.process_time) for _ in range(5)]
        found[name] = float(np.median(ratios))
    return found


def overlapping(folder: Path) -> dict[str, float]:
    """Segment volumes with a device that is stood in for by waiting: how much of reading and writing is hidden."""
    from medsegdiff.inference.files import segment_files
    from medsegdiff.inference.inputs import find_inputs

    rng, volumes = np.random.default_rng(0), folder / "volumes"
    volumes.mkdir(exist_ok=True)
    for number in range(6):
        voxels = np.cumsum(rng.integers(-9, 10, (160, 160, 48)), axis=0).astype(np.int16)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), volumes / f"{number}.nii.gz")  # type: ignore[no-untyped-call]
    files, waited = find_inputs([volumes]), 0.0

    def run(name: str) -> float:
        segmenter = stub()
        segmenter.waits = waited
        shutil.rmtree(folder / name, ignore_errors=True)
        return timed(lambda: segment_files(segmenter, files, folder / name, parts=("masks", "probability")))

    alone = run("warm") and run("alone")  # nothing to hide behind
    waited = alone / len(files)
    both = run("both")
    shutil.rmtree(folder / "volumes")
    device = waited * len(files)
    return {"files_s": alone, "device_s": device, "together_s": both, "hidden": 1 - (both - device) / alone}


def asking(folder: Path) -> dict[str, float]:
    """Count what a case asks of the file system, and how often the store counts in a second."""
    from torch.distributed import TCPStore

    from medsegdiff.inference.files import segment_files
    from medsegdiff.inference.inputs import find_inputs

    counted = [0]
    changing = {"os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir"}
    sys.addaudithook(lambda event, _: counted.__setitem__(0, counted[0] + (event in changing)))
    files, changes = find_inputs([folder / "images"])[:220], list[int]()
    for number in (20, 220):
        shutil.rmtree(folder / f"counted{number}", ignore_errors=True)
        before = counted[0]
        segment_files(stub(), files[:number], folder / f"counted{number}", parts=("masks",))
        changes.append(counted[0] - before)
        shutil.rmtree(folder / f"counted{number}")
    store = TCPStore("localhost", 0, is_master=True)
    seconds = timed(lambda: [store.add("taken", 1) for _ in range(2000)])
    return {
        "changes": (changes[1] - changes[0]) / 200,
        "counts_per_s": 2000 / seconds,
        "changes_per_s": 1 / changing_a_name(folder / "names"),
    }


def changing_a_name(folder: Path, *, count: int = 2000) -> float:
    """Give the seconds of a processor that it takes to make, link, move or remove a name on this disk."""
    folder.mkdir(exist_ok=True)

    def change() -> None:
        for number in range(count):
            first, other = folder / f"a{number}", folder / f"b{number}"
            first.touch()
            other.hardlink_to(first)
            first.rename(folder / f"c{number}")
            other.unlink()

    seconds = timed(change, clock=time.process_time)
    shutil.rmtree(folder)
    return seconds / (4 * count)


CHILDREN: dict[str, Callable[[Path], dict[str, float]]] = {
    "start": starting,
    "segment": segmenting,
    "resume": lambda folder: segmenting(folder, resume=True),
    "collect": collecting,
    "hashing": hashing,
    "overlap": overlapping,
    "asking": asking,
}


def makespan(seconds: Sequence[float], workers: int) -> float:
    """Let workers pull cases in their order: when the last one is done."""
    free = [0.0] * workers
    for of in seconds:
        heapq.heappush(free, heapq.heappop(free) + of)
    return max(free)


def simulated(workers: int, rng: np.random.Generator, *, count: int = 20_000) -> list[float]:
    """Share volumes out: how well workers are used where they pull, the largest first or not, and in fixed parts."""
    seconds = rng.lognormal(np.log(60), 1.0, count)
    ideal = seconds.sum() / workers
    parts = np.bincount(rng.integers(0, workers, count), weights=seconds, minlength=workers)
    pulled = makespan(sorted(seconds, reverse=True), workers), makespan(seconds, workers)
    return [float(ideal / ended) for ended in (*pulled, parts.max())]


GPUS = (1, 8, 64, 512)
ALL_PARTS = 0.107
"""Seconds in which one thread writes all parts of a picture of 256 pixels: speed.md."""
PRICE = 2.0
"""Of a GPU for an hour, assumed, in any currency."""


def measured(found: dict[str, dict[str, float]]) -> Iterator[tuple[str, str, str]]:
    """Lay what was measured beside what was asked."""
    segment, resume, joined = (found[name] for name in ("segment", "resume", "collect"))
    count = segment["count"]
    yield "from the start to the first picture", "< 10 s", both(found["start"])
    yield "records in a second", "≥ 200", f"{count / segment['seconds']:.0f}"
    yield "records in a second of a processor", "", f"{count / segment['processor_s']:.0f}"
    yield "memory grows by", "< 300 MB", f"{segment['growth_mb']:.0f} MB"
    yield "going on when all is done", "< 60 s", both(resume)
    yield "memory of that", "< 300 MB", f"{resume['growth_mb']:.0f} MB"
    yield "`collect`", "", both(joined)
    yield "memory of that", "< 300 MB", f"{joined['growth_mb']:.0f} MB"


def both(of: dict[str, float]) -> str:
    """Write seconds by the clock, and of a processor."""
    return f"{of['seconds']:.1f} s, {of['processor_s']:.1f} of a processor"


def costs(record: float, asked: dict[str, float]) -> Iterator[tuple[str, ...]]:
    """Say for kinds of cases and numbers of GPUs how many are done, and what bounds them."""
    kinds = {
        "picture, 0.02 s on a GPU, all parts": (0.02, ALL_PARTS),
        "picture, 0.02 s on a GPU, masks alone": (0.02, record),
        "picture, 0.2 s on a GPU, all parts": (0.2, ALL_PARTS),
        "volume, 60 s on a GPU": (60.0, 0.0),
    }
    shared = {"the file system": asked["changes_per_s"] / asked["changes"], "the store": asked["counts_per_s"]}
    for name, (device, writing) in kinds.items():
        for gpus in GPUS:
            own = {"the GPU": gpus / device, "the thread that writes": gpus / writing if writing else np.inf}
            bound, rate = min((own | shared).items(), key=lambda of: of[1])
            cost = 1000 * PRICE / 3600 * gpus / rate
            yield name, str(gpus), f"{rate * 3600:,.0f}", f"{cost:,.2f}", bound


def page(found: dict[str, dict[str, float]]) -> list[str]:
    """Tell what was measured, and what follows."""
    segment, hashes, asked = found["segment"], found["hashing"], found["asking"]
    rng, record = np.random.default_rng(0), segment["processor_s"] / segment["count"]
    shares = [(str(gpus), *(f"{share:.1%}" for share in simulated(gpus, rng))) for gpus in GPUS]
    return [
        "# A hundred thousand cases",
        "",
        f"`python benchmarks/scale.py --folder FOLDER`. {machine()}. {segment['count']:,.0f} pictures of {SIDE}×{SIDE} "
        "pixels; masks alone are written, and a stub stands for the network: what is left is the rest of the program. "
        "Seconds are by the clock, while the other core trained a network.",
        "",
        *table(("", "asked", "measured"), measured(found)),
        "",
        f"Hashing takes {hashes['read_volume']:.0%} of the processor time of reading a gzipped volume, "
        f"{hashes['read_picture']:.0%} of a picture, and {hashes['write_volume']:.0%} of writing labels and map "
        "of a volume: files are read again while they lie in the cache.",
        "",
        "Of volumes whose files take as long as the device, which is stood in for by waiting, "
        f"{found['overlap']['hidden']:.0%} of reading and writing is hidden behind it: of six volumes, of which the "
        "first has to be read before, and the last to be written after.",
        "",
        "## Many GPUs: arithmetic and simulation",
        "",
        "Nothing below was run on GPUs: their seconds for a case are assumed, and their price. `v2-fast` takes 193 "
        "GFLOP for ten members of a picture of 256 pixels ([speed](speed.md)): 0.02 s at 10 TFLOP/s. What it takes to "
        "write was measured, here for masks alone and there for all parts; a process writes with one thread. How well "
        "GPUs are used is simulated for 20,000 volumes of 60 s in the median, two thirds of them between 22 and 163 s "
        "(log-normal, σ = 1).",
        "",
        *table(("GPUs", "pulled, largest first", "pulled", "fixed parts"), shares),
        "",
        *table(("case", "GPUs", "cases/h", f"cost of 1000, {PRICE:g}/h", "bound by"), costs(record, asked)),
        "",
        f"* **The file system** is asked for {asked['changes']:.0f} changes of names for a case (make, link, rename, "
        f"remove): of masks alone, 512 GPUs that do 50 pictures a second ask for {512 * 50 * asked['changes']:,.0f} a "
        f"second, of volumes of a minute for {512 / 60 * asked['changes']:.0f}; all parts ask for more. This disk does "
        f"{asked['changes_per_s']:,.0f} in a second of a processor, which the table goes by; what a server of files "
        "does has to be measured there. Where it is less, give each machine an `--out` on a disk of its own, and a "
        "list of its own.",
        f"* **The store** counts {asked['counts_per_s']:,.0f} times a second for one process, and is asked once for a "
        f"case: 512 GPUs that do 50 pictures a second would ask {512 * 50:,} times, where the file system ends first.",
        "* **Writers** bound pictures on fast GPUs: `--write masks,labels`, or two processes on a GPU.",
    ]


if __name__ == "__main__":
    main()
