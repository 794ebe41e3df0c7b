"""What the machine gives: memory and room for temporary files, told before they are needed; compiled steps."""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from medsegdiff.errors import DataError
from medsegdiff.inference.canvas import LARGE, STRIP
from medsegdiff.models.base import DiffusionModel
from medsegdiff.nn.nbp_filter import distinct_radii
from medsegdiff.nn.ss_former import positions
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
FUSED_BYTES, MEASURED_BYTES, SHOWN_BYTES = 12, 12, 16
"""By pixel of a picture: of its votes, beside the members, while all of them are fused at once; of a structure as large
as the picture while its components are counted; of its overlay while it is drawn."""
MARGIN = 0.5e9
"""What libraries, caches and pictures take besides, in bytes."""
TOLD = 1e9
"""Needs above this many bytes are told."""
FFT_STAYS = "Torchinductor does not support code generation for complex operators"
"""What the compiler says of the SS-Former, whose Fourier transforms it leaves to the library."""


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
    kept: int = 0,
    batch_size: int = 16,
    dicom: bool = False,
    maps: int = 3,
) -> Needs:
    """Estimate what segmenting a volume needs; ``kept``: members that are chosen among those drawn, and copied.

    ``maps``: of uncertainty.
    """
    voxels, largest = math.prod(shape), math.prod(sorted(shape)[1:])
    image = voxels * channels * IMAGE_BYTES
    reading = image + voxels * channels * READ_BYTES
    slices = max(1, batch_size // members)
    working = slices * members * classes * largest * 4 * WORKING_COPIES
    writing = image + voxels * max(WRITTEN_BYTES, dicom * max(SEGMENT_BYTES * classes, FRACTION_BYTES))
    each = classes if task == "regions" else 1  # label maps of a member
    disk = voxels * (MAP_BYTES * (classes + maps) + LABEL_BYTES * each * (members + kept + 2))
    return Needs(memory=int(max(reading, image + working, writing) + MARGIN), disk=disk)


def needs_of_picture(
    shape: tuple[int, ...],
    *,
    channels: int,
    classes: int,
    members: int,
    task: Task,
    at_once: bool = True,
    maps: int = 3,
) -> Needs:
    """Estimate what segmenting a picture needs; ``at_once``: its fusion looks at all votes together.

    ``maps``: of uncertainty.
    """
    pixels, each = math.prod(shape), classes if task == "regions" else 1  # label maps of a member
    image, drawn = pixels * channels * IMAGE_BYTES, pixels * members * each * LABEL_BYTES
    arrays = [drawn, *2 * [pixels * classes * IMAGE_BYTES], *2 * [pixels * each], *maps * [pixels * IMAGE_BYTES]]
    disk = sum(size for size in arrays if size > LARGE)
    row = (members + 2) * classes * shape[1]
    restoring = (3 * row + WORKING_COPIES * min(max(row, STRIP), row * shape[0])) * IMAGE_BYTES
    fusing = at_once * (drawn + pixels * FUSED_BYTES)
    most = max(restoring, fusing, pixels * MEASURED_BYTES, pixels * SHOWN_BYTES)
    held = sum(arrays) - disk + pixels * each  # the mask is decided in memory
    return Needs(memory=int(image + max(2 * image, held + most) + MARGIN), disk=disk)


def check_needs(name: str, needs: Needs, *, memory: float | None = None) -> str:
    """Word what a large image needs, or nothing of a small one; refuse it if temporary files would not fit.

    ``memory``: bytes of the machine; ``None`` asks it.
    """
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needs.disk > free:
        raise DataError(
            f"{name}: needs {needs.disk / 1e9:.1f} GB for temporary files, and {folder} has {free / 1e9:.1f} GB. "
            "Set TMPDIR to a folder with more room, or draw fewer members."
        )
    there, wanted = _memory() if memory is None else memory, f"{needs.memory / 1e9:.1f} GB of memory"
    if needs.memory > there:
        log.warning("%s: may need %s; the machine has %.1f GB.", name, wanted, there / 1e9)
    if needs.memory <= TOLD:
        return ""
    return f"{name}: needs at most {wanted} beyond the model, and {needs.disk / 1e9:.1f} GB in {folder}."


def _memory() -> float:
    """Count the bytes of memory of the machine; without end where it does not tell."""
    names = getattr(os, "sysconf_names", {})
    known = "SC_PAGE_SIZE" in names and "SC_PHYS_PAGES" in names
    return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")) if known else math.inf


class CompiledStep:
    """One step of the Diffusion Model, compiled when it is first made, and anew for shapes that it has not seen."""

    def __init__(self, step: Callable[..., Tensor], *, on_gpu: bool) -> None:
        self.step = step
        self.compiled: Callable[..., Tensor] | None
        self.compiled = torch.compile(step, mode="reduce-overhead" if on_gpu else None)
        self.on_gpu = on_gpu

    def __call__(self, *arguments: Any, **options: Any) -> Tensor:
        """Make the step."""
        if self.compiled is None:
            return self.step(*arguments, **options)
        try:
            if not self.on_gpu:
                return self.compiled(*arguments, **options)
            torch.compiler.cudagraph_mark_step_begin()
            return self.compiled(*arguments, **options).clone()  # a CUDA graph writes to the same place at each step
        except (RuntimeError, AssertionError) as error:  # of the compiler, or of what it made; the step's come again
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            log.warning("The steps are not compiled (%s). It goes on without; leave --compile away.", reason.strip())
            self.compiled = None
            return self.step(*arguments, **options)


def compile_steps(model: DiffusionModel, device: torch.device) -> None:
    """Let a network compile its step; on a GPU it is also recorded as a CUDA graph.

    The first step takes a minute or so. On a CPU it gains a tenth at most (benchmarks/speed.md).
    """
    for table in (distinct_radii, positions):
        torch.compiler.assume_constant_result(table)  # kept from call to call, not to be computed in each step
    warnings.filterwarnings("ignore", message=FFT_STAYS)
    model.denoise = CompiledStep(model.denoise, on_gpu=device.type == "cuda")  # type: ignore[method-assign]


def is_compiled(model: DiffusionModel) -> bool:
    """Tell whether a network's step is compiled."""
    step = model.denoise
    return isinstance(step, CompiledStep) and step.compiled is not None
