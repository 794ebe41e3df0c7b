"""What a diffusion segmentation model offers to training and sampling, and the registry of models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from medsegdiff.config.run import Config
from medsegdiff.errors import ShapeError
from medsegdiff.nn.blocks import ResidualBlock
from medsegdiff.registry import Registry
from medsegdiff.types import Condition


class DiffusionModel(nn.Module, ABC):
    """A network that looks at the image once and then denoises masks.

    Registered with facts: ``kind``, which is ``diffusion``, or ``deterministic`` if no noise changes what it says;
    ``condition_cached``, whether all that it makes of the image alone is made once; ``anchor=False`` if it has no
    segmentation of its own beside the denoised one, and so no logits in its condition. Training and sampling call
    nothing but these methods.
    """

    units: tuple[type[nn.Module], ...] = (ResidualBlock,)
    """Blocks of which one at a time is whole where the network is split over processes (``train.sharding``). Most
    parameters lie in them, none of them lies in another, and they are called, not reached into."""

    def __init__(self, *, stride: int) -> None:
        super().__init__()
        self.stride = stride

    @abstractmethod
    def condition(self, image: Float[Tensor, "b c h w"]) -> Condition:
        """Look at the image.

        Args:
            image: Normalised image.

        Returns:
            All that denoising needs to know of it.
        """

    @abstractmethod
    def denoise(
        self,
        x_t: Float[Tensor, "b k h w"],
        t: Float[Tensor, " #b"],
        condition: Condition,
        *,
        filters: Sequence[Tensor] | None = None,
    ) -> Float[Tensor, "b k2 h w"]:
        """Predict ε, x_0 or v.

        Args:
            x_t: Noisy masks.
            t: Times.
            condition: Of the image of each mask.
            filters: What `filters` gave for the same t.

        Returns:
            The prediction; from a network that learns the variance, K more channels: see `diffusion.variance`.
        """

    def prepare(self, condition: Condition) -> Condition:
        """Compute beforehand what each step would compute anew from the condition alone; a sampler does so once.

        Args:
            condition: From `condition`.

        Returns:
            The condition, with more in it where a model has such a part.
        """
        return condition

    def filters(self, t: Float[Tensor, " b"], image_size: tuple[int, int]) -> list[Tensor]:
        """Compute what depends on the time alone, so that a sampler does it once for all images.

        Args:
            t: Times.
            image_size: Height and width of the image.

        Returns:
            Tensors with the times first; none unless a model has such a part.
        """
        return []

    def forward(
        self, image: Float[Tensor, "b c h w"], x_t: Float[Tensor, "b k h w"], t: Float[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b k2 h w"], Float[Tensor, "b k h w"] | None]:
        """Look and denoise at once, for training.

        Args:
            image: Normalised image.
            x_t: Noisy masks.
            t: Times.

        Returns:
            The prediction, as from `denoise`, and the logits of the anchor, if there is one.
        """
        condition = self.condition(image)
        return self.denoise(x_t, t, condition), condition.logits

    def check_size(self, h: int, w: int) -> None:
        """Refuse an image that the levels of the network can't halve evenly.

        Args:
            h: Height.
            w: Width.

        Raises:
            ShapeError: If one of them is not a multiple of the stride.
        """
        fits = [-(-size // self.stride) * self.stride for size in (h, w)]
        if [h, w] != fits:
            raise ShapeError(
                f"The image is {h}×{w}; height and width must be multiples of {self.stride}. "
                f"Pad it to {fits[0]}×{fits[1]}; Segmenter does so by itself."
            )


MODELS: Registry[Callable[..., DiffusionModel]] = Registry("model")


def build_model(config: Config) -> DiffusionModel:
    """Build the network that a configuration describes, with random weights.

    Args:
        config: With the data section filled in; else 3 image channels and 1 mask channel.

    Returns:
        The network.
    """
    model: DiffusionModel = MODELS.build(
        config.model.name, config.model, image_channels=config.image_channels, mask_channels=config.mask_channels
    )
    return model
