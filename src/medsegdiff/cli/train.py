"""``medsegdiff train``."""

from __future__ import annotations

import dataclasses
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medsegdiff.cli import command, options
from medsegdiff.cli.console import info, people, result, track

if TYPE_CHECKING:
    from medsegdiff.training.trainer import Outcome


def train(
    data: Annotated[str, typer.Argument(help="Folder with images/ and masks/, or a built-in data set (phantom).")],
    out: Annotated[Path, options.out_folder("Folder of the run: weights, log, curves, pictures.")],
    preset: options.Preset = None,
    recipe: Annotated[
        Literal["own", "common"],
        typer.Option(help="Train as the preset says, or as V2 is trained: for fair comparisons."),
    ] = "own",
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
    auto_resume: Annotated[
        bool,
        typer.Option(
            "--auto-resume",
            help="Begin, or go on if there is a checkpoint in --out: for launchers that start a command again.",
        ),
    ] = False,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Begin with the weights of this run, or of an installed model or one of the hub, in its network; its "
            "other settings are taken too.",
        ),
    ] = None,
    distill: Annotated[
        bool,
        typer.Option(
            "--distill", help="Learn to make in one step what two steps of the run in --start make; takes a quarter."
        ),
    ] = False,
    score: Annotated[
        bool,
        typer.Option(
            "--score", help="Train the run in --start, best a distilled one, on GED² of its one-step samples itself."
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")] = False,
    device: options.Device = None,
    as_json: options.AsJson = False,
) -> None:
    """Train a model on images and masks.

    Example: `medsegdiff train data/isic --out runs/isic --minutes 8`

    On several GPUs: `accelerate launch -m medsegdiff train …` or `torchrun --nproc-per-node 4 -m medsegdiff train …`;
    `--set train.sharding=true` splits the network over them. On several machines: see docs/cluster.md.
    """
    from medsegdiff.hub.place import place_of
    from medsegdiff.training.plan import config_for
    from medsegdiff.training.run import Run

    if auto_resume and Run(out).resumable:  # with the network, the recipe and the beginning that it has
        resume, preset, recipe, start, distill, score = True, None, "own", None, False, False
    begun = None if start is None else place_of(start)
    config = config_for(
        out,
        preset=preset,
        recipe=recipe,
        changes=set_ or [],
        minutes=minutes,
        resume=resume,
        start=begun,
        distill=distill,
        score=score,
        device=device,
    )
    if dry_run:
        from medsegdiff.config.schema import as_yaml
        from medsegdiff.training.plan import plan

        result(as_yaml(plan(data, config, device=device, track=track).config))
        return
    from accelerate import PartialState

    from medsegdiff.training.train import train as run

    outcome = run(data, out, config, resume=resume, start=begun, device=device, console=people, track=track)
    if PartialState().is_main_process:
        _report(outcome, data, device=device, as_json=as_json)
    if outcome.reason == "interrupted":
        raise typer.Exit(command.Exit.INTERRUPTED)


def _report(outcome: Outcome, data: str, *, device: str | None, as_json: bool) -> None:
    from medsegdiff.io.atomic import to_json
    from medsegdiff.registry import used

    info(f"Training {outcome.reason} at step {outcome.step}.")
    if outcome.best_dice >= 0:
        info(f"Best validation Dice {outcome.best_dice:.4f} at step {outcome.best_step}.")
    if outcome.skipped:
        info(f"{outcome.skipped} steps were skipped for a loss or gradient that was not finite.")
    info(f"Curves: {outcome.folder / 'curves.png'} · pictures: {outcome.folder / 'validation'}")
    if outcome.reason == "interrupted":
        needed = (f"--plugin={plugin['file']}" for plugin in used(()) if "file" in plugin)
        same = ["train", data, "--out", str(outcome.folder), *([f"--device={device}"] if device else []), *needed]
        info(f"Go on with: medsegdiff {shlex.join(same)} --resume")
    if outcome.reason == "finished already":
        info(f"To go on: --resume --set train.max_steps={2 * outcome.step}, or --resume --minutes with a longer time.")
    info(f"Segment with: medsegdiff segment IMAGES --model {shlex.quote(str(outcome.folder))} --out masks")
    result(to_json(dataclasses.asdict(outcome)) if as_json else str(outcome.folder))
