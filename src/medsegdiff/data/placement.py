"""Where an image lies on the model grid: the record that undoes the way there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable


@runtime_checkable
class Fitting(Protocol):
    """How images are fitted to the model grid; `DataConfig` says it, beside much else."""

    @property
    def image_size(self) -> int:
        """Side in pixels."""

    @property
    def resize(self) -> Literal["fit", "stretch", "none"]:
        """Which sides are scaled to it: the longer one, both, or neither."""


@dataclass(frozen=True)
class Placement:
    """Where the native image lies on the model grid: the record that undoes the way there."""

    native: tuple[int, int]
    """Height and width of the image as it came."""
    resized: tuple[int, int]
    """Height and width after resizing."""
    grid: tuple[int, int]
    """Height and width of the model grid, multiples of the stride."""

    @property
    def offset(self) -> tuple[int, int]:
        """Rows above and columns left of the image on the grid."""
        return (self.grid[0] - self.resized[0]) // 2, (self.grid[1] - self.resized[1]) // 2


def place(
    native: tuple[int, int], config: Fitting, stride: int, *, spacing: tuple[float, ...] = (1.0, 1.0)
) -> Placement:
    """Decide how an image is laid on the model grid."""
    resized = _resized(native, config.image_size, config.resize, spacing)
    square = resized if config.resize == "none" else (config.image_size, config.image_size)
    return Placement(native, resized, (_multiple(square[0], stride), _multiple(square[1], stride)))


def _resized(
    native: tuple[int, int], size: int, how: Literal["fit", "stretch", "none"], spacing: tuple[float, ...]
) -> tuple[int, int]:
    if how == "none":
        return native
    if how == "stretch":
        return size, size
    h, w = native[0] * spacing[0], native[1] * spacing[1]
    return max(1, round(size * h / max(h, w))), max(1, round(size * w / max(h, w)))


def _multiple(size: int, stride: int) -> int:
    return size + -size % stride
