"""What a diffusion segmentation model offers to training and sampling, what it costs, and the registry of models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from medsegdiff.config.data import next_multiple
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.errors import ShapeError
from medsegdiff.labels import Labels
from medsegdiff.models.pretrained import Layout
from medsegdiff.nn.blocks import ResidualBlock
from medsegdiff.registry import Registry
from medsegdiff.types import Condition

SAMPLED = ("condition", "at", "denoise")
"""The methods of a network that a sampler calls, in this order: once per image, once per time, once per step."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What there is to know of a network without building it."""

    kind: Literal["diffusion", "deterministic"] = "diffusion"
    """``deterministic`` if no noise changes what it says."""
    paper: str = ""
    """Authors, title, where."""
    year: int | None = None
    """Of the paper."""
    condition_cached: bool = True
    """Whether all that it makes of the image alone is made once."""
    has_anchor: bool = True
    """Whether it has a segmentation of its own beside the denoised one, and so logits in its condition."""
    licence: str = ""
    """Of the authors' code, if there is some; ``none``: published without one."""
    pretrained: str = ""
    """Weights that its authors began with, if any; here training begins from scratch unless some are given."""


class Said(NamedTuple):
    """What a network says in training."""

    prediction: Float[Tensor, "n k2 h w"]
    """Of ε, x_0 or v, as from `DiffusionModel.denoise`."""
    logits: Float[Tensor, "b k h w"] | None
    """Of the anchor, if there is one."""
    deep: tuple[Tensor, ...] = ()
    """The same on coarser grids, where they are supervised."""
    extra: tuple[Tensor, ...] = ()
    """What else it says of the image (boundaries, maps of layers), for a loss of its own: see `SUPERVISIONS`."""


class DiffusionModel(nn.Module, ABC):
    """A network that looks at the image once and then denoises masks.

    Training and sampling call nothing but these methods. What `condition` and `at` give is handed to `denoise` and to
    nobody else: a network returns its own kind of `Condition`, and of a time whatever its denoiser needs. It is built
    from its settings and two keywords, ``image_channels`` and ``mask_channels`` (K).
    """

    units: tuple[type[nn.Module], ...] = (ResidualBlock,)
    """Blocks of which one at a time is whole where the network is split over processes (``train.sharding``). Most
    parameters lie in them, none of them lies in another, and they are called, not reached into."""
    fewest_cells = 1
    """Pixels of an image on the coarsest grid, at least: two where they are normalised by image."""

    broadcasts = False
    """Whether the condition of a single image may stand beside several masks in `denoise`, without copies of it."""

    layouts: tuple[Layout, ...] = ()
    """Files of weights that others have trained, with which its training may begin (``model.weights``)."""

    last_time: float = 999.0
    """Where x_t is pure noise: T − 1 of the process, which `build_model` tells."""

    def __init__(self, *, stride: int) -> None:
        super().__init__()
        self.stride = stride

    @abstractmethod
    def condition(self, image: Float[Tensor, "b c h w"]) -> Condition:
        """Look at the image.

        Args:
            image: Normalised image; height and width are multiples of the stride.

        Returns:
            All that denoising needs to know of it.

        Raises:
            ShapeError: If the size is not a multiple of the stride.
        """

    def at(self, t: Float[Tensor, " b"], size: tuple[int, int]) -> Any:
        """Compute what depends on the time alone, so that a sampler does it once for all images and members.

        Args:
            t: Times in [0, T − 1]; one may serve a whole batch.
            size: Height and width of the image.

        Returns:
            What `denoise` needs of the times, such as their embedding; here the times themselves.
        """
        return t

    @abstractmethod
    def denoise(self, x_t: Float[Tensor, "b k h w"], time: Any, condition: Any) -> Float[Tensor, "b k2 h w"]:
        """Predict ε, x_0 or v.

        Args:
            x_t: Noisy masks.
            time: From `at`, for the time of each mask or one for all.
            condition: From `condition`, of the image of each mask.

        Returns:
            The prediction; from a network that learns the variance, K more channels: see `diffusion.variance`.
        """

    def forward(self, image: Float[Tensor, "b c h w"], x_t: Float[Tensor, "n k h w"], t: Float[Tensor, " n"]) -> Said:
        """Look and denoise at once, for training.

        Args:
            image: Normalised image.
            x_t: Noisy masks: one of each image, or as many of each, one image after the other; none: it only looks.
            t: Times of the masks.

        Returns:
            The predictions, and what the anchor says of the images.
        """
        seen = self.condition(image)
        each = len(x_t) // len(image)
        if not each:
            return Said(x_t, seen.logits, seen.deep, seen.extra)
        images = torch.arange(len(image), device=image.device).repeat_interleave(each)
        condition = seen if each == 1 else seen.select(images)
        return Said(self.denoise(x_t, self.at(t, size_of(image)), condition), seen.logits, seen.deep, seen.extra)

    def discriminators(self) -> nn.Module | None:
        """Make networks that try to tell, by what this one says of an image, whether it came with a mask.

        Returns:
            Called with what was `Said` and the label space, it gives logits, above 0 for images with masks, from each
            of several networks; ``None`` from a network that none are known for.
        """
        return None

    def begin_with_nothing(self) -> None:
        """Let the network say 0 until it has learned something: for predictions that are added to others."""

    def check_size(self, image: Float[Tensor, "b c h w"]) -> None:
        """Refuse an image that the levels of the network can't halve evenly.

        Args:
            image: The image.

        Raises:
            ShapeError: If its height or width is not a multiple of the stride, or too little is left of it.
        """
        h, w = size_of(image)
        fits = [next_multiple(size, self.stride) for size in (h, w)]
        if [h, w] != fits:
            raise ShapeError(
                f"The image is {h}×{w}; height and width must be multiples of {self.stride}. "
                f"Pad it to {fits[0]}×{fits[1]}; Segmenter does so by itself."
            )
        if h * w < self.fewest_cells * self.stride**2:
            raise ShapeError(
                f"The image is {h}×{w}, of which the coarsest grid of this network keeps {h * w // self.stride**2} "
                f"pixel; it needs {self.fewest_cells}. Set a larger data.image_size, or fewer levels (model.levels)."
            )


