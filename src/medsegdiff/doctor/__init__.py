"""Explaining a run to somebody whose masks look wrong: one file per group of findings, `examine` has them all."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from medsegdiff.config.run import Precision
from medsegdiff.data.dataset import Track, no_progress
from medsegdiff.doctor.log import examine_log
from medsegdiff.doctor.masks import examine_masks, place_of
from medsegdiff.doctor.raters import examine_raters
from medsegdiff.doctor.report import Diagnosis, Finding, guarded
from medsegdiff.doctor.settings import examine_data, examine_machine, examine_sampler
from medsegdiff.doctor.weights import examine_weights
from medsegdiff.errors import CheckpointError, ConfigError, DataError, MedSegDiffError
from medsegdiff.hardware import pick_device
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.models.checkpoint import Weights, load_config
from medsegdiff.training.run import Run


def examine(
    folder: str | Path,
    *,
    data: Path | None = None,
    weights: Weights = "best",
    cases: int = 4,
    device: str | None = None,
    precision: Precision = "auto",
    track: Track = no_progress,
) -> Diagnosis:
    """Examine a run: its files, its training, how it samples, and its masks.

    What is broken is a finding; only what was asked wrongly is an error.
    """
    run, start, chosen = Run(Path(folder)), time.monotonic(), pick_device(device)
    if not run.folder.is_dir():
        raise CheckpointError(f"{folder}: there is no such folder. Give one that 'medsegdiff train --out' wrote.")
    if cases < 1:
        raise ConfigError(f"cases is {cases}; it must be at least 1.")
    if data is not None and not data.exists():
        raise DataError(f"{data}: there is no such file or folder. Give images, or leave --data out.")
    try:
        config = load_config(run.folder)
    except MedSegDiffError as error:
        broken = Finding("weights", "configuration", "wrong", str(error), "Without it nothing can be examined.")
        return Diagnosis(str(folder), (broken,), time.monotonic() - start)
    found, model = examine_weights(run, config, weights)
    record, damage = _record(run)
    found += guarded("training", lambda: examine_log(run, config), advice="Restore the file; masks do without.")
    found += damage + guarded("data", lambda: examine_data(run, config, record), advice="Restore the file.")
    found += guarded("sampler", lambda: examine_sampler(config), advice="Mend the section sampling of config.json.")
    if model is not None:
        segmenter = Segmenter(model, config, device=chosen, precision=precision)
        found += _drawn(run, segmenter, data, str(record.get("data") or ""), cases, track)
    found += guarded("machine", lambda: examine_machine(record, config, chosen, precision), advice="Restore run.json.")
    return Diagnosis(str(folder), tuple(found), time.monotonic() - start)


def _record(run: Run) -> tuple[dict[str, Any], list[Finding]]:
    """Read the record of a run, or say that it is damaged and go on without."""
    try:
        return run.told(), []
    except DataError as error:
        return {}, [Finding("data", "record", "wrong", str(error), "Restore run.json; masks do without.")]


def _drawn(run: Run, segmenter: Segmenter, data: Path | None, recorded: str, cases: int, track: Track) -> list[Finding]:
    """Examine what the model draws."""
    advice = "Give --data with images like those it was trained on; try 'medsegdiff data check'."
    count = max(2, cases)  # one image does not tell whether it is looked at
    with place_of(run, segmenter.config, data=data, recorded=recorded, cases=cases) as where:
        masks = guarded("masks", lambda: examine_masks(run, segmenter, where, count=count, track=track), advice=advice)
        return masks + guarded(
            "raters", lambda: examine_raters(run, segmenter, where, count=2 * cases, track=track), advice=advice
        )
