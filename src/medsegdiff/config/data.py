"""How data are read, cut, scaled and split: what the user asks of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator

from medsegdiff.config.base import Component
from medsegdiff.types import Modality as Modality
from medsegdiff.types import Plane as Plane
from medsegdiff.types import Values as Values

MaskFolders = Literal["auto", "raters", "structures", "instances"]
"""Drawings of the same by several persons; structures that may overlap; parts of one structure."""
ImageFolders = Literal["auto", "groups", "kinds"]
"""Of one patient, say, and kept together in one part of the split; of one kind, say benign or malignant."""

Augmentation = Literal["light", "strong", "nnunet"]
"""Sets of random changes."""
CODE = r"^[A-Z0-9_]{1,16}:[A-Za-z0-9.\-]{1,16}(:[^\\]{1,64})?$"
"""How codes are written; `medsegdiff.io.dicom_codes` reads them."""


class DataConfig(Component):
    """How data are read and what the model sees of them. What the data tell of themselves is in `DataSpec`."""

    channels: int | None = Field(default=None, ge=1)
    """Image channels that the data must have; ``null`` takes those they have."""
    task: Literal["binary", "exclusive", "regions"] | None = None
    """One foreground, classes that exclude each other, or regions that may overlap; ``null`` asks the data."""
    classes: tuple[str, ...] | None = None
    """Names of the mask channels (for ``exclusive`` the background is the first); ``null`` asks the data."""
    layout: str = "auto"
    """Entry of the registry of data sets that lists the files; ``auto`` goes by their names."""
    image_dir: str | None = None
    """Folder of the images; ``null`` goes by the words that people use for them, ``images`` first of all."""
    mask_dir: str | None = None
    """Folder of the masks; ``null`` goes by the words that people use for them, ``masks`` first of all."""
    mask_folders: MaskFolders = "auto"
    """What several masks of an image are, in sub-folders of ``masks/`` or numbered: drawings of ``raters``,
    ``structures``, or ``instances`` of one structure, which are united; ``auto`` goes by names."""
    image_folders: ImageFolders = "auto"
    """What sub-folders of images are: ``groups`` (patients), which stay together in one part of the split, or
    ``kinds``, which do not; ``auto`` goes by their names: those with numbers, or called as patients, are groups."""
    codes: Mapping[str, Annotated[str, Field(pattern=CODE)]] | None = None
    """What DICOM calls structures, by their names: ``{liver: SCT:10200004}``, SNOMED's code of the liver; a meaning may
    follow, ``SCT:10200004:Liver``. Those that have none are called tissue."""
    mask_threshold: int | None = Field(default=None, ge=1, le=255)
    """Grey level from which on a pixel of a mask is foreground: 128 is from half on, 1 is above black; ``null``: masks
    hold 0/1, 0/255 or class indices."""
    image_size: int = Field(default=256, ge=8)
    """Side in pixels of the model grid; 256 in the paper."""
    resize: Literal["fit", "stretch", "none"] = "fit"
    """``fit`` scales the longer side to ``image_size``, ``stretch`` both sides (the paper), ``none`` neither."""
    plane: Plane | Literal["auto"] = "auto"
    """How volumes are cut into slices; ``auto``: axially, or across clearly thicker voxels."""
    neighbours: int = Field(default=0, ge=0, le=8)
    """Slices above and below that a slice of a volume takes along as channels (2.5-D)."""
    modalities: tuple[Modality, ...] | None = None
    """Of the image channels: decides how they are normalised; ``null`` asks the data."""
    values: Values = "standard"
    """How channels other than CT enter the network; in the authors' code ``unit`` (pictures) or ``raw`` (volumes)."""
    window: tuple[float, float] | None = None
    """Hounsfield units that become −1 and 1, what is beyond is cut off; ``null`` takes those of the structures."""
    orientation: Literal["auto", "free", "fixed"] = "auto"
    """``free``: training mirrors images and turns them by any angle; ``fixed``: it turns them by 20° at most; ``auto``
    finds out, mirror by mirror, whether images lie the same way about their structures."""
    augment: bool = True
    """Random flips, rotation, scale, shift and intensity while training."""
    augmentation: Augmentation = "light"
    """Which changes those are: ``light``, most of them in each image; ``strong``, the same with wider ranges and gamma;
    or ``nnunet``, nnU-Net's set: rarer, and blur, contrast, low resolution and gamma too."""
    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training cases kept for validation where the data name none."""
    test_fraction: float = Field(default=0.2, ge=0, lt=1)
    """Share of all cases kept for testing where there is no split."""
    split_seed: int = 0
    """Seed of that split."""
    cache_gb: float = Field(default=32.0, ge=0)
    """Room of a machine for prepared cases in temporary, memory-mapped files, in GB; beyond it they are read anew."""
    cache_dir: str | None = None
    """Folder of that file, on a local disk; ``null`` takes the system's for temporary files."""

    @field_validator("window")
    @classmethod
    def _rises(cls, window: tuple[float, float] | None) -> tuple[float, float] | None:
        if window is not None and not window[0] < window[1]:
            raise ValueError("the lower end comes first; width 400 at level 40 is [-160, 240]")
        return window

    def grid_side(self, stride: int) -> int:
        """Side of the model grid in pixels: of a network that halves it evenly as often as ``stride`` says."""
        return next_multiple(self.image_size, stride)


def next_multiple(size: int, stride: int) -> int:
    """Round a size up to a multiple of the stride of a network."""
    return -(-size // stride) * stride