def size_of(image: Float[Tensor, "b c h w"]) -> tuple[int, int]:
    """Read the size of a batch of images.

    Args:
        image: The images.

    Returns:
        Height and width.
    """
    return image.shape[-2], image.shape[-1]


MODELS: Registry[Callable[..., DiffusionModel], ModelFacts] = Registry("model", ModelFacts)


class Supervision(Protocol):
    """A loss of what a network says of the image alone, as its paper has it, in place of equation 3's second term."""

    def __call__(
        self,
        said: Said,
        mask: Float[Tensor, "b k h w"],
        *,
        labels: Labels,
        labelled: Float[Tensor, "b 1 h w"] | None = None,
    ) -> Float[Tensor, " b"]:
        """Compare.

        Args:
            said: Logits, and whatever else the network says in training.
            mask: 0 and 1, of one rater.
            labels: The label space.
            labelled: 0 where nobody labelled, else 1; ``None``: everything is labelled.

        Returns:
            The loss by image; where it is one number of a whole batch, that number for each.
        """


SUPERVISIONS: Registry[Supervision, dict[str, str]] = Registry("supervision", dict)
"""Losses of networks that bring their own, by the name that ``loss.supervision`` has; facts: ``what``, in words,
and ``of``, the one network that says what it compares, if others don't."""


def build_model(config: ResolvedConfig) -> DiffusionModel:
    """Build the network that a configuration describes, with random weights.

    Args:
        config: With the data section filled in; else 3 image channels and 1 mask channel.

    Returns:
        The network.

    Example:
        >>> import torch
        >>> from medsegdiff.config.load import load_preset
        >>> model, image = build_model(load_preset("v2-tiny")), torch.zeros(2, 3, 64, 64)
        >>> condition, time = model.condition(image), model.at(torch.tensor([500.0]), (64, 64))
        >>> model.denoise(torch.zeros(2, 1, 64, 64), time, condition).shape
        torch.Size([2, 1, 64, 64])
    """
    model: DiffusionModel = MODELS.build(
        config.model.name, config.model, image_channels=config.image_channels, mask_channels=config.mask_channels
    )
    model.last_time = float(config.diffusion.num_train_timesteps - 1)
    if config.diffusion.residual:
        model.begin_with_nothing()
    return model


@dataclass(frozen=True)
class Budget:
    """Parameters and billions of multiply-accumulates (GMAC) at one image size.

    Convolutions and matrix products are counted; Fourier transforms and elementwise operations are not.
    """

    parameters: int
    parts: dict[str, int]
    """Parameters by part of the network."""
    condition_gmac: float
    """Once per image."""
    denoiser_gmac: float
    """Once per step and member."""


def budget(config: ResolvedConfig) -> Budget:
    """Count on the meta device: no memory, and less than a second, once for each configuration.

    Args:
        config: Of the network and the image size.

    Returns:
        What the network costs.
    """
    told = config.model_dump_json(include={"model", "data", "diffusion", "spec"})
    if told not in _BUDGETS:
        _BUDGETS[told] = _counted(config)
    return _BUDGETS[told]


_BUDGETS: dict[str, Budget] = {}


def _counted(config: ResolvedConfig) -> Budget:
    with torch.device("meta"):
        model = build_model(config)
        side = config.data.grid_side(model.stride)
        image = torch.empty(1, config.image_channels, side, side)
        mask, t = torch.empty(1, config.mask_channels, side, side), torch.empty(1)
    with FlopCounterMode(display=False) as condition_flops:
        condition = model.condition(image)
    time = model.at(t, (side, side))  # once per run, so it counts for neither
    with FlopCounterMode(display=False) as denoiser_flops:
        model.denoise(mask, time, condition)
    parts = {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
    return Budget(
        parameters=sum(p.numel() for p in model.parameters()),
        parts=parts,
        condition_gmac=condition_flops.get_total_flops() / 2e9,
        denoiser_gmac=denoiser_flops.get_total_flops() / 2e9,
    )
