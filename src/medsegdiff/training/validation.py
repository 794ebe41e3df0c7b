"""What is told while a network is trained: progress, the log, and validation by sampling."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from rich.console import Console
from torch import Tensor

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.loader import PreparedCases
from medsegdiff.data.split import evenly
from medsegdiff.data.transforms import Prepared
from medsegdiff.errors import DataError, some
from medsegdiff.fusion.fusers import decide
from medsegdiff.fusion.mixture import Mixture
from medsegdiff.fusion.protocol import Raters
from medsegdiff.inference.ensemble import Ensemble, EnsembleSampler
from medsegdiff.inference.uncertainty import uncertainty_of
from medsegdiff.metrics.overlap import Overlap, dice, iou
from medsegdiff.models.base import DiffusionModel
from medsegdiff.pictures.cases import CaseRow, case_grid
from medsegdiff.pictures.curves import save, training_curves
from medsegdiff.progress import bar_on
from medsegdiff.training.run import Run

SHOWN = 6
"""Cases that are drawn."""
NUMBERS = ("dice", "iou", "dice_member", "dice_anchor", "agreement")
"""What is told of each validation."""


@dataclass(frozen=True)
class Scored:
    """A validation case: its numbers, and its pictures if it is among the first."""

    dice: float
    iou: float
    dice_member: float
    """Mean over members."""
    dice_anchor: float | None
    """``None`` without an anchor."""
    agreement: float | None
    """Mean Dice of pairs of members; ``None`` of a single one."""
    row: CaseRow | None
    name: str = ""


class Validator:
    """Segments the same validation cases each time, with the same noise, so that changes are the model's."""

    def __init__(
        self, config: ResolvedConfig, cases: PreparedCases, names: Sequence[str], accelerator: Accelerator
    ) -> None:
        train = config.train
        self.names, self.by_case = evenly(names, train.val_cases), list[float]()
        self.config, self.cases, self.accelerator = config, cases, accelerator
        self.labels = config.spec.labels
        self.sampling = config.sampling.model_copy(
            update={"members": train.val_members, "candidates": None, "steps": train.val_steps, "views": 1}
        )

    def __call__(self, model: DiffusionModel, picture: Path) -> dict[str, float]:
        """Validate."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        model.eval()
        broadcast(list(model.buffers()))  # running statistics differ between processes; the main one's are saved
        precision = self.config.train.precision
        sampler = EnsembleSampler(model, self.config, self.sampling, precision=precision, mixture=Mixture())
        scored = list(self._share(sampler, self._batches(world), world=world, rank=rank))
        gathered: list[Scored] = gather_object(scored) if world > 1 else scored
        if not gathered:
            raise DataError(
                f"Nobody labelled a pixel of the {len(self.names)} validation cases ({some(self.names)}). "
                "Put others into the part 'val' of split.csv."
            )
        if self.accelerator.is_main_process:
            rows = sorted((case.row for case in gathered if case.row), key=lambda row: self.names.index(row.name))
            save(case_grid(rows), picture)
        self.by_case = [case.dice for case in sorted(gathered, key=lambda case: case.name)]
        return _means(gathered)

    def _batches(self, world: int) -> list[list[Prepared]]:
        """Sort cases into batches of one size of image, small enough that all processes have some."""
        size = max(1, min(self.sampling.batch_size // self.sampling.members, -(-len(self.names) // world)))
        prepared = sorted((self.cases[name] for name in self.names), key=lambda case: case.image.shape)
        groups = [list(group) for _, group in itertools.groupby(prepared, key=lambda case: case.image.shape)]
        return [alike[start : start + size] for alike in groups for start in range(0, len(alike), size)]

    def _share(
        self, sampler: EnsembleSampler, batches: Sequence[list[Prepared]], *, world: int, rank: int
    ) -> Iterator[Scored]:
        """Segment this process's batches, and score their cases one by one.

        All processes draw equally often: where a network is split over them, none computes without the others. One
        that has no batch left draws another's again and keeps nothing of it.
        """
        rounds = -(-len(batches) // world)
        for number in range(rank, rounds * world, world):
            batch = batches[number % len(batches)]
            image = torch.stack([case.image for case in batch]).to(self.accelerator.device)
            ensemble = sampler.draw(image, [case.name for case in batch], seed=self.config.train.seed)
            if number < len(batches):
                labelled = [index for index, case in enumerate(batch) if case.labelled.any()]
                yield from (self._score(batch[index], ensemble, index) for index in labelled)

    def _score(self, case: Prepared, ensemble: Ensemble, index: int) -> Scored:
        assert case.mask is not None
        members = ensemble.probability[:, index].cpu()
        masks = [self._structures(member) for member in members]
        seen, expected = (
            None if ensemble.anchor is None else ensemble.anchor[index],
            ensemble.expected[0, index].float(),
        )
        mixed = Mixture()(seen, expected, exclusive=self.labels.exclusive).cpu()
        raters = Raters(self.sampling.raters or self.config.spec.raters)
        decided = decide(members, self.labels, fusion=self.sampling.fusion, marginal=mixed, raters=raters)
        mask = self.labels.masks(decided.mask).astype(bool)
        anchor = None if ensemble.anchor is None else self._structures(ensemble.anchor[index].cpu())
        share = case.mask.float().mean(dim=0).numpy()[self.labels.foreground]  # of raters; the background is not scored
        truth = share >= 0.5
        known = case.labelled.numpy()  # what nobody labelled is not scored, nor what lies around the image
        mask, truth, masks = mask & known, truth & known, [m & known for m in masks]
        anchor = None if anchor is None else anchor & known
        pairs = itertools.combinations(masks, 2)
        lost = None if case.lost is None else case.lost.bool().numpy()[self.labels.foreground]
        score = _mean(dice, mask, truth, lost)
        row = CaseRow(
            name=case.name,
            image=case.image.numpy(),
            raters=list(case.mask.numpy()[:, self.labels.foreground]),
            members=masks,
            fused=mask,
            anchor=anchor,
            uncertainty=uncertainty_of(members, exclusive=self.labels.exclusive).entropy,
            note=f"Dice {score:.3f}",
        )
        return Scored(
            dice=score,
            iou=_mean(iou, mask, truth, lost),
            dice_member=float(np.mean([_mean(dice, m, truth, lost) for m in masks])),
            dice_anchor=None if anchor is None else _mean(dice, anchor, truth, lost),
            agreement=float(np.mean([_mean(dice, a, b) for a, b in pairs])) if len(masks) > 1 else None,
            row=row if case.name in self.names[:SHOWN] else None,
            name=case.name,
        )

    def _structures(self, probability: Tensor) -> np.ndarray:
        return self.labels.masks(self.labels.decide(probability)).astype(bool)


def _means(scored: Sequence[Scored]) -> dict[str, float]:
    """Average over the cases; nothing is said of what is not there: an anchor, pairs of members."""
    columns = {name: [getattr(case, name) for case in scored] for name in NUMBERS}
    return {name: float(np.mean(values)) for name, values in columns.items() if None not in values}


def _mean(metric: Overlap, prediction: np.ndarray, reference: np.ndarray, lost: np.ndarray | None = None) -> float:
    """Average over structures. One whose reference was lost on the way is missed, whatever is drawn."""
    gone = np.zeros(len(reference), bool) if lost is None else lost
    return float(np.mean(np.where(gone, 0.0, [metric(p, r) for p, r in zip(prediction, reference, strict=True)])))


REDRAWN = 5.0
"""Seconds between two drawings of the curves, at least."""


class Monitor:
    """Reports on the main process; the others are silent."""

    def __init__(self, run: Run, accelerator: Accelerator, *, start: int, stop: int | None, console: Console) -> None:
        self.run, self.accelerator, self.console = run, accelerator, console
        self.active = accelerator.is_main_process
        self.bar = bar_on(console, "training", stop, done=start)
        self.dice = ""
        self._seen, self._since = 0, time.monotonic()
        self._drawn, self._undrawn = self._since, False

    def __enter__(self) -> Monitor:
        self.bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        if self._undrawn:
            self._draw()

    def count(self, images: int) -> None:
        """Count images that were trained on."""
        self._seen += images

    def step(self, step: int, numbers: Mapping[str, float]) -> None:
        """Report losses."""
        rate = self._seen / max(time.monotonic() - self._since, 1e-9)
        self._seen, self._since = 0, time.monotonic()
        record = {"step": step, **numbers, "images_per_s": rate}
        if self.active:
            shown = f"loss {numbers['loss']:.3f}{self.dice} · {rate:.1f} images/s"
            self.bar.update(step, note=shown)
            self.run.append(record)
        self.accelerator.log({k: v for k, v in record.items() if k != "step"}, step=step)

    def settled(self, step: int, total: int, step_seconds: float) -> None:
        """Report how many steps fit into the time that there is."""
        if self.active:
            self.bar.update(total=total)
            self.run.append({"step": step, "settled": total, "step_seconds": step_seconds})
            self.console.print(f"{total} steps fit, at {step_seconds:.2f} s each.", highlight=False, markup=False)

    def begun(self, step: int, *, alone_until: int) -> None:
        """Say so where the Condition Model learns alone for a while: no validation comes before it has company."""
        if self.active and step < alone_until:
            told = f"Until step {alone_until} the Condition Model learns alone; validation comes after that."
            self.console.print(told, highlight=False, markup=False)

    def validated(self, step: int, numbers: Mapping[str, float], *, best: bool) -> None:
        """Report a validation; draw the curves, but not again and again within seconds: at the end they are whole."""
        self.dice = f" · Dice {numbers['dice']:.3f}"
        self.accelerator.log({f"val/{key}": value for key, value in numbers.items()}, step=step)
        if self.active:
            self.run.append({"step": step, **numbers})
            self._undrawn = True
            if time.monotonic() - self._drawn >= REDRAWN:
                self._draw()
            anchor = f", {numbers['dice_anchor']:.4f} anchor" if "dice_anchor" in numbers else ""
            agreement = f" · agreement {numbers['agreement']:.3f}" if "agreement" in numbers else ""
            self.console.print(
                f"step {step:>6} · validation Dice {numbers['dice']:.4f} fused, "
                f"{numbers['dice_member']:.4f} one member{anchor} "
                f"· IoU {numbers['iou']:.4f}{agreement}" + (" · best so far" if best else ""),
                markup=False,
            )
        self._seen, self._since = 0, time.monotonic()  # sampling is not training time

    def _draw(self) -> None:
        save(training_curves(self.run.lines()), self.run.curves)
        self._drawn, self._undrawn = time.monotonic(), False
