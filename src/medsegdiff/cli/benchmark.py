"""``medsegdiff benchmark``."""

from __future__ import annotations

import typer

from medsegdiff.cli.benchmark_speed import speed
from medsegdiff.cli.benchmark_train import train

app = typer.Typer(help="Measure on this machine what the presets cost.", no_args_is_help=True)
app.command("speed")(speed)
app.command("train")(train)
