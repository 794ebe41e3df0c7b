"""An exported run behind the doors of a network: graphs of ONNX look and denoise, whoever draws and fuses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from medsegdiff.errors import ShapeError
from medsegdiff.io.graphs import Graph
from medsegdiff.models.base import DiffusionModel, size_of
from medsegdiff.types import Condition

FILES = ("look.onnx", "step.onnx")


def is_exported(folder: Path) -> bool:
    """Tell whether a folder holds graphs."""
    return all(path.is_file() for path in graphs_in(folder))


def graphs_in(folder: Path) -> tuple[Path, ...]:
    """Name the files of the graphs."""
    return tuple(folder / name for name in FILES)


@dataclass(frozen=True)
class GraphCondition(Condition):
    """What the first graph says of images, as it says it; which of them a mask belongs to is kept as a number."""

    seen: Mapping[str, np.ndarray]
    """By name, of all images."""
    images: tuple[int, ...]
    """Of each mask."""
    at: torch.device

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors."""
        return () if self.logits is None else (self.logits,)

    @property
    def device(self) -> torch.device:
        """Where masks are."""
        return self.at

    def expand(self, image: int, count: int) -> GraphCondition:
        """Let the members of one image share its condition."""
        logits = None if self.logits is None else self.logits[image : image + 1].expand(count, -1, -1, -1)
        return replace(self, logits=logits, images=(self.images[image],) * count)

    def select(self, index: Int[Tensor, " n"]) -> GraphCondition:
        """Give each member the condition of its image."""
        images = tuple(self.images[place] for place in index.tolist())
        return replace(self, logits=None if self.logits is None else self.logits[index], images=images)


class ExportedNetwork(DiffusionModel):
    """A network that onnxruntime computes, on processors, in single precision; it can't be trained."""

    def __init__(self, folder: Path, *, stride: int) -> None:
        super().__init__(stride=stride)
        self.look, self.step = (Graph(path, threads=torch.get_num_threads()) for path in graphs_in(folder))
        _, _, height, width = self.step.inputs["x_t"]
        self.grid = (height, width)

    def condition(self, image: Float[Tensor, "b c h w"]) -> GraphCondition:
        """Look at images."""
        self._check_grid(size_of(image))
        given = image.float().cpu().numpy()
        seen = {"image": given, **self.look({"image": given})}
        logits = torch.from_numpy(seen["logits"]).to(image.device) if "logits" in seen else None
        pooled = torch.from_numpy(seen["pooled"]).to(image.device) if "pooled" in seen else None
        return GraphCondition(logits, pooled=pooled, seen=seen, images=tuple(range(len(image))), at=image.device)

    def at(self, t: Float[Tensor, " b"], size: tuple[int, int]) -> Float[Tensor, " b"]:
        """Give the times."""
        self._check_grid(size)
        return t

    def denoise(
        self, x_t: Float[Tensor, "b k h w"], time: Float[Tensor, " t"], condition: GraphCondition
    ) -> Float[Tensor, "b k h w"]:
        """Predict, image by image."""
        masks, said = x_t.float().cpu().numpy(), np.empty(x_t.shape, np.float32)
        one = np.ones(1, np.float32)  # levels serve an output that is not asked for
        for image in dict.fromkeys(condition.images):
            rows = [row for row, of in enumerate(condition.images) if of == image]
            known = {name: of[image : image + 1] for name, of in condition.seen.items()}
            given = {"x_t": masks[rows], "t": time.cpu().numpy().astype(np.float32), "alpha": one, "sigma": one}
            said[rows] = self.step({**given, **known}, wanted=("said",))["said"]
        return torch.from_numpy(said).to(x_t.device)

    def _check_grid(self, size: tuple[int, int]) -> None:
        if size != self.grid:
            raise ShapeError(
                f"The image is {size[0]}×{size[1]} on the grid of the network; the graphs take "
                f"{self.grid[0]}×{self.grid[1]}. Export the run again with another --size."
            )
