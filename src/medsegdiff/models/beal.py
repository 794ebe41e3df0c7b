"""BEAL: a segmentation and its boundary from MobileNetV2's features; the boundary's target, and their loss."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.config.networks.beal import BEALConfig
from medsegdiff.labels import Labels
from medsegdiff.models.base import MODELS, SUPERVISIONS, Said, size_of
from medsegdiff.models.deterministic import DeterministicModel, Heads
from medsegdiff.models.discriminators import BoundaryAndEntropy
from medsegdiff.models.pretrained import mobilenet
from medsegdiff.nn.aspp import ASPP
from medsegdiff.nn.blocks import conv_norm_relu
from medsegdiff.nn.losses import cross_entropy, mean_of
from medsegdiff.nn.mobilenet import InvertedResidual, MobileNetV2


class BoundaryNet(nn.Module):
    """DeepLabv3+ on MobileNetV2 with two heads: of the boundary, and of the mask, which sees the boundary's logits.

    Source: Wang et al. (2019), doi:10.1007/978-3-030-32239-7_12, as the authors' code has it.
    """

    def __init__(
        self,
        image_channels: int,
        mask_channels: int,
        *,
        widths: Sequence[int],
        blocks: Sequence[int],
        width: int,
        low_width: int,
    ) -> None:
        super().__init__()
        self.backbone = MobileNetV2(image_channels, widths=widths, blocks=blocks)
        self.aspp = ASPP(widths[-1], width)
        self.dropout = nn.Dropout(0.5)
        self.low = conv_norm_relu(self.backbone.low_channels, low_width, 1)
        self.boundary_head = nn.Sequential(
            conv_norm_relu(low_width + width, width),
            nn.Dropout(0.5),
            conv_norm_relu(width, width),
            nn.Dropout(0.1),
            nn.Conv2d(width, 1, 1),
        )
        seen = low_width + width + 1
        self.mask_head = nn.Sequential(
            nn.BatchNorm2d(seen), nn.ReLU(), nn.Dropout(0.1), nn.Conv2d(seen, mask_channels, 1)
        )

    def forward(self, image: Float[Tensor, "b c h w"]) -> tuple[Float[Tensor, "b k h w"], Float[Tensor, "b 1 h w"]]:
        """Segment.

        Args:
            image: Normalised image.

        Returns:
            Logits of the mask and of its boundary.
        """
        low, high = self.backbone(image)
        coarse = _resized(self.dropout(self.aspp(high)), size_of(low))
        features = torch.cat([coarse, self.low(low)], dim=1)
        boundary = self.boundary_head(features)
        mask = self.mask_head(torch.cat([features, boundary], dim=1))
        return _resized(mask, size_of(image)), _resized(boundary, size_of(image))


def _resized(values: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c h2 w2"]:
    """Bring a map to a finer grid whose corners are those of the coarse one."""
    return F.interpolate(values, size, mode="bilinear", align_corners=True)


@MODELS.register(
    "beal",
    kind="deterministic",
    paper="Wang et al., Boundary and Entropy-driven Adversarial Learning (BEAL), MICCAI",
    year=2019,
    licence="MIT",
    pretrained="MobileNetV2, ImageNet",
)
class BEAL(DeterministicModel):
    """The segmentation network of BEAL; training alone makes use of the boundary (``loss.supervision: beal``).

    Source: Wang et al. (2019), doi:10.1007/978-3-030-32239-7_12.
    """

    units = (InvertedResidual, ASPP)
    layouts = (mobilenet("condition_model.backbone"),)

    def __init__(self, config: BEALConfig, *, image_channels: int, mask_channels: int) -> None:
        network = BoundaryNet(
            image_channels,
            mask_channels,
            widths=config.widths,
            blocks=config.blocks,
            width=config.channels,
            low_width=config.low_channels,
        )
        super().__init__(stride=network.backbone.stride)
        self.condition_model = network
        self.judged = (mask_channels, config.discriminator_channels)

    def segment(self, image: Float[Tensor, "b c h w"]) -> Heads:
        """Segment; in training, give the boundary's logits too."""
        mask, boundary = self.condition_model(image)
        return Heads(mask, extra=(boundary,) if self.training else ())

    def discriminators(self) -> BoundaryAndEntropy:
        """Make those of the boundary and of the entropy."""
        mask_channels, width = self.judged
        return BoundaryAndEntropy(mask_channels, width=width)


