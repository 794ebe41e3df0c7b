"""Looking at a data folder before training: what fits, what does not, what leaks between splits."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from medsegdiff.config import DataConfig
from medsegdiff.data.dataset import Track, in_silence
from medsegdiff.data.folder import check_case, find_images
from medsegdiff.data.masks import MaskFolder
from medsegdiff.data.planes import middle_of
from medsegdiff.data.split import make_split
from medsegdiff.errors import DataError, MedSegDiffError
from medsegdiff.io.image import read_image, read_mask
from medsegdiff.report.preview import preview

ALIKE = 0.95
"""Correlation of edges at 32×32 from which two images are near-duplicates."""


@dataclass
class Inspection:
    """What was found in a data folder."""

    images: int = 0
    split: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """Height×width → number of images."""
    channels: dict[str, int] = field(default_factory=dict)
    masks: str = ""
    """``flat``, ``raters`` or ``structures``, with the names of the folders."""
    task: str = ""
    classes: list[str] = field(default_factory=list)
    values: list[int] = field(default_factory=list)
    empty_masks: list[str] = field(default_factory=list)
    unlisted: int = 0
    """Images that ``split.csv`` does not name."""
    near_duplicates: list[dict[str, Any]] | None = None
    """Pairs in different parts; ``None`` where the split is not known."""
    remarks: list[str] = field(default_factory=list)
    """What is odd, though training can start."""
    problems: list[str] = field(default_factory=list)
    """What has to be mended before training."""

    @property
    def ok(self) -> bool:
        """Whether training can start."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values.

        Returns:
            For JSON.
        """
        return asdict(self) | {"ok": self.ok}


def inspect_folder(
    root: Path, config: DataConfig, *, picture: Path | None = None, track: Track = in_silence
) -> Inspection:
    """Read every image and mask of a folder, and collect what is wrong instead of stopping at the first.

    Args:
        root: The folder with ``images/`` and ``masks/``.
        config: How to read it.
        picture: Where a preview is drawn.
        track: Shows progress.

    Returns:
        The findings.
    """
    found = Inspection()
    try:
        images = find_images(root)
        masks = MaskFolder(root / "masks", kind=config.mask_folders, names=images)
    except MedSegDiffError as error:
        found.problems.append(str(error))
        return found
    found.images = len(images)
    found.masks = masks.kind if masks.kind == "flat" else f"{masks.kind}: {', '.join(masks.folders)}"
    found.problems += [f"{name}: the image has no mask" for name in sorted(set(images) - set(masks.names))]
    found.remarks += [f"{name}: the mask has no image" for name in sorted(set(masks.names) - set(images))]
    found.problems += [f"masks are missing: {name}" for name in masks.incomplete(images)]
    thumbnails = _read_all(images, masks, found, track)
    _understand(masks, config, found)
    split = _split(root, images, config, found)
    if split:
        found.near_duplicates = near_duplicates(thumbnails, split)
    if picture is not None:
        preview([(images[n], masks.files(n)) for n in sorted(thumbnails) if n in masks.names], picture)
    return found


def _read_all(images: dict[str, Path], masks: MaskFolder, found: Inspection, track: Track) -> dict[str, torch.Tensor]:
    thumbnails: dict[str, torch.Tensor] = {}
    values: set[int] = set()
    sizes: Counter[str] = Counter()
    channels: Counter[str] = Counter()
    for name in track(sorted(images), "Reading images and masks"):
        try:
            image, geometry = read_image(images[name])
            sizes["×".join(map(str, geometry.shape))] += 1
            channels[{1: "grey", 3: "colour"}.get(len(image), f"of {len(image)} channels")] += 1
            values |= check_case(name, images[name], masks)
            found.empty_masks += [
                f"{path.parent.name}/{name}" for path in masks.files(name) if not read_mask(path).any()
            ]
        except MedSegDiffError as error:
            found.problems.append(str(error))
            continue
        thumbnails[name] = thumbnail(middle_of(image, geometry) if image.ndim == 4 else image)
    found.values, found.sizes, found.channels = sorted(values), dict(sizes.most_common(8)), dict(channels)
    return thumbnails


def _understand(masks: MaskFolder, config: DataConfig, found: Inspection) -> None:
    if not found.values:  # no mask could be read, and that is said already
        return
    if found.values == [0]:
        found.problems.append("Every mask is empty: there is nothing to learn.")
    try:
        coding = masks.coding(found.values, task=config.task, classes=config.classes)
        found.task, found.classes = coding.task, list(coding.classes)
    except DataError as error:
        found.problems.append(str(error))


def _split(root: Path, images: dict[str, Path], config: DataConfig, found: Inspection) -> dict[str, str]:
    try:
        split = make_split(images, root / "split.csv", config)
    except DataError as error:
        found.problems.append(str(error))
        return {}
    found.split = dict(Counter(split.values()))
    found.unlisted = len(images) - len(split)
    return split


def thumbnail(image: np.ndarray) -> torch.Tensor:
    """Reduce an image to its edges at 32×32, normalised, so that a dot product is a correlation.

    Args:
        image: (c h w).

    Returns:
        A vector.
    """
    grey = torch.from_numpy(image).mean(dim=0)
    small = F.interpolate(grey[None, None], size=(33, 33), mode="bilinear", antialias=True)[0, 0]
    edges = torch.stack([small[1:, :-1] - small[:-1, :-1], small[:-1, 1:] - small[:-1, :-1]]).flatten()
    return F.normalize(edges - edges.mean(), dim=0)


def near_duplicates(thumbnails: dict[str, torch.Tensor], split: dict[str, str]) -> list[dict[str, Any]]:
    """Find pairs of images in different splits that look the same.

    Args:
        thumbnails: From `thumbnail`, by name.
        split: Name → part.

    Returns:
        Pairs, most alike first.
    """
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
