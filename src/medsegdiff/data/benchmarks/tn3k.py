"""TN3K, and TNMIX, which joins it to DDTI: thyroid nodules in ultrasound."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medsegdiff.config.data import DataConfig
from medsegdiff.data.benchmarks.ddti import DDTI
from medsegdiff.data.benchmarks.spec import Benchmark, Found, Part, in_parts, list_benchmark, matches, register
from medsegdiff.data.dataset import CaseFiles, Listing
from medsegdiff.data.masks import MaskFile, MaskReader, MaskRef, whole
from medsegdiff.data.split import make_split
from medsegdiff.errors import DataError, some
from medsegdiff.io.image import read_mask
from medsegdiff.io.names import image_name
from medsegdiff.labels import Labels
from medsegdiff.types import Geometry

HALF = 127
"""JPEG leaves a grey rim around what was drawn with 0 and 255; above this it counts as drawn."""
FOLD = "tn3k-trainval-fold0.json"
"""The first of the release's five folds: numbers of images in ``trainval-image`` that train and that validate."""


class HalfReader(MaskReader):
    """Reads masks that were compressed: bright is foreground."""

    def values(self, path: MaskFile) -> UInt8[np.ndarray, "h w"]:
        """Read a mask."""
        return (read_mask(whole(path)) > HALF).astype(np.uint8)


def _match(root: Path) -> bool:
    return (root / "trainval-image").is_dir() or all((root / f"test-{kind}").is_dir() for kind in ("image", "mask"))


def _find(spec: Benchmark, root: Path, config: DataConfig) -> Found:
    """Find the images; the fold says which of them validate, unless the user wrote ``split.csv``."""
    found = in_parts(spec, root, config)
    if not found.cases or (root / "split.csv").is_file() or not (root / FOLD).is_file():
        return found
    names = [case.name for case in found.cases]
    parts = {case.name: "test" for case in found.cases if case.part == "test"} | _read_fold(root / FOLD, names)
    cases = [replace(case, part=parts[case.name]) for case in found.cases if case.name in parts]
    return replace(found, cases=cases, passed_over=names)


def _read_fold(file: Path, names: Collection[str]) -> dict[str, str]:
    """Read which images train and which validate.

    The authors' loader takes the numbers for places in the list of images, which in the whole release, numbered from
    0, are the names of the files. Here they are names, so an image that is missing moves no other.
    """
    try:
        read = json.loads(file.read_text(encoding="utf-8"))
        parts = {_named(item): part for part in ("train", "val") for item in read[part]}
        count = sum(len(read[part]) for part in ("train", "val"))
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f'{file}: expected {{"train": [numbers of images], "val": [numbers of images]}}; found none ({error!r}). '
            "Take the file of the release, or remove it: validation cases are then drawn."
        ) from error
    if len(parts) < count:
        raise DataError(f"{file}: expected each image once; found {count - len(parts)} twice. Correct the file.")
    if unknown := sorted(set(parts) - set(names)):
        raise DataError(
            f"{file}: expected the images that it names in trainval-image; found all but {len(unknown)}: "
            f"{some(unknown)}. Unpack the whole release, or remove the file: validation cases are then drawn."
        )
    return parts


def _named(item: int | str) -> str:
    """Name the case of an image that a fold tells by number or by file."""
    return f"trainval-{item:04d}" if isinstance(item, int) else f"trainval-{Path(item).stem}"


TN3K = register(
    Benchmark(
        name="tn3k",
        labels=Labels("binary", ("nodule",)),
        parts=(Part("train", "trainval-image/*", "trainval-mask/*"), Part("test", "test-image/*", "test-mask/*")),
        name_of=lambda path: f"{path.parent.name.partition('-')[0]}-{image_name(path)}",  # 0000 is in either
        files=f"{{trainval,test}}-image/0000.jpg, {{trainval,test}}-mask/0000.jpg, {FOLD}",
        find=_find,
        match=_match,
        reader=HalfReader(),
        remarks=("the masks are JPEG files: what is brighter than half counts as nodule",),
        licence="see its home page",
        home="https://github.com/haifangong/TRFE-Net-for-thyroid-nodule-segmentation",
        paper="table 1, column TNMIX (with ddti)",
    )
)


HALVES = {"tn3k": TN3K, "ddti": DDTI}
"""By sub-folder; the names of cases begin so too."""


class MixedReader(MaskReader):
    """Reads each mask as its own data set does."""

    def values(self, path: MaskFile) -> UInt8[np.ndarray, "h w"]:
        """Read a mask."""
        return _reader(path).values(path)

    def geometry(self, path: MaskFile) -> Geometry:
        """Find out where a mask lies."""
        return _reader(path).geometry(path)


def _reader(path: MaskFile) -> MaskReader:
    return (DDTI if isinstance(path, MaskRef) else TN3K).reader


def _matched(root: Path) -> bool:
    return all(matches(half, root / name) for name, half in HALVES.items())


def _mixed(spec: Benchmark, root: Path, config: DataConfig) -> Found:
    """Find the images of both data sets, each with the split that it has by itself: the paper tells of no other."""
    if not _matched(root):
        return Found()
    halves = {name: list_benchmark(half, root / name, config) for name, half in HALVES.items()}
    return Found(
        [case for name, half in halves.items() for case in _renamed(name, half, config)],
        {"": {f"{n}_{case}": half.masks.files(case)[0] for n, half in halves.items() for case in half.masks.names}},
        passed_over=[f"{name}_{case}" for name, half in halves.items() for case in half.unlisted],
        remarks=tuple(f"{name}: {remark}" for name, half in halves.items() for remark in half.remarks),
    )


def _renamed(name: str, half: Listing, config: DataConfig) -> Iterator[CaseFiles]:
    """Split a data set by itself, and put its name before those of its cases and patients."""
    parts = make_split(half.cases, config)
    for case in half.cases.values():
        group = f"{name}_{case.group or case.name}"
        yield replace(case, name=f"{name}_{case.name}", part=parts[case.name], group=group)


register(
    Benchmark(
        name="tnmix",
        labels=TN3K.labels,
        files=f"tn3k/({TN3K.files}), ddti/({DDTI.files})",
        find=_mixed,
        match=_matched,
        reader=MixedReader(),
        licence="those of tn3k and ddti",
        home="those of tn3k and ddti",
        paper="table 1, column TNMIX",
    )
)
