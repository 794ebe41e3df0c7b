"""Calibration at the end of training: ensembles of validation cases, and what they should have said."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from medsegdiff.config.diffusion import SamplingConfig
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.dataset import DataInfo, Track, no_progress
from medsegdiff.data.loader import PreparedCases
from medsegdiff.data.split import evenly
from medsegdiff.data.transforms import Prepared
from medsegdiff.fusion.dependence import fit_dependence
from medsegdiff.fusion.mixture import fit_mixture, log_score
from medsegdiff.inference.calibration import Calibration
from medsegdiff.inference.ensemble import Ensemble, EnsembleSampler
from medsegdiff.inference.members import sizes_of
from medsegdiff.inference.request import Request
from medsegdiff.metrics.calibration import near
from medsegdiff.metrics.conformal import fit_stretch
from medsegdiff.metrics.intervals import Stretch
from medsegdiff.models.base import DiffusionModel
from medsegdiff.seeding import derive_seed

log = logging.getLogger(__name__)

CASES = 64
"""Validation cases that are segmented, at most: pictures, or slices of volumes."""
SECONDS = 90.0
"""After which no further case is begun."""
ENOUGH = 5
"""Fewer cases calibrate nothing."""
THICK = 8
"""Volumes of which some slices are taken, at most, where `ENOUGH` whole ones are more than can be segmented."""
PIXELS = 60_000
"""That the mixture is fitted on, at most."""
GRID = 128 * 128
"""Of larger grids a part of the pixels is kept, the same part of all cases."""


@dataclass(frozen=True)
class Drawn:
    """A validation case on the model grid."""

    case: str
    """Of which volume a slice is; of a picture, its name."""
    anchor: Float[Tensor, "k n"] | None
    """Probabilities at some pixels near the structures."""
    expected: Float[Tensor, "s k n"]
    share: Float[Tensor, "k n"]
    """Of raters."""
    sizes: Int[np.ndarray, "m structures"]
    """Pixels of each structure, by member."""
    truth: Int[np.ndarray, " structures"]
    """Of the reference: the majority of raters, a tie is foreground."""
    times: tuple[float, ...]
    lost: Bool[np.ndarray, " structures"]
    """What the reference holds, and the model grid does not: its size is not known there."""
    held: Bool[np.ndarray, " k"]
    """Channels that some rater drew."""
    pixels: int
    """Of the image, on the model grid."""


def calibrate(
    model: DiffusionModel,
    config: ResolvedConfig,
    cases: PreparedCases,
    info: DataInfo,
    *,
    snapshots: Sequence[DiffusionModel] = (),
    device: torch.device,
    track: Track = no_progress,
    clock: Callable[[], float] = time.monotonic,
) -> Calibration:
    """Segment validation cases as the run's users will, and fit what their ensembles say to the references.

    It takes a minute or two at most: then the cases that were segmented have to do, if they are enough; they come in an
    order of chance, so that they are from all over, whatever their names tell of hospitals and patients. The weights
    were chosen by the Dice of some of these cases, so that what is fitted is a little surer than new cases ask for.
    """
    chosen, whole = _chosen(info)
    if len(chosen) < ENOUGH:
        log.warning("Probabilities and sizes are not calibrated: %d validation cases, %d needed.", len(chosen), ENOUGH)
        return Calibration()
    sampling, precision = Request.of(config).sampling, config.train.precision
    sampler = EnsembleSampler(model, config, sampling, snapshots=snapshots, precision=precision)
    drawn: list[Drawn] = []
    begun, done = clock(), 0
    for case in track(sorted(chosen, key=partial(derive_seed, config.train.seed, "calibration")), "Calibrating"):
        prepared = ((item, cases[item]) for item in chosen[case])
        drawn += [_draw(sampler, config, case, item, one, device) for item, one in prepared if one.labelled.any()]
        done, spent = done + 1, clock() - begun
        if spent > SECONDS or (done < ENOUGH and ENOUGH * spent / done > 2 * SECONDS):
            break
    if done < ENOUGH:
        log.warning(
            "Probabilities and sizes are not calibrated: a case takes %.0f s. Calibrate with fewer sampling.steps: "
            "'train --resume' does it where calibration.json is missing.",
            (clock() - begun) / done,
        )
        return Calibration()
    if len({of.case for of in drawn}) < ENOUGH:
        log.warning("Probabilities and sizes are not calibrated: fewer than %d validation cases are labelled.", ENOUGH)
        return Calibration()
    if not whole:
        log.warning("Sizes are not calibrated: %d whole volumes are more than %d slices.", ENOUGH, CASES)
    return _fitted(drawn, config, sampling, groups=info.groups, whole=whole)


def _chosen(info: DataInfo) -> tuple[dict[str, Sequence[str]], bool]:
    """Choose cases evenly; volumes whole, or slices from all over them; tell which."""
    names = info.names("val")
    each = max(1, len(info.items("val")) // len(names))
    whole = each * ENOUGH <= CASES
    chosen = evenly(names, CASES // each if whole else THICK)
    items = {name: info.slices.get(name, (name,)) for name in chosen}
    return ({name: of if whole else evenly(of, CASES // len(chosen)) for name, of in items.items()}, whole)


def _draw(
    sampler: EnsembleSampler, config: ResolvedConfig, case: str, item: str, prepared: Prepared, device: torch.device
) -> Drawn:
    """Draw an ensemble; slices of a volume share their noise, or don't, as they will where volumes are segmented."""
    labels, seed, key = config.spec.labels, config.train.seed, case if config.sampling.shared_noise else item
    assert prepared.mask is not None
    ensemble = sampler.draw(prepared.image[None].to(device), [key], seed=seed)
    share = prepared.mask.float().mean(dim=0)  # (k, h, w)
    chosen = _pixels(ensemble, prepared, share, structures=labels.foreground)
    known = prepared.labelled.numpy()  # elsewhere members may draw what no reference holds
    maps = np.stack([labels.decide(member) for member in ensemble.probability[:, 0].cpu()]) * known
    truth = ((share[labels.foreground] >= 0.5).numpy() & known).sum(axis=(1, 2))

    def at(values: Tensor) -> Tensor:
        return values.float().cpu().flatten(-2)[..., chosen]

    lost = np.zeros(len(truth), bool) if prepared.lost is None else prepared.lost.numpy()[labels.foreground] > 0
    return Drawn(
        case=case,
        anchor=None if ensemble.anchor is None else at(ensemble.anchor[0]),
        expected=at(ensemble.expected[:, 0]),
        share=at(share),
        sizes=sizes_of(maps, labels),
        truth=truth,
        times=ensemble.times,
        lost=lost,
        held=(share.numpy() * known > 0).any(axis=(1, 2)),
        pixels=math.prod(prepared.placement.resized),
    )


