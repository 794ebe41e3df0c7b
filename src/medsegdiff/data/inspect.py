"""Looking at data before training: what fits, what does not, what leaks between splits."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import CaseFiles, Listing, Track, no_progress
from medsegdiff.data.displaced import Contrasts, displaced_in_words
from medsegdiff.data.duplicates import MOST, near_duplicates, thumbnail
from medsegdiff.data.masks import COMPLETED, Masks, Stored, missing_structures, whole
from medsegdiff.data.modality import check_modalities
from medsegdiff.data.open import list_cases
from medsegdiff.data.scan import (
    Scan,
    check_channels_alike,
    no_masks,
    scan,
    unlabelled,
    unlisted_in_words,
    without_image,
)
from medsegdiff.data.slicing import Slicing
from medsegdiff.data.split import make_split
from medsegdiff.data.vanishing import lost_in_words, vanishes
from medsegdiff.errors import ConfigError, DataError, MedSegDiffError, size, some
from medsegdiff.io.image import read_channels
from medsegdiff.io.listing import in_words
from medsegdiff.io.names import composed
from medsegdiff.types import Geometry


@dataclass
class Inspection:
    """What was found in a data set."""

    layout: str = ""
    understood: list[str] = field(default_factory=list)
    """How files were understood, where names alone tell."""
    images: int = 0
    split: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """Height×width, or voxels by axis → number of images, the most frequent first."""
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


def inspect_folder(root: Path, config: DataConfig, *, track: Track = no_progress) -> Inspection:
    """Read every image and mask of a data set, and collect what is wrong instead of stopping at the first."""
    found = Inspection()
    try:
        listing = list_cases(root, config)
        found.understood = list(listing.understood)
        if not listing.masks.names:
            raise DataError(f"{root}: there are no masks; training needs them. {no_masks(listing)}")
    except MedSegDiffError as error:
        found.problems.append(str(error))
        return found
    masks = listing.masks
    found.layout, found.images, found.remarks = listing.layout, len(listing.cases), list(listing.remarks)
    found.unlisted = len(listing.unlisted)
    found.masks = masks.kind if masks.kind == "flat" else f"{masks.kind}: {', '.join(masks.folders)}"
    _left_out(listing, found)
    found.remarks += _without_mask(listing)
    thumbnails, vanishing, contrasts = dict[str, torch.Tensor](), list[str](), Contrasts()

    def shrink(case: CaseFiles, stored: Stored) -> None:
        image, geometry = read_channels(case.images)
        thumbnails[case.name] = thumbnail(_picture(image, geometry))
        if any(vanishes(values, masks, geometry, config) for _, values in stored):  # masks lie on the same grid
            vanishing.append(case.name)
        for _, values in stored[:1]:  # of several raters, or structures, the first: all were moved alike, or none
            picture, mask = _outlined(image, masks.structures(values), geometry)
            contrasts.add(case.group or "", picture, mask)

    read = scan(listing, config, track=track, also=shrink)
    found.understood = list(read.listing.understood)
    found.problems += _problems(listing, read, config)
    _describe(read, found)
    _understand(read, config, found)
    found.remarks += [lost_in_words(vanishing, len(read.cases), config)] if vanishing else []
    found.remarks += [displaced_in_words(*of) for of in contrasts.displaced()]
    if split := _split(read.listing, config, found):
        found.leaks = leaks(read.listing.cases, split)
        found.near_duplicates = near_duplicates(thumbnails, split)
        if len(found.near_duplicates) >= MOST:
            found.remarks.append(f"There are {MOST} near-duplicates or more: the most alike are listed.")
    found.shown = [listing.cases[name] for name in sorted(thumbnails) if masks.has(name)]
    found.drawn = masks
    return found


def _left_out(listing: Listing, found: Inspection) -> None:
    """Tell what lies in the folders and is not used; it is a problem where a mask waits for it."""
    for name, entry in without_image(listing).items():
        if entry is None:
            found.remarks.append(f"{name}: the mask has no image")
        else:
            found.problems.append(f"{name}: the mask has no image, for {composed(str(entry.path))} is {entry.reason}")
    told = (in_words(listing.left_out), in_words(listing.masks.left_out), *unlisted_in_words(listing))
    found.remarks += [line for line in told if line]


def _without_mask(listing: Listing) -> Iterator[str]:
    """Say what can be done about images without a mask; those of the test part need none, but then have no score."""
    if listing.masks.incomplete(set(listing.masks.names) & set(listing.cases)):
        yield f"Structures are missing. {COMPLETED}"
    if unlabelled(listing):
        yield "Of an image without a mask: draw one, save one that is all 0 if there is nothing to find, or remove it."
    tested = [name for name, case in listing.cases.items() if case.part == "test"]
    if secret := [name for name in tested if not listing.masks.has(name)]:
        yield f"{len(secret)} of {len(tested)} test images have no mask and get no score: {some(secret)}."


def _problems(listing: Listing, read: Scan, config: DataConfig) -> list[str]:
    """Word what has to be mended: of all cases together, of their masks, then case by case."""
    masks = listing.masks
    problems = []
    try:
        if listing.volumes:
            check_channels_alike(read)
        if read.sound:
            told = read.modalities(config)  # mixed ones are refused
            check_modalities(told, config, channels=read.channels, volumes=listing.volumes)
    except (DataError, ConfigError) as error:
        problems.append(str(error))
    problems += [f"{name}: the image has no mask" for name in unlabelled(listing)]
    incomplete = masks.incomplete(set(masks.names) & set(listing.cases))
    problems += [f"masks are missing: {text}" for text in missing_structures(incomplete)]
    return problems + [str(problem) for problem in read.problems.values()]


def _describe(read: Scan, found: Inspection) -> None:
    """Tell sizes, channels and spacings of the images, and which masks are empty."""
    channels = Counter(read.cases[name].channels for name in read.grids)
    found.channels = {{1: "grey", 3: "colour"}.get(n, f"of {n} channels"): count for n, count in channels.items()}
    found.sizes = dict(Counter(size(grid.shape) for grid in read.grids.values()).most_common())
    spacings = [grid.spacing for grid in read.grids.values() if grid.affine is not None]
    if spacings:
        low, median, high = np.percentile(spacings, (0, 50, 100), axis=0).round(4).tolist()
        found.spacing = {"median": median, "min": low, "max": high}
    for name, case in read.cases.items():
        for folder, path in read.listing.masks.by_folder(name).items():
            if {value for of, value in case.counts if of == folder} == {0}:
                found.empty_masks.append(f"{whole(path).parent.name}/{name}")


def _picture(image: Float[np.ndarray, "c *s"], geometry: Geometry) -> Float[np.ndarray, "c h w"]:
    """Take a picture as it is, and the middle slice of a volume."""
    if image.ndim == 3:
        return image
    slicing = Slicing.of(geometry)
    return np.ascontiguousarray(slicing.cut(image, slicing.middle))


def _outlined(
    image: Float[np.ndarray, "c *s"], mask: Bool[np.ndarray, " *s"], geometry: Geometry
) -> tuple[Float[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
    """Take picture and mask as they are, and of a volume the slice with most of the mask."""
    if mask.ndim == 2:
        return image, mask
    slicing = Slicing.of(geometry)
    most = slicing.where(mask)
    return slicing.cut(image, most), slicing.cut(mask, most)


def _understand(read: Scan, config: DataConfig, found: Inspection) -> None:
    found.values = sorted(read.values)
    if not found.values:  # no mask could be read, and that is said already
        return
    if found.values == [0]:
        found.problems.append("Every mask is empty: there is nothing to learn.")
    structures = read.listing.masks.kind == "structures"
    try:
        labels = read.labels(config)
        found.task, found.classes = labels.task, list(labels.classes)
        if not structures:
            labels.read(np.array(found.values, np.uint8), read.listing.masks.root)
    except DataError as error:
        found.problems.append(str(error))
    if not found.task:
        return
    counts = read.counts
    total = sum(counts.values()) / (len(labels.classes) if structures else 1)
    for index, name in enumerate(labels.classes):
        row = labels.table[0 if structures else index]
        own = {key for key in counts if row[key[1]] and (key[0] == name or not structures)}
        cases = sum(not own.isdisjoint(case.counts) for case in read.cases.values())
        found.labels[name] = {"share": sum(counts[key] for key in own) / total, "cases": cases}


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
