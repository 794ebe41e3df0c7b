"""``medsegdiff train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
import yaml

from medsegdiff.cli.console import err, give, say, track
from medsegdiff.config import Config, load_preset

if TYPE_CHECKING:
    from medsegdiff.training.trainer import Outcome


def train(
    data: Annotated[str, typer.Argument(help="Folder with images/ and masks/, or a built-in data set (phantom).")],
    out: Annotated[Path, typer.Option(help="Folder of the run: weights, log, curves, pictures.")],
    preset: Annotated[
        str, typer.Option(help="Name of a preset (medsegdiff list presets), or a YAML file.")
    ] = "v2-tiny",
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Change a value: section.key=value; may be repeated.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in --out, exactly where it stopped.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu keeps training off the GPU.")] = None,
) -> None:
    """Train a model on images and masks.

    Example: `medsegdiff train data/isic --out runs/isic --preset v2-tiny --set train.max_steps=2000`

    On several GPUs: `accelerate launch -m medsegdiff train …` or `torchrun --nproc-per-node 4 -m medsegdiff train …`
    """
    overrides = set_ or []
    if resume:
        from medsegdiff.checkpoint import load_config
        from medsegdiff.config import make_config

        config = make_config(load_config(out).model_dump(mode="json"), overrides)
    else:
        config = load_preset(preset, overrides)
    if dry_run:
        give(yaml.safe_dump(_resolved(data, config).model_dump(mode="json"), sort_keys=False, allow_unicode=True))
        return
    from medsegdiff.training.train import train as run

    _report(run(data, out, config, resume=resume, device=device, console=err, track=track))


def _resolved(data: str, config: Config) -> Config:
    from medsegdiff.training.train import plan

    return plan(data, config, track=track).config


def _report(outcome: Outcome) -> None:
    say(f"Training {outcome.reason} at step {outcome.step}.")
    if outcome.best_dice >= 0:
        say(f"Best validation Dice {outcome.best_dice:.4f} at step {outcome.best_step}.")
    if outcome.skipped:
        say(f"{outcome.skipped} steps were skipped for a loss or gradient that was not finite.")
    say(f"Curves: {outcome.folder / 'curves.png'} · pictures: {outcome.folder / 'validation'}")
    if outcome.reason == "interrupted":
        say(f"Go on with: medsegdiff train … --out {outcome.folder} --resume")
    say(f"Segment with: medsegdiff segment IMAGES --model {outcome.folder} --out masks")
    give(str(outcome.folder))
    if outcome.reason == "interrupted":
        raise typer.Exit(1)
