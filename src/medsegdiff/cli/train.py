"""``medsegdiff train``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from medsegdiff.cli import command, options
from medsegdiff.cli.console import info, people, result, track
from medsegdiff.config.load import load_preset, make_config
from medsegdiff.config.run import Config
from medsegdiff.errors import ConfigError

if TYPE_CHECKING:
    from medsegdiff.training.trainer import Outcome

NO_LIMIT = 1_000_000_000
"""More steps than anybody makes."""


def train(
    data: Annotated[str, typer.Argument(help="Folder with images/ and masks/, or a built-in data set (phantom).")],
    out: Annotated[Path, options.out_folder("Folder of the run: weights, log, curves, pictures.")],
    preset: options.Preset = None,
    set_: options.Set = None,
    minutes: Annotated[
        float | None,
        typer.Option(help="Train for so long: as many steps as fit, whatever train.max_steps.", show_default=False),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in --out, exactly where it stopped; or train on what is imported there.",
        ),
    ] = False,
    start: Annotated[
        Path | None,
        typer.Option(help="Begin with the weights of this run, in its network; its other settings are taken too."),
    ] = None,
    distill: Annotated[
        bool,
        typer.Option(
            "--distill", help="Learn to make in one step what two steps of the run in --start make; takes a quarter."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")] = False,
    device: options.Device = None,
    as_json: options.AsJson = False,
) -> None:
    """Train a model on images and masks.

    Example: `medsegdiff train data/isic --out runs/isic --preset v2-tiny --set train.max_steps=2000`

    On several GPUs: `accelerate launch -m medsegdiff train …` or `torchrun --nproc-per-node 4 -m medsegdiff train …`;
    `--set train.sharding=true` splits the network over them.
    """
    if start and (resume or preset):
        raise ConfigError("--start takes network and settings from that run: leave --preset and --resume out.")
    if resume and preset:
        raise ConfigError("--resume goes on with the run's own configuration; leave --preset out. --set may extend it.")
    if distill and not start:
        raise ConfigError("--distill learns from a trained run: name it with --start RUN.")
    changes = [*(set_ or []), *time_limit(minutes)]
    if start:
        config = _begun(start, [*distilled(start), *changes] if distill else changes)
    else:
        config = _of_run(out, changes) if resume else load_preset(preset or "v2-tiny", changes)
    if dry_run:
        from medsegdiff.training.plan import plan

        resolved = plan(data, config, device=device, track=track).config
        result(yaml.safe_dump(resolved.model_dump(mode="json"), sort_keys=False, allow_unicode=True))
        return
    from accelerate import PartialState

    from medsegdiff.training.train import train as run

    outcome = run(data, out, config, resume=resume, start=start, device=device, console=people, track=track)
    if PartialState().is_main_process:
        _report(outcome, data, as_json=as_json)
    if outcome.reason == "interrupted":
        raise typer.Exit(command.Exit.INTERRUPTED)


def time_limit(minutes: float | None) -> list[str]:
    """Make a time the only limit of training."""
    return [] if minutes is None else [f"train.max_minutes={minutes}", f"train.max_steps={NO_LIMIT}"]


def distilled(teacher: Path) -> list[str]:
    """Make a run learn from another, in a quarter of its steps."""
    from medsegdiff.checkpoint import load_config

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


def _of_run(out: Path, overrides: list[str]) -> Config:
    from medsegdiff.checkpoint import load_config
    from medsegdiff.training.run import Run

    if Run(out).imported:
        return _begun(out, overrides)
    return make_config(load_config(out).asked.model_dump(mode="json"), overrides)


def _begun(start: Path, overrides: list[str]) -> Config:
    """Take a run's settings, but for what its data told."""
    from medsegdiff.checkpoint import load_config

    config = load_config(start)
    if config.train.teacher is not None:
        raise ConfigError(
            f"{start} was distilled: it has learned to sample in one step, which other training would undo. Start with "
            f"its teacher, {config.train.teacher}, and distil what comes of it."
        )
    asserted = {"channels", "task", "classes", "layout", "modalities", "window"}
    values = config.asked.model_dump(mode="json", exclude={"data": asserted})
    return make_config(values, overrides)


def _report(outcome: Outcome, data: str, *, as_json: bool) -> None:
    from medsegdiff.io.atomic import to_json

    info(f"Training {outcome.reason} at step {outcome.step}.")
    if outcome.best_dice >= 0:
        info(f"Best validation Dice {outcome.best_dice:.4f} at step {outcome.best_step}.")
    if outcome.skipped:
        info(f"{outcome.skipped} steps were skipped for a loss or gradient that was not finite.")
    info(f"Curves: {outcome.folder / 'curves.png'} · pictures: {outcome.folder / 'validation'}")
    if outcome.reason == "interrupted":
        info(f"Go on with: medsegdiff train {data} --out {outcome.folder} --resume")
    if outcome.reason == "finished already":
        info(f"To go on: --resume --set train.max_steps={2 * outcome.step}, or --resume --minutes with a longer time.")
    info(f"Segment with: medsegdiff segment IMAGES --model {outcome.folder} --out masks")
    result(to_json(dataclasses.asdict(outcome)) if as_json else str(outcome.folder))
