"""The nouns that pass from stage to stage: geometry, case, batch, condition; and arrays, of NumPy or PyTorch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped, UInt8

if TYPE_CHECKING:
    from torch import Tensor as Tensor
    from torch import device as Device
else:
    Tensor = Device = Any  # what has a shape and a type of numbers: who has no tensors needs no torch

Array = Any
"""Of NumPy, or a tensor: what is written with names that both libraries have serves either."""
Task = Literal["binary", "exclusive", "regions"]
"""One foreground; K classes of which each pixel has one (class 0 is the background); K regions that may overlap."""
Modality = Literal["ct", "mr", "natural"]
"""Hounsfield units; arbitrary units, of MR or ultrasound, say; light."""
Plane = Literal["sagittal", "coronal", "axial"]
"""Cut across the axis to the right, to the front, upwards."""
Values = Literal["standard", "unit", "raw"]
"""Mean 0 and standard deviation 1; 0 … 1, which pictures are as read, volumes divided by 255; as read: pictures 0 … 1,
volumes in the units of their file."""


@dataclass(frozen=True)
class Geometry:
    """Where an array lies in the world."""

    shape: tuple[int, ...]
    """Size of the native grid in array-axis order: (h, w) for pictures, (i, j, k) for volumes."""
    spacing: tuple[float, ...]
    """Size of a voxel by array axis, in mm; 1 for pictures, whose unit is the pixel."""
    affine: Float[np.ndarray, "4 4"] | None = None
    """From voxel index, in array-axis order, to mm in the world, RAS+; ``None`` for pictures."""
    header: object | None = None
    """The header of the file, written back as it came; only `medsegdiff.io` looks inside."""


@dataclass(frozen=True)
class Case:
    """One image with the masks that its raters drew."""

    name: str
    image: Float[np.ndarray, "c *s"]
    """As read, float32: pictures 0 … 1, the share of white in the type of their file; volumes and their slices in the
    file's own units. Two axes of space, or three for a volume."""
    mask: UInt8[np.ndarray, "r k *s"] | None
    """0 and 1 by rater and channel; ``None`` for an image without reference."""
    geometry: Geometry
    intensity: Float[np.ndarray, "v 2"] | None = None
    """Of a slice: mean and standard deviation by channel of its volume (its neighbours have the same); ``None`` for
    pictures."""
    ignored: UInt8[np.ndarray, "r *s"] | None = None
    """1 by rater where nobody labelled; ``None``: everything is labelled."""
    key: str = ""
    """What its noise follows from, beside the seed and the member; empty: its pixels."""


@dataclass(frozen=True)
class Batch:
    """What the model trains on."""

    image: Float[Tensor, "b c h w"]
    """Normalised, on the model grid."""
    mask: Float[Tensor, "b k h w"]
    """0 and 1, one rater per image, on the model grid."""
    positions: tuple[int, ...]
    """Place of each sample in the endless stream of training samples: the source of its randomness."""
    labelled: Float[Tensor, "b 1 h w"] | None = None
    """0 where nobody labelled, else 1; ``None``: everything is labelled."""
    others: Float[Tensor, "b d k h w"] | None = None
    """Masks of other raters, for further draws of the same images; ``None``: there are none."""
    unlabelled: Float[Tensor, "b c h2 w2"] | None = None
    """As many images without masks, from where the network shall be used; ``None``: there are none."""

    @property
    def masks(self) -> tuple[Tensor, ...]:
        """The mask of each rater at hand, (b k h w) each."""
        return (self.mask, *(() if self.others is None else self.others.unbind(1)))


@dataclass(frozen=True)
class Condition:
    """What a network knows of an image: computed once, used at each step by each member.

    A tree of tensors whose first axis counts images. A network adds fields for what its denoiser needs: tensors, tuples
    of tensors, or ``None``.
    """

    logits: Float[Tensor, "b k h w"] | None
    """The network's own segmentation, the anchor; ``None`` from a network that has none."""
    deep: tuple[Tensor, ...] = field(default=(), kw_only=True)
    """The same on coarser grids (b k h/2^l w/2^l), finest first: made in training alone, where they are supervised."""
    extra: tuple[Tensor, ...] = field(default=(), kw_only=True)
    """What else a network says of the image, for a loss of its own to compare: made in training alone."""
    pooled: Float[Tensor, "b f"] | None = field(default=None, kw_only=True)
    """What it saw, as some numbers by which images can be compared: made in use alone; ``None`` from a network that
    shows none."""

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors of the tree, in order."""
        parts = (part if isinstance(part, tuple) else (part,) for part in vars(self).values())
        return tuple(tensor for part in parts for tensor in part if tensor is not None)

    @property
    def device(self) -> Device:
        """Where the tensors are."""
        return self.tensors[0].device

    def expand(self, image: int, count: int) -> Condition:
        """Let the members of one image share its condition: views, no copies."""
        return self._each(lambda tensor: tensor[image : image + 1].expand(count, *tensor.shape[1:]))

    def select(self, index: Int[Tensor, " n"]) -> Condition:
        """Repeat or pick images, so that each member of a batch has the condition of its image."""
        return self._each(lambda tensor: tensor[index])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        return replace(self, **{name: _changed(part, change) for name, part in vars(self).items()})


def _changed(part: Tensor | tuple[Tensor, ...] | None, change: Callable[[Tensor], Tensor]) -> Any:
    """Change a field of a condition, tensor by tensor."""
    if isinstance(part, tuple):
        return tuple(change(tensor) for tensor in part)
    return None if part is None else change(part)


def namespace(array: Array) -> ModuleType:
    """Give the library that an array is of, without importing the other one.

    Args:
        array: Of NumPy or PyTorch.

    Returns:
        The module ``numpy`` or ``torch``.

    Example:
        >>> namespace(np.zeros(3)).__name__
        'numpy'
    """
    return np if isinstance(array, (np.ndarray, np.generic)) else sys.modules["torch"]


def on_cpu(array: Shaped[Array, "*s"]) -> Shaped[np.ndarray, "*s"]:
    """Bring an array to where NumPy can use it."""
    return array if isinstance(array, np.ndarray) else array.cpu().numpy()
