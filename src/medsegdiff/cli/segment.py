"""``medsegdiff segment``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medsegdiff.cli import command, complete, options
from medsegdiff.cli.asked import cleaning_of, codes_in, listed_in, members_of, parts_of, runs_of, share_of
from medsegdiff.cli.console import info, result, track, warn
from medsegdiff.errors import ConfigError
from medsegdiff.inference import RECORD

if TYPE_CHECKING:
    from medsegdiff.inference.tally import Tally

SHOWN = {"masks": "Masks", "overlay": "look at"}
"""Parts of the results that a person is told of."""


def segment(
    model: options.Models,
    out: Annotated[Path, options.out_folder("Folder for masks, maps and overlays.")],
    images: Annotated[
        list[Path] | None, typer.Argument(help="Pictures, NIfTI, DICOM series, folders of them, data folders.")
    ] = None,
    input_list: Annotated[
        str | None,
        typer.Option(help="File with a path to an image on each line, or - for stdin.", show_default=False),
    ] = None,
    members: Annotated[
        str | None,
        typer.Option(
            help="Size of the ensemble, or auto: each image until its mask is stable. Default: the model's (10).",
            show_default=False,
        ),
    ] = None,
    candidates: Annotated[
        int | None,
        typer.Option(
            help="Draw so many masks, decide with all of them, and keep as members those that stand for all.",
            show_default=False,
        ),
    ] = None,
    steps: options.Steps = None,
    sampler: options.Sampler = None,
    spacing: options.Spacing = None,
    mode: Annotated[
        Literal["ensemble", "mean"] | None,
        typer.Option(help="mean: the probability alone, in one step, without members.", show_default=False),
    ] = None,
    fusion: options.Fusion = None,
    views: Annotated[
        int | None,
        typer.Option(help="Mirrors through which images are seen, shared out: 1, 2 or 4.", show_default=False),
    ] = None,
    slice_noise: Annotated[
        Literal["shared", "own"] | None,
        typer.Option(help="Noise of a member in the slices of a volume: shared keeps it coherent.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed gives the same members.")] = 0,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Masks drawn at once, of one image or several; default: 16, on a GPU what fits. Changes no result.",
            min=1,
            show_default=False,
        ),
    ] = None,
    split: options.Split = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="largest: removes all other components; of one structure disc=largest.", show_default=False),
    ] = None,
    remove_below: Annotated[
        list[str] | None,
        typer.Option(
            help="Removes smaller components: 50mm3, 1mL, 20mm2, 100px; of one structure disc=100px.",
            show_default=False,
        ),
    ] = None,
    fill_holes: Annotated[
        bool, typer.Option("--fill-holes", help="Fills background that a structure encloses.")
    ] = False,
    fill_holes_in: Annotated[
        list[str] | None, typer.Option(help="The same of one structure.", show_default=False)
    ] = None,
    no_cleaning: Annotated[
        bool, typer.Option("--no-cleaning", help="Leaves masks as they are drawn, whatever 'calibrate' has found.")
    ] = False,
    write: Annotated[
        list[str] | None,
        typer.Option(
            help="What is written, with commas between: masks, labels, probability, uncertainty, anchor, overlay, "
            "dicom-seg (by default), members, rtstruct, dicom-sr, dicom-pm, dicom-fractional, geojson, or all.",
            show_default=False,
            autocompletion=complete.parts,
        ),
    ] = None,
    dicom_codes: options.DicomCodes = None,
    review_below: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Mark for review what is predicted a lower Dice (after 'calibrate').", show_default=False
        ),
    ] = None,
    review_share: Annotated[
        str | None,
        typer.Option(help="Mark this share of the images, the worst first, such as 10%.", show_default=False),
    ] = None,
    save_members: Annotated[bool, typer.Option("--save-members", hidden=True)] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the results of an earlier time.")] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Keep the results that are valid (image, weights and options are the same), do the others."
        ),
    ] = False,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="With --resume: try again what has failed.")
    ] = False,
    part: Annotated[
        str | None,
        typer.Option(
            help="One of several parts that as many processes do into the same folder: 1/8 … 8/8; array: as SLURM's "
            "array says.",
            show_default=False,
        ),
    ] = None,
    weights: options.Weights = "best",
    device: options.Device = None,
    precision: options.Precision = "auto",
    compiled: Annotated[bool, typer.Option("--compile", help="Compile steps first: for many images on a GPU.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Segment images with an ensemble: of diffusion samples, or of several runs.

    Example: `medsegdiff segment photos/ --model runs/isic --out masks --members 10 --steps 20`

    On several GPUs: `torchrun --nproc-per-node 4 -m medsegdiff segment …`; on a cluster: see docs/cluster.md.
    """
    from medsegdiff.inference.files import segment_files
    from medsegdiff.inference.folder import PARTS
    from medsegdiff.inference.inputs import find_inputs
    from medsegdiff.inference.launched import device_of, team_of
    from medsegdiff.inference.review import Review
    from medsegdiff.inference.runs import common_split
    from medsegdiff.inference.segmenter import Segmenter
    from medsegdiff.inference.writer import USUAL
    from medsegdiff.io.atomic import to_json

    number, parts, runs = members_of(members), parts_of(write or [], USUAL, PARTS), runs_of(model)
    if save_members:
        warn("--save-members is '--write all' now; the old name will go.")
        parts = (*parts, "members")
    team = team_of(part)
    if not team.alone:
        info(f"This is {team}; all write into {out}.")
    segmenter = Segmenter.from_runs(
        runs, device=device or device_of(team), precision=precision, compiled=compiled, weights=weights
    )
    split_file = common_split(runs, split) if split else None
    passed_over: list[str] = []
    given = [*(images or []), *(listed_in(input_list) if input_list else [])]
    if not given:
        raise ConfigError("There is nothing to segment. Name images or folders, or give a list with --input-list.")
    files = find_inputs(given, like=segmenter.config, split_file=split_file, split=split, noted=passed_over.append)
    for line in passed_over:
        warn(line)
    holes = ["yes"] * fill_holes + [f"{name}=yes" for name in fill_holes_in or []]
    structures = segmenter.config.spec.labels.structures
    cleaning = cleaning_of(structures, keep or [], remove_below or [], holes, none=no_cleaning)
    finished = segment_files(
        segmenter,
        files,
        out,
        parts=parts,
        split_file=split_file,
        overwrite=overwrite,
        resume=resume,
        retry_failed=retry_failed,
        team=team,
        review=Review(review_below, share_of(review_share)),
        track=track,
        noted=info,
        members=number,
        candidates=candidates,
        steps=steps,
        sampler=sampler,
        spacing=spacing,
        fusion=fusion,
        views=views,
        mode=mode,
        shared_noise=None if slice_noise is None else slice_noise == "shared",
        seed=seed,
        batch_size=batch_size,
        cleaning=cleaning,
        codes=None if dicom_codes is None else codes_in(dicom_codes, structures),
    )
    tally, told = finished.tally, runs[0]
    info(f"Segmented {finished.made} of {len(files)} images in {finished.seconds:.1f} s.")
    if tally.count and (members == "auto" or tally.chosen_of):
        info(f"Members: {tally.members()}.")
    if finished.rest:
        info(finished.rest)
    else:
        say(tally, out, run=told)
    if tally.count and not tally.judged and (review_below is not None or review_share is not None):
        named = ",".join(map(str, runs))
        warn(f"Nothing is predicted of these masks, or marked for review. First: 'medsegdiff calibrate {named} DATA'.")
    if as_json:
        done = [image.model_dump() for image in finished.done]
        made = {"out": str(out), "done": done, "failed": finished.failed, "passed_over": passed_over}
        result(to_json({**made, "seconds": finished.seconds}))
    elif tally.count:
        info(" · ".join(f"{name}: {out / part}" for part, name in SHOWN.items() if part in parts))
        result(str(out))
    command.ended(failed=len(finished.failed), done=tally.count)


def say(tally: Tally, out: Path, *, run: Path | str = "RUN") -> None:
    """Write the worklist of a folder of results, and say what a person should know of it."""
    if tally.warning():
        warn(f"{tally.warning()} 'medsegdiff doctor {run}' looks closer.")
    if tally.judged:
        from medsegdiff.report.worklist import write_worklist  # here: it imports what draws

        info(f"A human must see {tally.marked} of {tally.count} images: {write_worklist(out)}")
    if tally.failed:
        where = f", and in {RECORD}" if (out / RECORD).exists() else ""
        warn(f"{len(tally.failed)} images could not be segmented; the reasons are above{where}.")
    if tally.rest():
        warn(tally.rest())
