"""What is changed at random in training samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from jaxtyping import Float
from monai.data import get_track_meta, set_track_meta
from monai.transforms import (
    Compose,
    RandAdjustContrastd,
    RandAffined,
    RandFlipd,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandomizableTransform,
    RandRotated,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    RandShiftIntensityd,
    RandSimulateLowResolutiond,
    RandZoomd,
)
from torch import Tensor

from medsegdiff.config.data import Augmentation
from medsegdiff.config.spec import Orientation

BOTH = ("image", "mask")
MOVED = ("bilinear", "nearest")
"""How they are interpolated."""


class Augment:
    """Changes image and masks at random, but the same for the same seed."""

    def __init__(
        self,
        size: int,
        augmentation: Augmentation = "light",
        orientation: Orientation = Orientation(),  # noqa: B008 - it can't be changed
    ) -> None:
        """Set up the transforms."""
        self.transform = Compose([*SETS[augmentation](size, orientation), *_mirrors(orientation)])

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


def _light(size: int, orientation: Orientation) -> list[RandomizableTransform]:
    """Make rotation, scale, shift and intensity."""
    return [
        _moved(size, orientation, scale=0.2),
        RandScaleIntensityd("image", prob=0.5, factors=0.2, channel_wise=True),
        RandShiftIntensityd("image", prob=0.5, offsets=0.2),
        RandGaussianNoised("image", prob=0.3, std=0.1),
    ]


def _strong(size: int, orientation: Orientation) -> list[RandomizableTransform]:
    """Make the same with wider ranges, and gamma: for images that differ from scanner to scanner."""
    return [
        _moved(size, orientation, scale=0.3),
        RandAdjustContrastd("image", prob=0.5, gamma=(0.5, 2.0)),
        RandScaleIntensityd("image", prob=0.5, factors=0.5, channel_wise=True),
        RandShiftIntensityd("image", prob=0.5, offsets=0.5),
        RandGaussianNoised("image", prob=0.3, std=0.1),
    ]


def _moved(size: int, orientation: Orientation, *, scale: float) -> RandomizableTransform:
    return RandAffined(
        BOTH,
        prob=0.8,
        rotate_range=math.radians(orientation.turn),
        scale_range=(scale, scale),  # of both axes: a single number is that of the first alone
        translate_range=(size / 16, size / 16),
        mode=MOVED,
        padding_mode="reflection",
    )


def _nnunet(size: int, orientation: Orientation) -> list[RandomizableTransform]:
    """Make the set of nnU-Net, for standardised images, in its order.

    Deviations: outside of the image it is reflected, so that exclusive classes stay exclusive; channels are blurred,
    coarsened and bent alike, where nnU-Net leaves half of them out or draws anew for each.

    Source: Isensee et al. (2021), supplementary note on data augmentation. What it calls the variance of the noise is
    drawn as its standard deviation, as in their code.
    """
    return [
        RandRotated(BOTH, prob=0.2, range_x=math.radians(orientation.turn), mode=MOVED, padding_mode="reflection"),
        RandZoomd(
            BOTH, prob=0.2, min_zoom=0.7, max_zoom=1.4, mode=("bilinear", "nearest-exact"), padding_mode="reflect"
        ),
        RandGaussianNoised("image", prob=0.1, std=0.1),
        RandGaussianSmoothd("image", prob=0.2, sigma_x=(0.5, 1.0), sigma_y=(0.5, 1.0)),
        RandScaleIntensityd("image", prob=0.15, factors=0.25, channel_wise=True),
        RandScaleIntensityFixedMeand("image", prob=0.15, factors=0.25, preserve_range=True, channel_wise=True),
        RandSimulateLowResolutiond(
            "image", prob=0.25, zoom_range=(0.5, 1.0), downsample_mode="nearest-exact", upsample_mode="bicubic"
        ),
        RandAdjustContrastd("image", prob=0.1, gamma=(0.7, 1.5), invert_image=True, retain_stats=True),
        RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5), retain_stats=True),
    ]


def _mirrors(orientation: Orientation) -> list[RandomizableTransform]:
    left_right, top_bottom = orientation.mirrors
    used = [axis for axis, free in enumerate((top_bottom, left_right)) if free]
    return [RandFlipd(BOTH, prob=0.5, spatial_axis=axis) for axis in used]


SETS: dict[Augmentation, Callable[[int, Orientation], list[RandomizableTransform]]] = {
    "light": _light,
    "strong": _strong,
    "nnunet": _nnunet,
}
"""For images of a size in pixels, by name."""


@contextmanager
def plain_tensors() -> Iterator[None]:
    """Keep MONAI from recording what was done to each tensor, which took two fifths of the time."""
    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)
