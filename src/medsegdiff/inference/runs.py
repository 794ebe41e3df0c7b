"""Runs in use: a trained network with what belongs to it, and whether several can segment together."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from medsegdiff.config.diffusion import SamplingConfig
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.split import names_in
from medsegdiff.errors import ConfigError
from medsegdiff.hardware import place
from medsegdiff.inference.calibration import Calibration
from medsegdiff.inference.cleaning import still_calibrated
from medsegdiff.inference.folder import SPLIT
from medsegdiff.inference.quality import FILE, QualityModel, file_of
from medsegdiff.inference.request import Request
from medsegdiff.inference.resources import compile_steps
from medsegdiff.metrics.intervals import Stretch
from medsegdiff.models.base import DiffusionModel
from medsegdiff.models.checkpoint import Origin, Weights, hashes_of, load_model, load_snapshots, with_snapshots_kept

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Trained:
    """A network in use, alone or beside others that share an ensemble with it."""

    model: DiffusionModel
    config: ResolvedConfig
    _: KW_ONLY
    snapshots: Sequence[DiffusionModel] = ()
    """Further weights of the network, which its members share out."""
    calibration: Calibration = field(default_factory=Calibration)
    """What validation has taught of its probabilities and sizes."""
    origin: Origin | None = None
    sha256: tuple[str, ...] = ()
    """Of the file of its weights, and of those of its snapshots."""

    @classmethod
    def load(cls, folder: str | Path, *, weights: Weights = "best") -> Trained:
        """Load a run from its folder."""
        model, config = load_model(folder, weights=weights)
        return cls(
            model,
            with_snapshots_kept(folder, config),
            snapshots=load_snapshots(folder, config),
            calibration=Calibration.of_run(Path(folder)) if weights == "best" else Calibration(),
            origin=Origin(str(folder), weights),
            sha256=hashes_of(Path(folder), config, weights=weights),
        )

    def on(self, device: torch.device, *, compiled: bool) -> None:
        """Bring its weights to a device."""
        for network in (self.model, *self.snapshots):
            place(network, device).eval()
        if compiled:
            compile_steps(self.model, device)


def calibrated_for(by_run: Sequence[SamplingConfig], runs: Sequence[Trained]) -> list[Trained]:
    """Take of each run what it is calibrated for, if images are segmented so."""
    return [
        replace(run, calibration=run.calibration.as_for(sampling, volumes=bool(run.config.spec.plane)))
        for run, sampling in zip(runs, by_run, strict=True)
    ]


def stretch_for(
    request: Request, runs: Sequence[Trained], known: QualityModel | None, *, noted: Callable[[str], None]
) -> Mapping[str, Stretch] | None:
    """Find what calibrates intervals of sizes: that of the very masks, else what training fitted; ``None``: no sizes.

    Training fits those of a run by itself, of masks that are not cleaned.
    """
    if request.sampling.mode == "mean":
        return None
    if known is not None and known.stretch:
        return known.stretch
    if len(runs) == 1:
        return still_calibrated(runs[0].calibration.stretch, request.cleaning, noted=noted)
    if any(run.calibration.stretch for run in runs):
        noted(
            "Intervals of sizes are not calibrated: each run has fitted them for its own members alone. "
            "'medsegdiff calibrate' fits them for all together."
        )
    return {}


def quality_of(runs: Sequence[Trained]) -> QualityModel | None:
    """Find what ``medsegdiff calibrate`` has taught of these runs together; it lies in the folder of the first."""
    folders = [run.origin.folder for run in runs if run.origin is not None and run.origin.weights == "best"]
    if len(folders) < len(runs):
        return None
    weights = tuple(run.sha256[0] for run in runs)
    file = Path(folders[0]) / file_of(weights)
    found = QualityModel.read(file)
    if found is not None and found.weights != weights:
        log.warning("%s is of other weights than the run has now, and not used. Calibrate it anew.", file)
        return None
    if found is None and any((Path(folder) / FILE).is_file() for folder in folders):
        told = ",".join(folders)
        log.warning(
            "Each run was calibrated for the masks that it draws alone; of those of all together, in this order, "
            "nothing is predicted. 'medsegdiff calibrate %s DATA' learns it.",
            told,
        )
    return found


def check_alike(runs: Sequence[Trained]) -> None:
    """Refuse runs that can't share an ensemble: of other masks or other images, or with the same weights."""
    names = [f"run {number}" if run.origin is None else run.origin.folder for number, run in enumerate(runs, 1)]
    facts = [_facts(run.config) for run in runs]
    for what, expected in facts[0].items():
        if any(of[what] != expected for of in facts):
            told = "; ".join(f"{_worded(of[what])} in {name}" for name, of in zip(names, facts, strict=True))
            raise ConfigError(
                f"These runs can't segment together: {what} differ: {told}. Give runs that are alike in it, or segment "
                "with each by itself."
            )
    _check_weights(runs, names)
    raters = [run.config.sampling.raters or run.config.spec.raters for run in runs]
    if len({*raters}) > 1:
        log.warning("The runs aim at majorities of %s raters; the mask is that of %d.", _worded(raters), raters[0])


def _facts(config: ResolvedConfig) -> dict[str, Any]:
    """List in what runs have to be alike; size of the grid, normalisation and network are each one's own."""
    spec = config.spec
    return {
        "tasks": spec.labels.task,
        "classes": spec.labels.classes,
        "values of label maps": spec.labels.label_values,
        "image channels": spec.channels,
        "modalities": spec.modalities,
        "planes of slices": config.plane,
        "neighbouring slices": config.data.neighbours,
    }


def _worded(value: Any) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, (tuple, list)) else str(value)


def _check_weights(runs: Sequence[Trained], names: Sequence[str]) -> None:
    """Refuse the same weights twice: they would look surer than they are."""
    seen: dict[str, str] = {}
    for run, name in zip(runs, names, strict=True):
        if run.sha256 and (same := seen.setdefault(run.sha256[0], name)) != name:
            raise ConfigError(f"{same} and {name} have the same weights, and would agree for that alone. Give one.")
        if names.count(name) > 1:
            raise ConfigError(f"{name} is given {names.count(name)} times. Give each run once.")


def common_split(folders: Sequence[Path], part: str) -> Path:
    """Find the file of the split that runs have in common; refuse it where they part the cases otherwise."""
    first, *others = (folder / SPLIT for folder in folders)
    for file in others:
        a, b = names_in(first, part), names_in(file, part)
        if a != b:
            raise ConfigError(
                f"The split '{part}' is another one in {file} than in {first}: {len(a & b)} of {len(a | b)} cases are "
                "in both, and what is left out of one run another may have been trained on. Give runs of one split, "
                "or the images themselves without --split."
            )
    return first
