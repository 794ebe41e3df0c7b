"""Augmentation while training, with MONAI: the same geometry for the image and the masks of every rater."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Float
from monai.data import get_track_meta, set_track_meta
from monai.transforms import (
    Compose,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandShiftIntensityd,
)
from torch import Tensor


class Augment:
    """Flips, rotation, scale, shift and intensity: at random, but the same for the same seed."""

    def __init__(self, size: int) -> None:
        """Set up the transforms."""
        both = ["image", "mask"]
        self.transform = Compose(
            [
                RandFlipd(both, prob=0.5, spatial_axis=0),
                RandFlipd(both, prob=0.5, spatial_axis=1),
                RandAffined(
                    both,
                    prob=0.8,
                    rotate_range=math.pi,
                    scale_range=0.2,
                    translate_range=size / 16,
                    mode=["bilinear", "nearest"],
                    padding_mode="reflection",
                ),
                RandScaleIntensityd("image", prob=0.5, factors=0.2, channel_wise=True),
                RandShiftIntensityd("image", prob=0.5, offsets=0.2),
                RandGaussianNoised("image", prob=0.3, std=0.1),
            ]
        )

    def __call__(
        self, image: Float[Tensor, "c h w"], mask: Float[Tensor, "r k h w"], *, seed: int
    ) -> tuple[Float[Tensor, "c h w"], Float[Tensor, "r k h w"]]:
        """Augment a case."""
        state = np.random.RandomState(seed % 2**32)  # one for all: seeding each took as long as moving the image
        for transform in self.transform.transforms:
            transform.set_random_state(state=state)
        with plain_tensors():
            moved = self.transform({"image": image, "mask": mask.flatten(0, 1)})
        return moved["image"], moved["mask"].reshape(mask.shape)


@contextmanager
def plain_tensors() -> Iterator[None]:
    """Keep MONAI from recording what was done to each tensor, which took two fifths of the time."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)
