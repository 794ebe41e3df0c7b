"""The anchor with aids of the ensemble: calibrated, and at the threshold that suits validation cases best."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from common import Trial

from medsegdiff.cli.console import track
from medsegdiff.data.split import evenly
from medsegdiff.evaluation.case import Structure, structures_of
from medsegdiff.evaluation.pairing import Pairing, common_grid, pair
from medsegdiff.fusion.mixture import Mixture, fit_mixture
from medsegdiff.inference.ensemble import num_looks
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.io.image import write_map, write_mask
from medsegdiff.io.names import file_name
from medsegdiff.metrics.calibration import near
from medsegdiff.metrics.overlap import dice

THRESHOLDS = np.linspace(0.05, 0.95, 19)
CASES, PIXELS = 64, 60_000
"""Validation cases, and pixels near structures, that a fit rests on at most: as many as calibration takes."""


def tuned_anchor(trial: Trial) -> Path:
    """Calibrate the anchor's probability and threshold it, structure by structure; give the folder."""
    validation, out = trial.runs / f"{trial.name}_val", trial.runs / f"{trial.name}_tuned"
    look_at_validation(trial, validation)
    known = [of for _, of in read(paired(trial, validation / "anchor", "val"))]
    by_name: dict[str, list[Structure]] = {}
    for structure in (structure for structures in known for structure in structures):
        by_name.setdefault(structure.name, []).append(structure)
    mixtures = {name: scaling_of(of) for name, of in by_name.items()}
    thresholds = {name: best_threshold(of, mixtures[name]) for name, of in by_name.items()}
    shutil.rmtree(out, ignore_errors=True)
    write(paired(trial, trial.out / "anchor", "test"), mixtures, thresholds, out)
    return out


def look_at_validation(trial: Trial, out: Path) -> None:
    """Let the anchor look at validation cases, through all mirrors; no member is drawn to its end."""
    split = trial.run / "split.csv"
    files = evenly(find_inputs([trial.data], split_file=split, split="val"), CASES)
    looks = num_looks(trial.config.sampling, trial.config)
    segmenter = Segmenter.from_pretrained(trial.run)
    written = {"parts": ("anchor",), "split_file": split, "overwrite": True, "track": track}
    segment_files(segmenter, files, out, members=looks, candidates=looks, steps=1, fusion="mean", **written)


def paired(trial: Trial, folder: Path, split: str) -> Pairing:
    """Pair predictions of a part with their references."""
    options = {"present_only": True, "data": trial.config.data, "kind": "auto", "fusion": "staple", "track": track}
    return pair(folder, trial.data, split=split, **options)


def read(pairing: Pairing) -> Iterator[tuple[str, list[Structure]]]:
    """Read the masks of all cases, case by case."""
    for name in track(pairing.names, "Measuring"):
        yield name, list(structures_of(name, pairing))


def overlap(mask: np.ndarray, structure: Structure) -> float:
    """Compute the Dice of a mask with the reference."""
    return dice(mask, structure.references()[0], spacing=(1.0, 1.0))


def scaling_of(cases: list[Structure]) -> Mixture:
    """Fit slope and offset of the log-odds near what the anchor or a rater drew, as calibration does."""
    p, share = [], []
    for of in cases:
        assert of.probability is not None
        where = near(of.predicted, *of.drawn)
        p.append(of.probability[where])
        share.append(of.drawn.mean(axis=0, dtype=np.float32)[where])
    chosen = evenly(range(sum(map(len, p))), PIXELS)
    if not chosen:
        return Mixture()
    told, drawn = (torch.from_numpy(np.concatenate(of).astype(np.float32)[chosen]) for of in (p, share))
    return fit_mixture(None, told[None, None], drawn[None], times=(0.0,), exclusive=False)[0]


def scaled(structure: Structure, mixture: Mixture) -> np.ndarray:
    """Calibrate the probability of a structure."""
    p = torch.from_numpy(np.asarray(structure.probability, np.float32))[None]
    return np.asarray(mixture(None, p, exclusive=False)[0].numpy())


def best_threshold(cases: list[Structure], mixture: Mixture) -> float:
    """Find the threshold of largest mean Dice; of equal ones that nearest to ½."""
    found = []
    for of in cases:
        p = scaled(of, mixture)
        found.append([overlap(p >= at, of) for at in THRESHOLDS])
    order = np.argsort(np.abs(THRESHOLDS - 0.5), kind="stable")
    return float(THRESHOLDS[order][np.mean(found, axis=0)[order].argmax()])


def write(pairing: Pairing, mixtures: Mapping[str, Mixture], thresholds: Mapping[str, float], out: Path) -> None:
    """Write calibrated probabilities, and the masks that follow from thresholds."""
    for case, structures in read(pairing):
        geometry = common_grid(case, pairing)
        for of in structures:
            p, inner = scaled(of, mixtures[of.name]), "" if len(structures) == 1 else file_name(of.name)
            write_map(out / "probability" / inner, case, p, geometry)
            write_mask(out / "masks" / inner, case, (p >= thresholds[of.name]).astype(np.uint8), geometry)