def _pixels(
    ensemble: Ensemble, prepared: Prepared, share: Float[Tensor, "k h w"], *, structures: slice
) -> Int[np.ndarray, " n"]:
    """Choose pixels near what somebody or something drew, and that somebody labelled."""
    seen = [share[structures] > 0, (ensemble.probability[:, 0, structures].cpu() >= 0.5).any(dim=0)]
    around = near(*(mask.any(dim=0).numpy() for mask in seen))
    return np.flatnonzero(around & prepared.labelled.numpy())[:: max(1, around.size // GRID)]


def _fitted(
    drawn: Sequence[Drawn],
    config: ResolvedConfig,
    sampling: SamplingConfig,
    *,
    groups: Mapping[str, str],
    whole: bool,
) -> Calibration:
    labels, times = config.spec.labels, drawn[0].times
    expected, share = (torch.cat([getattr(of, name) for of in drawn], dim=-1) for name in ("expected", "share"))
    anchors = [of.anchor for of in drawn if of.anchor is not None]
    anchor = torch.cat(anchors, dim=-1) if anchors else None
    if not share.shape[-1]:  # nobody drew anything, and nothing did
        return Calibration()
    some = evenly(range(share.shape[-1]), PIXELS)
    expected, share = expected[..., some], share[..., some]
    anchor = None if anchor is None else anchor[..., some]
    names = list(dict.fromkeys(of.case for of in drawn))
    held = _by_case(drawn, names, "held").astype(bool).sum(axis=0) >= ENOUGH
    mixture, score = fit_mixture(anchor, expected, share, times=times, exclusive=labels.exclusive, held=held)
    own = mixture(anchor, expected[mixture.nearest(times)], exclusive=labels.exclusive)
    seen = labels.foreground.start + np.flatnonzero(held[labels.foreground])  # of what nobody drew no rater tells
    alone = {"members": expected[mixture.nearest(times)]} | ({} if anchor is None else {"anchor": anchor})
    scores = {name: float(log_score(p, share, exclusive=labels.exclusive)) for name, p in alone.items()}
    counted = whole and sampling.mode != "mean" and len(drawn[0].sizes) > 1  # without members there is no interval
    return Calibration(
        cases=len(names),
        mixture=mixture,
        stretch=_stretches(drawn, names, labels.structures, groups) if counted else {},
        dependence=_dependence(own[seen], share[seen], raters=sampling.raters or config.spec.raters),
        log_scores={**scores, "mixture": score},
        sampling=sampling,
    )


def _dependence(p: Float[Tensor, "k n"], share: Float[Tensor, "k n"], *, raters: int) -> float:
    """Find how far raters draw alike."""
    majority = (share >= 0.5).numpy().ravel()
    return fit_dependence(p.double().numpy().ravel(), majority, raters=raters) if len(majority) else 0.0


def _stretches(
    drawn: Sequence[Drawn], names: Sequence[str], structures: Sequence[str], groups: Mapping[str, str]
) -> dict[str, Stretch]:
    """Fit the intervals of each structure of which enough cases tell the size, and one at least holds it."""
    sizes, truth, lost, pixels = (_by_case(drawn, names, kind) for kind in ("sizes", "truth", "lost", "pixels"))
    known, of_patient = (lost == 0) | (truth > 0), np.array([groups.get(name, "") for name in names])
    return {
        name: fit_stretch(sizes[kept, :, index], truth[kept, index], of_patient[kept].tolist(), pixels=pixels[kept])
        for index, (name, kept) in enumerate(zip(structures, known.T, strict=True))
        if kept.sum() >= ENOUGH and truth[:, index].any()
    }


def _by_case(drawn: Sequence[Drawn], names: Sequence[str], kind: str) -> Int[np.ndarray, "c ..."]:
    """Sum what was counted over the slices of each volume."""
    return np.stack([np.sum([getattr(of, kind) for of in drawn if of.case == name], axis=0) for name in names])
