"""The nouns that pass from stage to stage: geometry, case, batch, condition."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor

Task = Literal["binary", "exclusive", "regions"]
"""One foreground; K classes of which each pixel has one (class 0 is the background); K regions that may overlap."""


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
    """As read, in the file's own units, float32; two axes of space, or three for a volume."""
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


@dataclass(frozen=True)
class Condition:
    """What a Diffusion Model needs to know of an image: computed once, used at each step by each member."""

    gates: tuple[Tensor, ...]
    """U-SA maps (b 1 h w) by anchor level."""
    embedding: Float[Tensor, "b d eh ew"]
    """Deepest features of the Condition Model, c⁰."""
    logits: Float[Tensor, "b k h w"] | None
    """The Condition Model's own segmentation, the anchor; ``None`` from a network that has none."""
    image: Float[Tensor, "b c h w"] | None = None
    """The image, where the Diffusion Model sees it (``see_image``)."""
    semantics: tuple[Tensor, ...] = ()
    """What the SS-Former makes of the embedding alone (b l d): tokens, and keys and values of its first module;
    empty where it does so at each step."""
    detail: Float[Tensor, "b c h w"] | None = None
    """The Condition Model's finest features at full resolution, where they refine the output."""

    def shared(self, image: int, count: int) -> Condition:
        """Let the members of one image share its condition: views, no copies."""
        return self._each(lambda tensor: tensor[image : image + 1].expand(count, *tensor.shape[1:]))

    def select(self, index: Int[Tensor, " n"]) -> Condition:
        """Repeat or pick images, so that each member of a batch has the condition of its image."""
        return self._each(lambda tensor: tensor[index])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Condition:
        return replace(
            self,
            gates=tuple(change(gate) for gate in self.gates),
            embedding=change(self.embedding),
            logits=None if self.logits is None else change(self.logits),
            image=None if self.image is None else change(self.image),
            semantics=tuple(change(part) for part in self.semantics),
            detail=None if self.detail is None else change(self.detail),
        )