ORIGINAL_KEYS = (
    (r"^backbone\.", "condition_model.backbone."),
    (r"^aspp\.aspp1\.atrous_conv\.", "condition_model.aspp.branches.0.0."),
    (r"^aspp\.aspp1\.bn\.", "condition_model.aspp.branches.0.1."),
    (r"^aspp\.aspp2\.atrous_conv\.", "condition_model.aspp.branches.1.0."),
    (r"^aspp\.aspp2\.bn\.", "condition_model.aspp.branches.1.1."),
    (r"^aspp\.aspp3\.atrous_conv\.", "condition_model.aspp.branches.2.0."),
    (r"^aspp\.aspp3\.bn\.", "condition_model.aspp.branches.2.1."),
    (r"^aspp\.aspp4\.atrous_conv\.", "condition_model.aspp.branches.3.0."),
    (r"^aspp\.aspp4\.bn\.", "condition_model.aspp.branches.3.1."),
    (r"^aspp\.global_avg_pool\.1\.", "condition_model.aspp.pooled.0."),
    (r"^aspp\.global_avg_pool\.2\.", "condition_model.aspp.pooled.1."),
    (r"^aspp\.conv1\.", "condition_model.aspp.mix.0."),
    (r"^aspp\.bn1\.", "condition_model.aspp.mix.1."),
    (r"^decoder\.conv1\.", "condition_model.low.0."),
    (r"^decoder\.bn1\.", "condition_model.low.1."),
    (r"^decoder\.last_conv_boundary\.0\.", "condition_model.boundary_head.0.0."),
    (r"^decoder\.last_conv_boundary\.1\.", "condition_model.boundary_head.0.1."),
    (r"^decoder\.last_conv_boundary\.4\.", "condition_model.boundary_head.2.0."),
    (r"^decoder\.last_conv_boundary\.5\.", "condition_model.boundary_head.2.1."),
    (r"^decoder\.last_conv_boundary\.8\.", "condition_model.boundary_head.4."),
    (r"^decoder\.last_conv\.", "condition_model.mask_head."),
)
"""Beginnings of names in the authors' checkpoints, as patterns, and what stands here in their place. Theirs hold the
encoder twice more, as ``low_level_features`` and ``high_level_features`` within ``backbone``; those are left out."""


RING = 5
"""Pixels that a boundary reaches to either side of the edge."""
BLUR = 3.0
"""Standard deviation of the Gaussian over it, in pixels."""


@SUPERVISIONS.register(
    "beal", what="cross-entropy of the mask, and the squared error of a map of its boundary", of="beal"
)
def boundary_and_mask(
    said: Said,
    mask: Float[Tensor, "b k h w"],
    *,
    labels: Labels,
    labelled: Float[Tensor, "b 1 h w"] | None = None,
) -> Float[Tensor, " b"]:
    """Compute the cross-entropy of the mask plus the mean squared error of the boundary.

    Source: Wang et al. (2019), as the authors' code has it. Deviation: where classes exclude each other the
    cross-entropy is that of their softmax; the paper's disc and cup overlap.

    Args:
        said: Logits of the mask, and of its boundary as the only extra.
        mask: 0 and 1.
        labels: The label space; the background has no boundary.
        labelled: 0 where nobody labelled.

    Returns:
        The loss by image.
    """
    assert said.logits is not None
    (boundary,) = said.extra
    target = boundary_map(mask[:, labels.foreground])
    segmented = cross_entropy(said.logits.float(), mask, exclusive=labels.exclusive, labelled=labelled)
    return segmented + mean_of((boundary.float().sigmoid() - target).square(), labelled)


def boundary_map(structures: Float[Tensor, "b k h w"]) -> Float[Tensor, "b 1 h w"]:
    """Draw the soft boundary of all structures: what lies up to five pixels from an edge, blurred.

    Beyond the image is background. The Gaussian is computed on bytes and cut down to whole ones along each axis, as in
    the authors' code.

    Source: Wang et al. (2019), as the authors' code has it.

    Args:
        structures: 0 and 1.

    Returns:
        In [0, 1], in steps of 1/255.
    """
    ring = ring_of(structures)
    on_apple = ring.device.type == "mps"  # where nothing is computed in this precision
    blurred = 255.0 * (ring.cpu() if on_apple else ring).double()  # so, and in this order, sums are scipy.ndimage's
    for axis in (2, 3):
        blurred = _blurred(blurred, axis).floor()
    return (blurred / 255).to(structures)


def ring_of(structures: Float[Tensor, "b k h w"]) -> Float[Tensor, "b 1 h w"]:
    """Find the pixels that dilation adds to a structure, or erosion takes from it, step by step over four neighbours.

    Args:
        structures: 0 and 1.

    Returns:
        0 and 1, of all structures together.
    """
    grown, shrunk = structures, structures
    for _ in range(RING):
        grown, shrunk = _dilated(grown, outside=0.0), 1 - _dilated(1 - shrunk, outside=1.0)
    return (grown - shrunk).amax(dim=1, keepdim=True)


def _dilated(values: Float[Tensor, "b k h w"], *, outside: float) -> Float[Tensor, "b k h w"]:
    """Take the largest of each pixel and its four neighbours."""
    around = F.pad(values, (1, 1, 1, 1), value=outside)
    upright = F.max_pool2d(around[..., 1:-1], (3, 1), stride=1)
    return torch.maximum(upright, F.max_pool2d(around[..., 1:-1, :], (1, 3), stride=1))


def _blurred(values: Float[Tensor, "b 1 h w"], axis: int) -> Float[Tensor, "b 1 h w"]:
    """Average along an axis with the weights of a Gaussian, cut off at four standard deviations; edges are mirrored."""
    reach, size = round(4 * BLUR), values.shape[axis]
    gaussian = np.exp(-0.5 / BLUR**2 * np.arange(-reach, reach + 1) ** 2)
    weights = (gaussian / gaussian.sum()).tolist()
    place = torch.arange(-reach, size + reach, device=values.device) % (2 * size)
    mirrored = values.index_select(axis, torch.minimum(place, 2 * size - 1 - place))
    total = weights[reach] * values
    for far in range(reach, 0, -1):
        pair = mirrored.narrow(axis, reach - far, size) + mirrored.narrow(axis, reach + far, size)
        total = total + weights[reach - far] * pair
    return total
