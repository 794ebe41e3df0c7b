"""Looking at data before training: what fits, what does not, what leaks between splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import Track, no_progress
from medsegdiff.data.listed import check_channels_alike, check_grids, unlabelled
from medsegdiff.data.listing import CaseFiles, Listing
from medsegdiff.data.masks import Masks
from medsegdiff.data.open import list_cases
from medsegdiff.data.slicing import Slicing
from medsegdiff.data.split import make_split
from medsegdiff.errors import DataError, MedSegDiffError, size
from medsegdiff.io.image import count_channels, read_channels
from medsegdiff.types import Geometry

ALIKE = 0.95
"""Correlation of edges at 32×32 from which two images are near-duplicates."""


@dataclass
class Inspection:
    """What was found in a data set."""

    layout: str = ""
    images: int = 0
    split: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """Height×width, or voxels by axis → number of images."""
    spacing: dict[str, list[float]] = field(default_factory=dict)
    """Of volumes, in mm by axis of the file: ``min``, ``median`` and ``max``."""
    channels: dict[str, int] = field(default_factory=dict)
    masks: str = ""
    """``flat``, ``raters`` or ``structures``, with the names of the folders."""
    task: str = ""
    classes: list[str] = field(default_factory=list)
    values: list[int] = field(default_factory=list)
    labels: dict[str, dict[str, float]] = field(default_factory=dict)
    """Class → ``share`` of the pixels of all masks, and ``cases`` that hold it."""
    empty_masks: list[str] = field(default_factory=list)
    unlisted: int = 0
    """Images that the split does not name."""
    leaks: list[str] = field(default_factory=list)
    """Groups (patients, say) with cases in several parts."""
    near_duplicates: list[dict[str, Any]] | None = None
    """Pairs in different parts; ``None`` where the split is not known."""
    remarks: list[str] = field(default_factory=list)
    """What is odd, though training can start."""
    problems: list[str] = field(default_factory=list)
    """What has to be mended before training."""
    shown: list[CaseFiles] = field(default_factory=list)
    """Readable cases with a mask, for a picture."""
    drawn: Masks | None = None
    """Their masks, for a picture."""

    @property
    def ok(self) -> bool:
        """Whether training can start."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values."""
        told = {item.name: getattr(self, item.name) for item in fields(self) if item.name not in ("shown", "drawn")}
        return told | {"ok": self.ok}


@dataclass
class _Reading:
    """What is gathered while files are read."""

    thumbnails: dict[str, torch.Tensor] = field(default_factory=dict)
    pixels: Counter[tuple[str, int]] = field(default_factory=Counter)
    """Folder of masks and value → pixels."""
    held: list[set[tuple[str, int]]] = field(default_factory=list)
    """By case: folders and values."""
    sizes: Counter[str] = field(default_factory=Counter)
    channels: Counter[str] = field(default_factory=Counter)
    spacings: list[tuple[float, ...]] = field(default_factory=list)


def inspect_folder(root: Path, config: DataConfig, *, track: Track = no_progress) -> Inspection:
    """Read every image and mask of a data set, and collect what is wrong instead of stopping at the first."""
    found = Inspection()
    try:
        listing = list_cases(root, config)
        if not listing.masks.names:
            raise DataError(f"{listing.masks.root}: there are no masks; training needs them.")
    except MedSegDiffError as error:
        found.problems.append(str(error))
        return found
    masks = listing.masks
    found.problems += _unlike(listing)
    found.layout, found.images, found.remarks = listing.layout, len(listing.cases), list(listing.remarks)
    found.unlisted = len(listing.unlisted)
    found.masks = masks.kind if masks.kind == "flat" else f"{masks.kind}: {', '.join(masks.folders)}"
    found.problems += [f"{name}: the image has no mask" for name in unlabelled(listing.cases, masks.names)]
    known = {*listing.cases, *listing.unlisted}
    found.remarks += [f"{name}: the mask has no image" for name in masks.names if name not in known]
    found.problems += [f"masks are missing: {name}" for name in masks.incomplete(set(masks.names) & set(listing.cases))]
    read = _read_all(listing, found, track)
    _understand(listing, read, config, found)
    if split := _split(listing, config, found):
        found.leaks = leaks(listing.cases, split)
        found.near_duplicates = near_duplicates(read.thumbnails, split)
    found.shown = [listing.cases[name] for name in sorted(read.thumbnails) if name in masks.names]
    found.drawn = masks
    return found


def _unlike(listing: Listing) -> list[str]:
    """Say what keeps images from being trained on together."""
    try:
        if listing.volumes:
            counts = {case.images[0]: count_channels(case.images) for case in listing.cases.values()}
            check_channels_alike(counts)
    except MedSegDiffError as error:
        return [str(error)]
    return []


