"""TNMIX: thyroid nodules of TN3K and of DDTI together, as the paper mixes them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from medsegdiff.config.data import DataConfig
from medsegdiff.data.benchmarks.ddti import DDTI
from medsegdiff.data.benchmarks.spec import Benchmark, Found, list_benchmark, matches, register
from medsegdiff.data.benchmarks.tn3k import TN3K
from medsegdiff.data.dataset import CaseFiles, Listing
from medsegdiff.data.masks import MaskFile, MaskReader, MaskRef
from medsegdiff.data.split import make_split
from medsegdiff.types import Geometry

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


def _match(root: Path) -> bool:
    return all(matches(half, root / name) for name, half in HALVES.items())


def _find(spec: Benchmark, root: Path, config: DataConfig) -> Found:
    """Find the images of both data sets, each with the split that it has by itself: the paper tells of no other."""
    if not _match(root):
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
        find=_find,
        match=_match,
        reader=MixedReader(),
        licence="those of tn3k and ddti",
        home="those of tn3k and ddti",
        paper="table 1, column TNMIX",
    )
)
