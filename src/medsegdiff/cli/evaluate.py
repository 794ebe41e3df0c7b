"""``medsegdiff evaluate``."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from medsegdiff.cli import complete, options
from medsegdiff.cli.console import info, people, result, track, warn

if TYPE_CHECKING:
    from medsegdiff.evaluation import Evaluation
    from medsegdiff.metrics.lesions import LesionRule


WITH = "With --lesions: "


def evaluate(
    predictions: Annotated[
        Path, typer.Argument(help="Masks, probabilities or members, or what 'medsegdiff segment' wrote.")
    ],
    references: Annotated[Path, typer.Argument(help="Folder of masks, or a data folder with masks/.")],
    out: Annotated[Path | None, options.out_folder("Folder for metrics.csv, metrics.json and report.html.")] = None,
    split: Annotated[str | None, typer.Option(help="Part of split.csv that the predictions must cover.")] = None,
    as_: Annotated[
        Literal["auto", "masks", "probabilities", "members"],
        typer.Option("--as", help="What the predictions are; members: a folder of masks for each."),
    ] = "auto",
    fusion: Annotated[
        str,
        typer.Option(
            help="How members are fused where no fused mask lies beside them.", autocompletion=complete.fusions
        ),
    ] = "staple",
    tolerance: Annotated[float, typer.Option(min=0, help="Of NSD, in mm; pixels for pictures.")] = 1.0,
    reference: Annotated[
        Literal["majority", "union", "intersection", "each"],
        typer.Option(
            help="What several raters are taken for; majority: a tie is foreground, so of two it is their union; "
            "each: scores against each, averaged."
        ),
    ] = "majority",
    lesions: Annotated[
        Literal["components", "drawn"] | None,
        typer.Option(
            help="Score lesion by lesion too: F1, lesion-wise Dice, panoptic quality. Lesions of the references are "
            "connected components, or as drawn, where each has a mask file of its own.",
            show_default=False,
        ),
    ] = None,
    lesion_iou: Annotated[
        float | None, typer.Option(min=0, max=1, help=f"{WITH}found where the IoU is above. [default: 0.5]")
    ] = None,
    lesion_above: Annotated[
        float | None,
        typer.Option(min=0, help=f"{WITH}only larger ones, in mm³; pixels for pictures. [default: 0]"),
    ] = None,
    lesion_dilation: Annotated[
        int | None,
        typer.Option(
            min=0, help=f"{WITH}those that meet when grown by so many pixels are one for lesion_dice. [default: 3 or 0]"
        ),
    ] = None,
    connectivity: Annotated[
        int | None, typer.Option(help=f"{WITH}neighbours of a pixel: 4, 8; 6, 18, 26. [default: all]")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="One of several parts that as many processes score into the same --out: 1/8 … 8/8; array: as SLURM's "
            "array says.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[bool, typer.Option("--report/--no-report", help="Write report.html too.")] = True,
    set_: options.Reading = None,
    as_json: options.AsJson = False,
) -> None:
    """Score segmentations: overlap, borders, calibration and uncertainty, against one or several raters.

    Example: `medsegdiff evaluate masks data/isic --split test --out scores`
    """
    from medsegdiff.config.load import load_preset
    from medsegdiff.errors import ConfigError
    from medsegdiff.evaluation.asked import Asked
    from medsegdiff.evaluation.scoring import evaluate_part, evaluate_parts, score
    from medsegdiff.inference.team import part_of
    from medsegdiff.io.atomic import to_json

    asked = Asked(
        predictions,
        references,
        split=split,
        data=load_preset("v2-tiny", set_ or []).data,
        kind=as_,
        fusion=fusion,
        tolerance=tolerance,
        reference=reference,
        lesions=_rule(lesions, iou=lesion_iou, above=lesion_above, dilation=lesion_dilation, connectivity=connectivity),
    )
    if part is None:
        made = score(asked, track=track)
    elif out is None:
        raise ConfigError(f"--part is {part}, but parts meet in a folder. Add --out.")
    else:
        if left := evaluate_part(asked, out, part_of(part), track=track):
            info(f"{part_of(part)} is scored; not yet: {', '.join(left)}. 'medsegdiff collect {out}' joins all.")
            result(str(out))
            return
        made = evaluate_parts(out, track=track)
    if out is not None:
        keep(made, out, report=report)
    if as_json:
        result(to_json(made.to_dict()))
    else:
        show(made)
    for warning in made.warnings:
        warn(warning)


def keep(made: Evaluation, out: Path, *, report: bool = True) -> None:
    """Write scores, and their page; that of earlier scores goes."""
    from medsegdiff.evaluation.results import METRICS_FILE
    from medsegdiff.report.evaluation import write_page

    page = out / "report.html"
    if (out / METRICS_FILE).is_file():
        page.unlink(missing_ok=True)
    made.save(out)
    info(f"Scores: {out / 'metrics.csv'}, {out / 'metrics.json'}")
    if report:
        write_page(made, page, command=shlex.join(["medsegdiff", *sys.argv[1:]]))
        info(f"Look at {page}")


def _rule(instances: Literal["components", "drawn"] | None, **given: int | float | None) -> LesionRule | None:
    """Make the rule for lesions of what was given of it."""
    from medsegdiff.errors import ConfigError
    from medsegdiff.metrics.lesions import LesionRule

    known: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if instances is None and known:
        told = ", ".join(f"{name} {value:g}" for name, value in known.items())
        raise ConfigError(
            f"The {told} of lesions is given, but not what lesions are. Add --lesions components or drawn."
        )
    return None if instances is None else LesionRule(instances, **known)


def show(made: Evaluation) -> None:
    """Print the summary as a table, with the conventions behind the numbers."""
    people.print(_table(made))
    if made.failure:
        people.print(_failures(made))
    for name, said in made.predicted.items():
        told = said.to_dict()
        info(
            f"Predicted Dice of {name}: off by {told['mean_error']:.3f}; the bound holds in {told['covered']:.0%} of "
            f"{len(said.true)} cases; accepted {told['accepted']:.0%}, with a Dice of {told['dice_of_accepted']:.3f} "
            f"(to be seen: {told['dice_of_reviewed']:.3f})."
        )
    for name, text in made.conventions.items():
        info(f"{name}: {text}")
    info(f"empty masks: {made.empty}")
    for name, of in made.all_lesions.items():
        info(f"lesions{'' if name == 'all' else f' of {name}'}: {of}")
    for measure, numbers in made.summary.items():
        result(f"{measure} {numbers.mean:.6f}")


def _failures(made: Evaluation) -> Table:
    """List how well each doubt tells which cases failed."""
    table = Table(title="Failure detection over cases: which have a low Dice?")
    for heading in ("doubt", "rank correlation", "AURC", "excess"):
        table.add_column(heading, justify="left" if heading == "doubt" else "right")
    for name, of in made.failure.items():
        table.add_row(name, f"{of['spearman']:.3f}", f"{of['aurc']:.4f}", f"{of['excess_aurc']:.4f}")
    return table


def _table(result: Evaluation) -> Table:
    """List the means: a column for all structures, and one for each where there are several."""
    from medsegdiff.evaluation import Measure
    from medsegdiff.report.evaluation import span

    setup, several = result.setup, len(result.setup.structures) > 1
    groups = f", {setup.groups} groups" if setup.groups else ""
    members = f", {span(setup.members_least or 0, setup.members)} members" if setup.members else ""
    members = f", {setup.members_are}" if setup.members_are else members
    table = Table(title=f"{len(result.scores)} cases{groups}{members}, raters {span(*(setup.raters or (1, 1)))}")
    if result.reference_is:
        table.caption = f"Reference: {result.reference_is[0].lower()}{result.reference_is[1:]}"
    for heading in ("metric", "mean", "95 % interval", *(setup.structures if several else ())):
        table.add_column(heading, justify="left" if heading == "metric" else "right")
    for of, mean in result.summary.items():
        if of.structure:
            continue
        interval = "–" if mean.ci95 is None else "{:.4f} – {:.4f}".format(*mean.ci95)
        each = [result.summary.get(Measure(of.metric, name, of.rater)) for name in setup.structures if several]
        table.add_row(
            str(of), f"{mean.mean:.4f}", interval, *("–" if one is None else f"{one.mean:.4f}" for one in each)
        )
    return table
