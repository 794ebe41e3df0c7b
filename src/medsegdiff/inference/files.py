"""Segmenting files: which ones, where the results go, and what to do about those that can't be read."""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Unpack

import numpy as np

from medsegdiff.checkpoint import CONFIG
from medsegdiff.config.sampling import SamplingOptions
from medsegdiff.config.spec import DataSpec
from medsegdiff.data.dataset import Track, no_progress
from medsegdiff.data.listing import CaseFiles
from medsegdiff.data.transforms import check_channels
from medsegdiff.errors import ConfigError, DataError, GeometryError, MedSegDiffError, some
from medsegdiff.inference.inputs import check_files, read_case
from medsegdiff.inference.rates import rates_of, write_rates
from medsegdiff.inference.request import Request
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.io.atomic import write_json
from medsegdiff.metrics.plausibility import Appearance, appearance_of, warning_of
from medsegdiff.types import Case

log = logging.getLogger(__name__)

MADE = "segment.json"
"""Marks a folder of results, and tells how they were made."""
PARTS = ("masks", "labels", "probability", "uncertainty", "anchor", "overlay", "members", "dicom-seg")
SPLIT = "split.csv"
RATES = "staple.csv"


@dataclass
class Finished:
    """What became of the files."""

    done: list[dict[str, Any]] = field(default_factory=list)
    """By image: name, share of foreground, number of members, mean uncertainty, agreement of the members."""
    failed: dict[str, str] = field(default_factory=dict)
    """Path → why."""
    seconds: float = 0.0
    seen: list[Appearance] = field(default_factory=list)
    """By image: what its mask looks like."""

    def members(self) -> str:
        """Say how many members the images have."""
        counts = [image["members"] for image in self.done] or [0]
        return f"mean {np.mean(counts):.1f} ({min(counts)}–{max(counts)})"

    def warning(self) -> str:
        """Say so if the results look like those of a model that has not been trained long enough."""
        return warning_of(self.seen)


def check_room(out: Path, *, overwrite: bool) -> None:
    """Make sure that results overwrite nothing but results, and those only when told to."""
    guarded = ("images", *PARTS, RATES) if _is_run(out) else ("images", *PARTS, RATES, SPLIT)
    taken = [part for part in guarded if (out / part).exists()]
    if not taken:
        return
    if not (out / MADE).is_file():
        raise ConfigError(
            f"{out} holds {some(taken)} that 'medsegdiff segment' did not write, perhaps your data. "
            "Choose another --out."
        )
    if not overwrite:
        raise ConfigError(f"{out} holds results already. Add --overwrite to replace them, or choose another --out.")


def _is_run(folder: Path) -> bool:
    """Tell whether a training run lives here, whose split is its own; results may lie beside it."""
    return (folder / CONFIG).is_file()


def segment_files(
    segmenter: Segmenter,
    files: Sequence[CaseFiles],
    out: Path,
    *,
    save_members: bool = False,
    split_file: Path | None = None,
    overwrite: bool = False,
    track: Track = no_progress,
    noted: Callable[[str], None] = log.info,
    **options: Unpack[SamplingOptions],
) -> Finished:
    """Segment files and write the results; files that can't be read are listed and passed over."""
    request = Request.of(segmenter.config, **options)
    check_room(out, overwrite=overwrite)
    finished, rates, start = Finished(), list[dict[str, Any]](), time.monotonic()
    readable = _readable(track(files, "Segmenting"), finished, segmenter.config.spec)
    paths = {file.name: str(file.images[0]) for file in files}

    def refused(name: str, error: MedSegDiffError) -> None:
        log.warning("%s", error)
        finished.failed[paths[name]] = str(error)

    def passed_over(case: Case, error: MedSegDiffError) -> None:
        refused(case.name, error)

    for result in segmenter.results(readable, request, refused=passed_over, noted=noted):
        if not finished.done:  # results of an earlier time stay until there are new ones
            _clear(out)
            _mark(out, segmenter, request, split_file)
        try:
            result.save(out, members=save_members)
            facts = _facts(result)
            finished.done.append(facts)
            finished.seen.append(_appearance(result, facts))
            rates += rates_of(result)
        except (DataError, GeometryError) as error:
            refused(result.name, error)
        del result  # a volume is large, and the next one is made before this name would be taken again
    finished.seconds = time.monotonic() - start
    if finished.done:
        write_rates(out / RATES, rates)
        told = json.loads((out / MADE).read_text(encoding="utf-8"))
        write_json(out / MADE, told | {"seconds": finished.seconds, "images": finished.done, "failed": finished.failed})
    return finished


def _mark(out: Path, segmenter: Segmenter, request: Request, split_file: Path | None) -> None:
    """Mark the folder as ours before the first result is in it."""
    spec, sampling = segmenter.config.spec, request.sampling.model_dump(mode="json")
    labels = spec.labels
    facts: dict[str, Any] = {"task": labels.task, "classes": labels.classes, "model": segmenter.origin}
    facts |= {"layout": spec.layout, "members": request.members, "sampling": sampling, "seed": request.seed}
    write_json(out / MADE, facts)
    if split_file is not None and not _is_run(out):
        shutil.copyfile(split_file, out / SPLIT)


def _clear(out: Path) -> None:
    """Remove the results of an earlier time, and nothing else."""
    if not (out / MADE).is_file():
        return
    for part in PARTS:
        shutil.rmtree(out / part, ignore_errors=True)
    (out / RATES).unlink(missing_ok=True)
    if not _is_run(out):
        (out / SPLIT).unlink(missing_ok=True)


def _readable(files: Iterable[CaseFiles], finished: Finished, spec: DataSpec) -> Iterator[Case]:
    for file in files:
        try:
            check_files(file, spec)
            case = read_case(file)
            check_channels(case, spec.channels)
            yield case
        except (DataError, GeometryError) as error:
            log.warning("%s", error)
            finished.failed[str(file.images[0])] = str(error)


def _facts(result: Segmentation) -> dict[str, Any]:
    labels = result.labels
    return {
        "name": result.name,
        "foreground": {
            name: float(labels.mask(result.mask, index).mean()) for index, name in enumerate(labels.structures)
        },
        "members": len(result.members),
        "mean_entropy": float(result.uncertainty.entropy.mean()),
        "agreement": result.agreement(),
    }


def _appearance(result: Segmentation, facts: dict[str, Any]) -> Appearance:
    """Look at the structure that members draw largest."""
    shares = np.zeros(len(result.labels.structures))
    for index in range(len(result.labels.structures)):
        shares[index] = np.mean([result.labels.mask(member, index).mean() for member in result.members])
    largest = int(shares.argmax())
    mask = result.labels.mask(result.mask, largest)
    return appearance_of(mask, agreement=facts["agreement"], members=float(shares[largest]))
