"""Official networks of the systems that the paper compares with: which of them a checkpoint belongs to."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from medsegdiff.authors.architecture import Architecture
from medsegdiff.config.load import load_preset
from medsegdiff.errors import CheckpointError, some
from medsegdiff.models import bat, beal, fatnet, mtseg, transunet
from medsegdiff.models.renaming import Keys, renamed
from medsegdiff.types import Task


def as_published(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Set nothing: the preset has the sizes of the official network."""
    return {}


def positions_of_transunet(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Find the size of the images that positions were learned for."""
    places = state["transformer.embeddings.position_embeddings"].shape[1]
    return {"image_size": 16 * math.isqrt(places)}


@dataclass(frozen=True, kw_only=True)
class Rival:
    """An official network, as its checkpoints tell of it."""

    mark: str
    """Weight that only its checkpoints have."""
    image: str
    """Weight whose second axis counts the channels of the image."""
    mask: str
    """Weight whose first axis counts those of the mask."""
    keys: Keys
    """Official names → names in our network."""
    unused: tuple[str, ...] = ()
    """Official names of what is never computed with, as patterns."""
    task: Task = "binary"
    """What the channels of its masks are."""
    side: int = 224
    """Of its images in pixels, unless its weights tell."""
    settings: Callable[[Mapping[str, Tensor]], dict[str, Any]] = as_published
    """What its weights tell of the settings."""
    entered: str = ""
    """How its images entered, where no ``data.values`` says so."""


RIVALS: dict[str, Rival] = {
    "transunet": Rival(
        mark="transformer.embeddings.hybrid_model.root.conv.weight",
        image="transformer.embeddings.hybrid_model.root.conv.weight",
        mask="segmentation_head.0.weight",
        keys=transunet.ORIGINAL_KEYS,
        task="exclusive",
        settings=positions_of_transunet,
    ),
    "beal": Rival(
        mark="decoder.last_conv_boundary.0.weight",
        image="backbone.features.0.0.weight",
        mask="decoder.last_conv.3.weight",
        keys=beal.ORIGINAL_KEYS,
        unused=(r"^backbone\.(?:low|high)_level_features\.",),
        task="regions",
        side=512,
        entered="from −1 to 1",
    ),
    "fatnet": Rival(
        mark="conv_seq_img.weight",
        image="firstconv.weight",
        mask="final_conv3.weight",
        keys=fatnet.ORIGINAL_KEYS,
        unused=fatnet.ORIGINAL_UNUSED,
    ),
    "bat": Rival(
        mark="convolution_mapping.weight",
        image="deeplab.resnet.resnet.0.weight",
        mask="deeplab.aspp.conv_1x1_4.weight",
        keys=bat.ORIGINAL_KEYS,
        side=512,
    ),
    "mtseg": Rival(
        mark="conv10t.weight",
        image="conv1.conv.0.weight",
        mask="conv10.weight",
        keys=mtseg.ORIGINAL_KEYS,
        unused=mtseg.ORIGINAL_UNUSED,
        entered="less ImageNet's mean colour, over its standard deviation",
    ),
}
"""By network; the preset has the same name."""
VOLUMES = {"Unet.InitConv.conv.weight": "TransBTS", "patch_embed3D.proj.weight": "SwinBTS"}
"""Official networks of volumes, by a weight of theirs; here they segment slices."""
INSIDE = "condition_model."
"""Part of our networks that holds all of an official one."""


def rival_of(state: Mapping[str, Tensor]) -> str | None:
    """Find out which official network weights belong to; ``None``: to none that is known here."""
    for mark, name in VOLUMES.items():
        if mark in state:
            raise CheckpointError(
                f"These are weights of {name} for volumes ({mark}); here it segments slices, so they have no place. "
                f"Train it anew: medsegdiff train DATA --preset {name.lower()}."
            )
    return next((name for name, rival in RIVALS.items() if rival.mark in state), None)


def architecture_of(name: str, state: Mapping[str, Tensor]) -> Architecture:
    """Read channels and settings off the weights of an official network."""
    rival = RIVALS[name]
    if missing := [weight for weight in (rival.image, rival.mask) if weight not in state]:
        raise CheckpointError(f"These weights of {name} are not whole: {some(missing)} are missing.")
    settings = rival.settings(state)
    return Architecture(
        network=load_preset(name).model.model_copy(update=settings),
        image_channels=state[rival.image].shape[1],
        mask_channels=state[rival.mask].shape[0],
        task=rival.task,
        side=settings.get("image_size", rival.side),
    )


def translated(name: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of an official network."""
    rival = RIVALS[name]
    ours = renamed(state, rival.keys, unused=rival.unused)
    return {re.sub(rf"^(?!{re.escape(INSIDE)})", INSIDE, key): value for key, value in ours.items()}
