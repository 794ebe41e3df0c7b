"""``medsegdiff benchmark``."""

from __future__ import annotations

import typer

from medsegdiff.cli import benchmark_speed, benchmark_train

app = typer.Typer(help="Measure on this machine what the presets cost.", no_args_is_help=True)
app.command("speed")(benchmark_speed.speed)
app.command("train")(benchmark_train.train)
