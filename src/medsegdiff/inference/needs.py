"""What segmenting a volume needs, told before the work begins: memory, and room for temporary files."""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
from dataclasses import dataclass

from medsegdiff.errors import DataError
from medsegdiff.types import Task

log = logging.getLogger(__name__)

READ_BYTES, IMAGE_BYTES, MAP_BYTES, LABEL_BYTES = 8, 4, 2, 1
"""By voxel: of what is read from a file, at most; of the image; of a probability; of a label."""
WORKING_COPIES = 8
"""Arrays of the members of one batch of slices that exist at once while they are restored and fused."""
WRITTEN_BYTES = 8
"""By voxel: of a map while it is written."""
SEGMENT_BYTES, FRACTION_BYTES = 4, 18
"""By voxel and structure of a DICOM-SEG file of masks, and by voxel of one of probabilities (measured: 3.4 and 14)."""
MARGIN = 0.5e9
"""What libraries, caches and pictures take besides, in bytes."""
TOLD = 2e9
"""Needs above this many bytes are told."""


@dataclass(frozen=True)
class Needs:
    """Bytes beyond the model, at most."""

    memory: int
    disk: int
    """Of temporary files."""


def needs_of(
    shape: tuple[int, ...],
    *,
    channels: int,
    classes: int,
    members: int,
    task: Task,
    batch_size: int = 16,
    dicom: bool = False,
) -> Needs:
    """Estimate what segmenting a volume needs."""
    voxels, largest = math.prod(shape), math.prod(sorted(shape)[1:])
    image = voxels * channels * IMAGE_BYTES
    reading = image + voxels * channels * READ_BYTES
    slices = max(1, batch_size // members)
    working = slices * members * classes * largest * 4 * WORKING_COPIES
    writing = image + voxels * max(WRITTEN_BYTES, dicom * max(SEGMENT_BYTES * classes, FRACTION_BYTES))
    maps = classes if task == "regions" else 1  # of labels, by member
    disk = voxels * (MAP_BYTES * (classes + 3) + LABEL_BYTES * maps * (members + 2))
    return Needs(memory=int(max(reading, image + working, writing) + MARGIN), disk=disk)


def check_needs(name: str, needs: Needs) -> None:
    """Say what a large volume needs; refuse it if temporary files would not fit."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needs.disk > free:
        raise DataError(
            f"{name}: needs {needs.disk / 1e9:.1f} GB for temporary files, and {folder} has {free / 1e9:.1f} GB. "
            "Set TMPDIR to a folder with more room, or draw fewer members."
        )
    if needs.memory > TOLD:
        told = f"{needs.memory / 1e9:.1f} GB of memory beyond the model, and {needs.disk / 1e9:.1f} GB in {folder}"
        log.info("%s: needs at most %s.", name, told)
    if needs.memory > (there := _memory()):
        log.warning("%s: may need %.1f GB of memory; the machine has %.1f GB.", name, needs.memory / 1e9, there / 1e9)


def _memory() -> float:
    """Count the bytes of memory of the machine; without end where it does not tell."""
    names = getattr(os, "sysconf_names", {})
    known = "SC_PAGE_SIZE" in names and "SC_PHYS_PAGES" in names
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if known else math.inf
