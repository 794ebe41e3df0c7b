"""``medsegdiff benchmark``."""

from __future__ import annotations

import typer

from medsegdiff.cli import benchmark_ensemble, benchmark_speed, benchmark_train

app = typer.Typer(
    help="Measure: what presets cost on this machine, and Dice against the number of members.", no_args_is_help=True
)
app.command("speed")(benchmark_speed.speed)
app.command("train")(benchmark_train.train)
app.command("ensemble")(benchmark_ensemble.ensemble)
