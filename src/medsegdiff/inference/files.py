"""Segmenting files: which ones, where the results go, and what to do about those that can't be read."""

from __future__ import annotations

import csv
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medsegdiff.data.dataset import Track, in_silence
from medsegdiff.errors import DataError
from medsegdiff.inference.inputs import read_case
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.io.atomic import write_json
from medsegdiff.io.raster import SUFFIXES, pictures_in
from medsegdiff.types import Case


@dataclass
class Finished:
    """What became of the files."""

    done: list[dict[str, Any]] = field(default_factory=list)
    """By image: name, share of foreground, mean uncertainty."""
    failed: dict[str, str] = field(default_factory=dict)
    """Path → why."""
    seconds: float = 0.0


def find_inputs(paths: Sequence[Path], *, split_file: Path | None = None, split: str | None = None) -> list[Path]:
    """List the images that a user means.

    Args:
        paths: Pictures, folders of pictures, or data folders with ``images/``.
        split_file: ``split.csv`` of the run.
        split: Take only the images of this part.

    Returns:
        Pictures.

    Raises:
        DataError: If there are none, or two have the same name and would overwrite each other's results.
    """
    found = [file for path in paths for file in _pictures(path)]
    if split is not None and split_file is not None:
        members = _names_in(split_file, split)
        found = [file for file in found if file.stem in members]
        if not found:
            raise DataError(f"None of the images is in the split '{split}' of {split_file}.")
    twice = [name for name, count in Counter(file.stem for file in found).items() if count > 1]
    if twice:
        raise DataError(
            f"Several images are named {', '.join(twice[:5])}; their results would overwrite each other. "
            "Segment them one folder at a time."
        )
    return found


def _pictures(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: there is no such file or folder.")
    folder = path / "images" if (path / "images").is_dir() else path
    pictures = pictures_in(folder)
    if not pictures:
        raise DataError(f"{folder}: holds no pictures. Allowed: {', '.join(SUFFIXES)}.")
    return pictures


def _names_in(split_file: Path, split: str) -> set[str]:
    if not split_file.is_file():
        raise DataError(f"{split_file}: there is no such file, so the split '{split}' is not known.")
    with split_file.open(newline="", encoding="utf-8") as handle:
        return {row["id"] for row in csv.DictReader(handle) if row["split"] == split}


def segment_files(
    segmenter: Segmenter,
    files: Sequence[Path],
    out: Path,
    *,
    options: dict[str, Any],
    save_members: bool = False,
    split_file: Path | None = None,
    track: Track = in_silence,
) -> Finished:
    """Segment files and write the results; files that can't be read are listed and passed over.

    Args:
        segmenter: The model.
        files: Pictures with different names.
        out: Folder for the results.
        options: ``members``, ``steps``, ``sampler``, ``fusion``, ``seed``.
        save_members: Whether each member's mask is written.
        split_file: ``split.csv`` to keep beside the results.
        track: Shows progress.

    Returns:
        What was done, what failed.
    """
    finished, start = Finished(), time.monotonic()
    readable = _readable(track(files, "Segmenting"), finished)
    for result in segmenter.stream(readable, **options):
        result.save(out, members=save_members)
        finished.done.append(_facts(result))
    finished.seconds = time.monotonic() - start
    if finished.done:
        if split_file is not None:
            shutil.copyfile(split_file, out / "split.csv")
        write_json(
            out / "segment.json",
            {"options": options, "seconds": finished.seconds, "images": finished.done, "failed": finished.failed},
        )
    return finished


def _readable(files: Iterable[Path], finished: Finished) -> Iterator[Case]:
    for file in files:
        try:
            yield read_case(file)
        except DataError as error:
            finished.failed[str(file)] = str(error)


def _facts(result: Segmentation) -> dict[str, Any]:
    masks = result.channels(result.mask)
    return {
        "name": result.name,
        "foreground": {n: float(m.mean()) for n, m in zip(result.structures, masks, strict=True)},
        "mean_entropy": float(result.uncertainty.entropy.mean()),
    }
