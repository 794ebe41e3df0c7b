"""Validation by sampling: segment held-out cases as a user would, score them, show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from medsegdiff.config import Config
from medsegdiff.data.loader import PreparedCases
from medsegdiff.fusion import FUSERS, labels_of, one_hot
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.inference.uncertainty import uncertainty_of
from medsegdiff.metrics.overlap import dice, iou
from medsegdiff.models.base import DiffusionModel
from medsegdiff.report.figures import CaseRow, case_grid


@dataclass(frozen=True)
class Scored:
    """A validation case: its numbers and its pictures."""

    dice: float
    iou: float
    dice_member: float
    dice_anchor: float
    agreement: float
    """Mean Dice of pairs of members."""
    row: CaseRow


class Validator:
    """Segments the same validation cases each time, with the same noise, so that changes are the model's."""

    def __init__(self, config: Config, cases: PreparedCases, names: Sequence[str], accelerator: Accelerator) -> None:
        train = config.train
        count = min(train.val_cases, len(names))
        self.names = [names[i] for i in np.linspace(0, len(names) - 1, count).round().astype(int)]
        self.config, self.cases, self.accelerator = config, cases, accelerator
        self.sampling = config.sampling.model_copy(
            update={"num_samples": train.val_samples, "num_steps": train.val_steps}
        )

    def __call__(self, model: DiffusionModel, picture: Path) -> dict[str, float]:
        """Validate.

        Args:
            model: With averaged weights.
            picture: Where a grid of the first cases is drawn.

        Returns:
            Means over the cases: ``dice`` and ``iou`` of the fused mask, ``dice_member``, ``dice_anchor``,
            ``agreement``; on the model grid.
        """
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        model.eval()
        scored = [self._score(model, name) for name in self.names[rank::world]]
        gathered: list[Scored] = gather_object(scored) if world > 1 else scored
        if self.accelerator.is_main_process:
            case_grid([case.row for case in gathered[:6]], picture)
        numbers = ("dice", "iou", "dice_member", "dice_anchor", "agreement")
        return {name: float(np.mean([getattr(case, name) for case in gathered])) for name in numbers}

    def _score(self, model: DiffusionModel, name: str) -> Scored:
        case = self.cases[name]
        assert case.mask is not None
        sampler = EnsembleSampler(model, self.config, self.sampling, precision=self.config.train.precision)
        drawn = sampler.draw(case.image[None].to(self.accelerator.device), [name], seed=self.config.train.seed)
        exclusive = self.config.data.task == "exclusive"
        fused = FUSERS[self.sampling.fusion].factory(drawn.probability, exclusive=exclusive).probability[0].cpu()
        members = drawn.probability[:, 0].cpu()
        masks = [self._structures(member) for member in members]
        truth = case.mask.mean(dim=0).numpy()[int(exclusive) :]
        mask, anchor = self._structures(fused), self._structures(drawn.anchor[0].cpu())
        pairs = [(a, b) for i, a in enumerate(masks) for b in masks[:i]]
        score = _mean_dice(mask, truth >= 0.5)
        return Scored(
            dice=score,
            iou=float(np.mean([iou(p, r) for p, r in zip(mask, truth >= 0.5, strict=True)])),
            dice_member=float(np.mean([_mean_dice(m, truth >= 0.5) for m in masks])),
            dice_anchor=_mean_dice(anchor, truth >= 0.5),
            agreement=float(np.mean([_mean_dice(a, b) for a, b in pairs])) if pairs else 1.0,
            row=CaseRow(
                name=name,
                image=case.image.numpy(),
                reference=truth,
                members=masks,
                fused=mask,
                anchor=anchor,
                uncertainty=uncertainty_of(members, exclusive=exclusive).entropy,
                note=f"Dice {score:.3f}",
            ),
        )

    def _structures(self, probability: Tensor) -> np.ndarray:
        """Decide the foreground masks (k h w) from probabilities; the background of exclusive classes is left out."""
        if self.config.data.task != "exclusive":
            return (probability >= 0.5).numpy()
        labels = labels_of(probability[None, None])[0, 0]
        return one_hot(labels, len(probability))[1:].bool().numpy()


def _mean_dice(prediction: np.ndarray, reference: np.ndarray) -> float:
    return float(np.mean([dice(p, r) for p, r in zip(prediction, reference, strict=True)]))


def averaged(model: torch.nn.Module) -> DiffusionModel:
    """Name the type of an averaged model's network.

    Args:
        model: ``AveragedModel.module``.

    Returns:
        The same object.

    Raises:
        TypeError: If it is something else.
    """
    if not isinstance(model, DiffusionModel):
        raise TypeError(f"expected a DiffusionModel, found {type(model).__name__}")
    return model
