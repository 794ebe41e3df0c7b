"""What `earn.py` measures of a trial: scores by case, decisions about members, the law of the phantom, costs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import process_time

import numpy as np
import torch
from common import Trial, machine, timed
from earn_plan import UNLIMITED
from earn_results import Columns, Key, Outcome, Row
from earn_threshold import overlap, read, tuned_anchor

from medsegdiff.benchmark.flops import counted_pass
from medsegdiff.cli.console import track
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.phantom import Lesion
from medsegdiff.data.transforms import prepare
from medsegdiff.evaluation import Evaluation, Measure, evaluate
from medsegdiff.evaluation.case import Structure
from medsegdiff.evaluation.pairing import Pairing
from medsegdiff.fusion.fusers import decide
from medsegdiff.fusion.protocol import Raters, protocol_probability
from medsegdiff.inference.calibration import Calibration as Fitted
from medsegdiff.inference.ensemble import EnsembleSampler, num_looks
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.inputs import find_inputs, read_case
from medsegdiff.inference.record import ImageRecord
from medsegdiff.inference.request import Request
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.inference.walk import mirrors_of
from medsegdiff.labels import Labels
from medsegdiff.metrics.calibration import near
from medsegdiff.metrics.distribution import rater_dice
from medsegdiff.metrics.intervals import size_crps
from medsegdiff.metrics.reliability import Calibration

METRICS = ("dice", "hd95", "ged", "hm_iou", "size_covered")
RULES = {
    "majority": ("majority", False),
    "STAPLE": ("staple", False),
    "p ≥ ½": ("mean", True),
    "expected Dice, votes alone": ("dice", False),
    "expected Dice, mixture": ("dice", True),
}
"""How members are decided about: entry of `FUSERS`, and whether it is told the calibrated probability."""
Lesions = Mapping[str, Lesion]


@dataclass(frozen=True)
class Source:
    """A row of the page, and where its masks lie."""

    row: str
    folder: Path
    is_anchor: bool = False
    is_ensemble: bool = False


def measure(trial: Trial, key: Key, lesions: Lesions) -> Outcome:
    """Measure a trial that was trained and has segmented its test images."""
    sampling, system = Request.of(trial.config).sampling, key.system
    own = Source(system, trial.out, is_ensemble=sampling.mode == "ensemble")
    sources = [own]
    if system == "v2":
        sources += [
            Source("anchor", trial.out / "anchor", is_anchor=True),
            Source("anchor-tuned", tuned_anchor(trial), is_anchor=True),
        ]
    found = {source.row: scored(trial, source.folder) for source in sources}
    costs, pairing = costs_of(trial), pairing_of(found[system])
    record = SegmentationFolder(trial.out).read()
    stated = {} if record is None else {image.name: image for image in record.images}
    rows = {
        source.row: Row(
            columns_of(found[source.row], source, stated, lesions),
            *costs["anchor" if source.is_anchor else "whole"],
            members=1 if source.is_anchor else sampling.members,
            drawn=1 if source.is_anchor else sampling.drawn,
        )
        for source in sources
    }
    calibration = Fitted.of_run(trial.run)
    raters = Raters(trial.config.spec.raters, calibration.dependence)
    return Outcome(
        key=key,
        groups=dict(found[system].scores.groups),
        sizes=reference_sizes(pairing),
        rows=rows,
        rules=decisions(pairing, lesions, raters) if own.is_ensemble else {},
        steps=trial.steps,
        train_seconds=trial.seconds["train"],
        image_size=trial.config.data.image_size,
        sampling=sampling.model_dump(mode="json"),
        calibration={
            "cases": calibration.cases,
            "anchor": calibration.mixture.weight,
            "dependence": calibration.dependence,
            **calibration.log_scores,
        },
        machine=machine(),
        recipe=recipe_of(trial.config, minutes=key.minutes),
    )


def recipe_of(config: ResolvedConfig, *, minutes: float) -> str:
    """Name a configuration, whatever its seed: trials of one system are averaged, so they should have one recipe.

    Steps that were copied from a trial of so many ``minutes`` are those minutes.
    """
    if config.train.max_minutes is None:
        limits = {"max_minutes": minutes, "max_steps": UNLIMITED}
        config = config.model_copy(update={"train": config.train.model_copy(update=limits)})
    left_out = {"description": True, "spec": True, "train": {"seed"}, "data": {"image_dir", "mask_dir"}}
    told = config.model_dump(mode="json", exclude=left_out, exclude_defaults=True)  # a later setting changes no name
    return hashlib.blake2b(json.dumps(told, sort_keys=True).encode(), digest_size=4).hexdigest()


def scored(trial: Trial, folder: Path) -> Evaluation:
    """Score those of the test cases that were segmented."""
    return evaluate(folder, trial.data, split="test", present_only=True, data=trial.config.data, track=track)


def pairing_of(found: Evaluation) -> Pairing:
    """Give the files of an evaluation."""
    assert found.pairing is not None
    return found.pairing


def columns_of(found: Evaluation, source: Source, stated: Mapping[str, ImageRecord], lesions: Lesions) -> Columns:
    """Give numbers by case: those of the evaluation, its own doubt of each case, sizes, and what the law tells."""
    scores, several = found.scores, len(found.setup.structures) > 1
    kept = [Measure(metric) for metric in METRICS]
    kept += [Measure("dice", name) for name in found.setup.structures if several]
    if source.is_anchor:
        kept.remove(Measure("size_covered"))  # what is stated of sizes is the ensemble's
    columns = {str(of): dict(scores.columns[of]) for of in kept if of in scores.columns}
    columns["doubt"] = {case: doubt(found, case, source, stated) for case in scores.groups}
    for case, structures in read(pairing_of(found)):
        for name, value in (
            calibration_of(structures) | size_error(structures) | told_by_law(structures, lesions.get(case))
        ).items():
            columns.setdefault(name, {})[case] = value
    return columns


def doubt(found: Evaluation, case: str, source: Source, stated: Mapping[str, ImageRecord]) -> float:
    """Say how uncertain a case is: by the agreement of members, by the soft Dice of what draws none."""
    if source.is_ensemble:
        return 1 - found.scores.value(case, "agreement")
    image = stated.get(case, ImageRecord())
    confidence = image.anchor_confidence if source.is_anchor else image.confidence
    return float("nan") if confidence is None else 1 - confidence


def reference_sizes(pairing: Pairing) -> Columns:
    """Count the pixels of the references, by structure and case."""
    sizes: Columns = {}
    for case, structures in read(pairing):
        for structure in structures:
            sizes.setdefault(structure.name, {})[case] = float(structure.references()[0].sum())
    return sizes


def calibration_of(structures: list[Structure]) -> dict[str, float]:
    """Score probabilities near what raters drew: the same pixels for all systems, whatever their masks are."""
    found = []
    for of in structures:
        assert of.probability is not None
        found.append(Calibration.of(of.probability, of.drawn.mean(axis=0, dtype=np.float32), where=near(*of.drawn)))
    numbers = {"ece_near": [of.ece() for of in found], "nll_near": [of.nll() for of in found]}
    known = {name: [value for value in values if not np.isnan(value)] for name, values in numbers.items()}
    return {name: float(np.mean(values)) if values else float("nan") for name, values in known.items()}


def size_error(structures: list[Structure]) -> dict[str, float]:
    """Score the sizes of members, relative to the true one; structures that are not there are left out."""
    found = []
    for structure in structures:
        truth = float(structure.references()[0].sum())
        masks = structure.predicted[None] if structure.members is None else structure.members
        if truth:
            found.append(size_crps(masks.reshape(len(masks), -1).sum(axis=1), truth) / truth)
    return {"crps": float(np.mean(found)) if found else float("nan")}


def told_by_law(structures: list[Structure], lesion: Lesion | None) -> dict[str, float]:
    """Compare with what is known of a lesion: expected Dice, and how often its parts are drawn."""
    if lesion is None:
        return {}
    (structure,) = structures
    found = expected_dice(structure.predicted, lesion)
    for part, p in (("rim", lesion.p_rim), ("satellite", lesion.p_satellite)):
        where = getattr(lesion, part)
        found |= {f"p {part}": p, f"drawn {part}": share_of(structure, where) if where.any() else float("nan")}
    return found


def share_of(structure: Structure, part: np.ndarray) -> float:
    """Give the share of members that draw most of a part; of one mask alone, its mean probability there."""
    if structure.members is not None and len(structure.members) > 4:
        return float((structure.members[:, part].mean(axis=1) > 0.5).mean())
    return float("nan") if structure.probability is None else float(structure.probability[part].mean())


def expected_dice(mask: np.ndarray, lesion: Lesion, *, raters: int = 5) -> dict[str, float]:
    """Average Dice over all masks that a rater may draw, and over all that the majority of several may be."""
    p_rim, p_satellite = protocol_probability(np.array([lesion.p_rim, lesion.p_satellite]), raters).tolist()
    laws = {"expected": lesion, "expected majority": replace(lesion, p_rim=p_rim, p_satellite=p_satellite)}
    found = {}
    for name, law in laws.items():
        masks, weights = law.distribution()
        found[name] = float(rater_dice(mask[None], masks)[0] @ weights)
    return found


def decisions(pairing: Pairing, lesions: Lesions, raters: Raters) -> dict[str, Columns]:
    """Decide about the saved members in several ways; the name of the rule → numbers by case."""
    found: dict[str, Columns] = {rule: {} for rule in RULES}
    for case, structures in read(pairing):
        for rule in RULES:
            masks = [decided(structure, rule, raters) for structure in structures]
            numbers = {"dice": float(np.mean([overlap(m, s) for m, s in zip(masks, structures, strict=True)]))}
            if case in lesions:
                numbers |= expected_dice(masks[0], lesions[case])
            for name, value in numbers.items():
                found[rule].setdefault(name, {})[case] = value
    return found


def decided(structure: Structure, rule: str, raters: Raters) -> np.ndarray:
    """Decide about the members of a structure by one rule."""
    fusion, told = RULES[rule]
    assert structure.members is not None
    members = torch.from_numpy(structure.members[:, None]).float()
    marginal = torch.from_numpy(np.asarray(structure.probability, np.float32))[None] if told else None
    labels = Labels("binary", (structure.name,))
    return decide(members, labels, fusion=fusion, marginal=marginal, raters=raters).mask.astype(bool)


def costs_of(trial: Trial, *, images: int = 4, repeats: int = 3) -> dict[str, tuple[float, float]]:
    """Give processor seconds and GFLOP per image: of the ``whole`` answer, and of the ``anchor`` alone."""
    config, segmenter = trial.config, Segmenter.from_pretrained(trial.run)
    sampling = Request.of(config).sampling
    files = find_inputs([trial.data], split_file=trial.run / "split.csv", split="test")[:images]
    counted = counted_pass(config, members=sampling.members, steps=sampling.steps)
    gflop = {stage: (of.counted + of.fft) / 1e9 for stage, of in counted.items()}
    looks = min(num_looks(sampling, config), sampling.drawn)
    gflop["condition"] *= looks / min(len(mirrors_of(sampling, config)), sampling.drawn)  # each snapshot looks too
    sampler = EnsembleSampler(segmenter.model, config, sampling, snapshots=segmenter.snapshots)

    def look() -> None:
        for file in files:
            prepared = prepare(read_case(file), config, stride=segmenter.model.stride)
            sampler.look(prepared.image[None].to(segmenter.device))

    works = {"whole": partial(segmenter, files), "anchor": look}
    for work in works.values():
        work()  # warm
    seconds = {
        name: median(timed(work, clock=process_time) for _ in range(repeats)) / len(files)
        for name, work in works.items()
    }
    return {"whole": (seconds["whole"], sum(gflop.values())), "anchor": (seconds["anchor"], gflop["condition"])}