def _read_all(listing: Listing, found: Inspection, track: Track) -> _Reading:
    read = _Reading()
    for name in track(list(listing.cases), "Reading images and masks"):
        try:
            _read(listing.cases[name], listing.masks, read, found)
        except MedSegDiffError as error:
            found.problems.append(str(error))
    found.values = sorted({value for _, value in read.pixels})
    found.sizes, found.channels = dict(read.sizes.most_common(8)), dict(read.channels)
    if read.spacings:
        low, median, high = np.percentile(read.spacings, (0, 50, 100), axis=0).round(4).tolist()
        found.spacing = {"median": median, "min": low, "max": high}
    return read


def _read(case: CaseFiles, masks: Masks, read: _Reading, found: Inspection) -> None:
    """Read a case: the image first, so that what it is counts even if its mask is bad."""
    image, geometry = read_channels(case.images)
    read.sizes[size(geometry.shape)] += 1
    read.channels[{1: "grey", 3: "colour"}.get(len(image), f"of {len(image)} channels")] += 1
    if geometry.affine is not None:
        read.spacings.append(geometry.spacing)
    check_grids(case, masks)
    read.held.append(set())
    for folder, path in masks.by_folder(case.name).items():
        values, counts = np.unique(masks.reader.values(path), return_counts=True)
        keys = [(folder, value) for value in values.tolist()]
        read.pixels.update(dict(zip(keys, counts.tolist(), strict=True)))
        read.held[-1].update(keys)
        if not values.any():
            found.empty_masks.append(f"{path.parent.name}/{case.name}")
    read.thumbnails[case.name] = thumbnail(_picture(image, geometry))


def _picture(image: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Give the picture itself, or the middle slice of a volume."""
    if image.ndim == 3:
        return image
    slicing = Slicing.of(geometry)
    return np.ascontiguousarray(slicing.cut(image, slicing.middle))


def _understand(listing: Listing, read: _Reading, config: DataConfig, found: Inspection) -> None:
    if not found.values:  # no mask could be read, and that is said already
        return
    if found.values == [0]:
        found.problems.append("Every mask is empty: there is nothing to learn.")
    try:
        coding = listing.masks.labels(found.values, task=config.task, classes=config.classes)
    except DataError as error:
        found.problems.append(str(error))
        return
    found.task, found.classes = coding.task, list(coding.classes)
    if listing.masks.kind != "structures":
        try:
            coding.read(np.array(found.values, np.uint8), listing.masks.root)
        except DataError as error:
            found.problems.append(str(error))
    structures = listing.masks.kind == "structures"
    total = sum(read.pixels.values()) / (len(coding.classes) if structures else 1)
    for index, name in enumerate(coding.classes):
        row = coding.table[0 if structures else index]
        own = {key for key in read.pixels if row[key[1]] and (key[0] == name or not structures)}
        cases = sum(bool(own & held) for held in read.held)
        found.labels[name] = {"share": sum(read.pixels[key] for key in own) / total, "cases": cases}


def _split(listing: Listing, config: DataConfig, found: Inspection) -> dict[str, str]:
    try:
        split = make_split(listing.cases, config)
    except DataError as error:
        found.problems.append(str(error))
        return {}
    found.split = dict(Counter(split.values()))
    return split


def leaks(cases: Mapping[str, CaseFiles], split: Mapping[str, str]) -> list[str]:
    """Find groups (patients, say) with cases in several parts: what was trained on would be tested on."""
    parts: dict[str, set[str]] = defaultdict(set)
    for name, part in split.items():
        parts[cases[name].group or name].add(part)
    return [f"{group} ({', '.join(sorted(held))})" for group, held in sorted(parts.items()) if len(held) > 1]


def thumbnail(image: np.ndarray) -> torch.Tensor:
    """Reduce an image to its edges at 32×32, normalised, so that a dot product is a correlation."""
    grey = torch.from_numpy(image).mean(dim=0)
    small = F.interpolate(grey[None, None], size=(33, 33), mode="bilinear", antialias=True)[0, 0]
    edges = torch.stack([small[1:, :-1] - small[:-1, :-1], small[:-1, 1:] - small[:-1, :-1]]).flatten()
    return F.normalize(edges - edges.mean(), dim=0)


def near_duplicates(thumbnails: dict[str, torch.Tensor], split: dict[str, str]) -> list[dict[str, Any]]:
    """Find pairs of images in different splits that look the same."""
    names = [name for name in thumbnails if name in split]
    if len(names) < 2:
        return []
    stack = torch.stack([thumbnails[name] for name in names])
    pairs = []
    for i, row in enumerate(stack @ stack.T):
        for j in torch.nonzero(row[:i] > ALIKE).flatten().tolist():
            if split[names[i]] != split[names[j]]:
                pairs.append(
                    {
                        "a": names[j],
                        "b": names[i],
                        "correlation": float(row[j]),
                        "splits": [split[names[j]], split[names[i]]],
                    }
                )
    return sorted(pairs, key=lambda pair: -float(pair["correlation"]))
