"""TNMIX: thyroid nodules of TN3K and of DDTI together, as the paper mixes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medsegdiff.config.run import DataConfig
from medsegdiff.data.benchmarks import ddti, tn3k
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.listing import CaseFiles, Layout, Listing, expected
from medsegdiff.data.masks import MaskReader, Masks
from medsegdiff.data.split import assign, make_split
from medsegdiff.types import Geometry

HALVES = {"tn3k": Layout(tn3k.looks_like_tn3k, tn3k.list_tn3k), "ddti": Layout(ddti.looks_like_ddti, ddti.list_ddti)}
"""By sub-folder; the names of cases begin so too."""
FILES = f"tn3k/({tn3k.FILES}), ddti/({ddti.FILES})"


class MixedReader(MaskReader):
    """Reads each mask as its own data set does."""

    def __init__(self) -> None:
        """Take a reader for either."""
        self.pictures, self.drawn = tn3k.HalfReader(), ddti.DrawnReader()

    def values(self, path: Path) -> UInt8[np.ndarray, "h w"]:
        """Read a mask."""
        return self._reader(path).values(path)

    def geometry(self, path: Path) -> Geometry:
        """Find out where a mask lies."""
        return self._reader(path).geometry(path)

    def _reader(self, path: Path) -> MaskReader:
        return self.drawn if ".xml#" in path.name else self.pictures


def looks_like_tnmix(root: Path) -> bool:
    """Tell whether a folder holds both data sets."""
    return all(layout.detect(root / name) for name, layout in HALVES.items())


def list_tnmix(root: Path, config: DataConfig) -> Listing:
    """List the images of both data sets, each with the split that it has by itself: the paper tells of no other."""
    if not looks_like_tnmix(root):
        raise expected(FILES, root)
    halves = {name: layout(root / name, config) for name, layout in HALVES.items()}
    mixed = {case.name: case for name, half in halves.items() for case in _renamed(name, half, config)}
    masks = {f"{name}_{case}": path for name, half in halves.items() for case, path in _files(half.masks).items()}
    cases = assign(mixed, root / "split.csv")
    unlisted = {f"{name}_{case}" for name, half in halves.items() for case in half.unlisted} | (set(mixed) - set(cases))
    return Listing(
        root,
        "tnmix",
        cases,
        Masks({"": masks}, kind="flat", where=root, declared=tn3k.CODING, reader=MixedReader()),
        unlisted=tuple(sorted(unlisted)),
        remarks=tuple(f"{name}: {remark}" for name, half in halves.items() for remark in half.remarks),
    )


def _renamed(name: str, half: Listing, config: DataConfig) -> list[CaseFiles]:
    """Split a data set by itself, and put its name before those of its cases and patients."""
    parts = make_split(half.cases, config)
    return [
        replace(case, name=f"{name}_{case.name}", part=parts[case.name], group=f"{name}_{case.group or case.name}")
        for case in half.cases.values()
    ]


def _files(masks: Masks) -> dict[str, Path]:
    return {case: masks.files(case)[0] for case in masks.names}


DATASETS.register(
    "tnmix",
    kind="benchmark",
    task="binary",
    classes=tn3k.CODING.classes,
    licence="those of tn3k and ddti",
    home="those of tn3k and ddti",
    paper="table 1, column TNMIX",
    layout=FILES,
)(Layout(looks_like_tnmix, list_tnmix))
