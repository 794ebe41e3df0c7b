"""Options that several commands have, each defined once."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from medsegdiff.cli import complete

DEVICES = "cpu, cuda, mps; default: the best there is."


class Format(StrEnum):
    """How a table is written."""

    TEXT = "text"
    CSV = "csv"
    LATEX = "latex"
    MARKDOWN = "markdown"
    HTML = "html"


def out_folder(help_: str) -> Any:
    """Say what goes into the folder ``--out``."""
    return typer.Option("--out", "-o", file_okay=False, help=help_, show_default=False)


def out_file(help_: str) -> Any:
    """Say what goes into the file ``--out``."""
    return typer.Option("--out", "-o", help=help_, show_default=False)


def _some(help_: str, *names: str, **options: Any) -> Any:
    return typer.Option(*names, help=help_, show_default=False, **options)


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Models = Annotated[
    list[Path],
    typer.Option(
        "--model",
        "-m",
        help="Folder of a run, name of an installed model, or ORGANISATION/NAME on the Hugging Face hub; several, "
        "with commas between, segment together.",
    ),
]
Device = Annotated[str | None, _some(DEVICES, "--device", "-d", autocompletion=complete.devices)]
DicomCodes = Annotated[
    Path | None,
    _some(
        "YAML file of what DICOM calls structures: 'liver: SCT:10200004'. Those without are tissue.",
        "--dicom-codes",
        exists=True,
        dir_okay=False,
    ),
]
Precisions = Literal["auto", "fp32", "bf16", "fp16"]
"""Those of the configuration, which takes long to import."""
Precision = Annotated[Precisions, typer.Option(help="auto, fp32, bf16 or fp16.")]
Weights = Annotated[Literal["best", "last"], typer.Option(help="Weights of the run: best or last.")]
Set = Annotated[
    list[str] | None,
    _some("Change a value: section.key=value; may be repeated.", "--set", autocompletion=complete.settings),
]
Reading = Annotated[
    list[str] | None,
    _some("How to read the data: data.key=value; may be repeated.", "--set", autocompletion=complete.readings),
]
Preset = Annotated[
    str | None,
    _some("Name of a preset (medsegdiff list presets), or a YAML file.", "--preset", autocompletion=complete.presets),
]
Presets = Annotated[
    list[str] | None, typer.Argument(help="Names of presets, or YAML files.", autocompletion=complete.presets)
]
Members = Annotated[int | None, _some("Size of the ensemble; default: the model's (10).", min=1)]
Steps = Annotated[int | None, _some("Steps of the sampler; default: the model's (20).", min=1)]
Sampler = Annotated[
    str | None, _some("ddpm, ddim, dpmpp-1, dpmpp-2m or dpmpp-sde-2m.", autocompletion=complete.samplers)
]
Spacing = Annotated[str | None, _some("trailing, linspace, logsnr or regions.", autocompletion=complete.spacings)]
Fusion = Annotated[str | None, _some("staple, mean, majority or dice.", autocompletion=complete.fusions)]
Split = Annotated[str | None, _some("Only this part (train, val, test) of the split.")]
TableFormat = Annotated[Format, typer.Option("--format", help="text, csv, latex, markdown or html.")]
