"""Which configuration a training asks for: a preset's, that of a run it goes on with, or of one it begins with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from medsegdiff.config.load import load_preset, make_config
from medsegdiff.config.run import Config
from medsegdiff.errors import ConfigError
from medsegdiff.models.checkpoint import load_config
from medsegdiff.training.run import Run

NO_LIMIT = 1_000_000_000
"""More steps than anybody makes."""
DEFAULT = "v2-tiny"


def config_for(
    out: Path,
    *,
    preset: str | None = None,
    changes: Sequence[str] = (),
    minutes: float | None = None,
    resume: bool = False,
    start: Path | None = None,
    distill: bool = False,
) -> Config:
    """Choose the configuration; ``minutes`` are the only limit of training where they are given."""
    if start and (resume or preset):
        raise ConfigError("--start takes network and settings from that run: leave --preset and --resume out.")
    if resume and preset:
        raise ConfigError("--resume goes on with the run's own configuration; leave --preset out. --set may extend it.")
    if distill and not start:
        raise ConfigError("--distill learns from a trained run: name it with --start RUN.")
    timed = [] if minutes is None else [f"train.max_minutes={minutes}", f"train.max_steps={NO_LIMIT}"]
    changes = [*changes, *timed]
    if start:
        return _begun(start, [*_distilled(start), *changes] if distill else changes)
    if resume and Run(out).imported:
        return _begun(out, changes)
    if resume:
        return make_config(load_config(out).asked.model_dump(mode="json"), changes)
    return load_preset(preset or DEFAULT, changes)


def _distilled(teacher: Path) -> list[str]:
    """Make a run learn from another, in a quarter of its steps."""
    before = load_config(teacher).train
    time = [] if before.max_minutes is None else [f"train.max_minutes={before.max_minutes / 4}"]
    return [
        f"train.teacher={json.dumps(str(teacher.resolve()), ensure_ascii=False)}",
        f"train.max_steps={max(1, before.max_steps // 4)}",
        f"train.warmup_steps={before.warmup_steps // 4}",
        f"train.val_every={max(1, before.val_every // 4)}",
        *time,
        "train.val_steps=1",
        "sampling.steps=1",
        "sampling.spacing=trailing",
    ]


def _begun(start: Path, changes: Sequence[str]) -> Config:
    """Take a run's settings, but for what its data told."""
    config = load_config(start)
    if config.train.teacher is not None:
        raise ConfigError(
            f"{start} was distilled: it has learned to sample in one step, which other training would undo. Start with "
            f"its teacher, {config.train.teacher}, and distil what comes of it."
        )
    asserted = {"channels", "task", "classes", "layout", "modalities", "window"}
    values = config.asked.model_dump(mode="json", exclude={"data": asserted})
    return make_config(values, changes)


def find_config(what: str, changes: Sequence[str] = ()) -> Config:
    """Find what a name stands for: the folder of a run, a preset, or a YAML file."""
    if Path(what).is_dir():
        return make_config(load_config(Path(what)).asked.model_dump(mode="json"), changes)
    if "/" in what and not what.endswith((".yaml", ".yml")):
        raise ConfigError(f"{what}: there is no such folder. Name the folder of a run, a preset or a YAML file.")
    return load_preset(what, changes)
