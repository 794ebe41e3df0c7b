"""``medsegdiff benchmark``."""

from __future__ import annotations

import typer

from medsegdiff.cli import benchmark_ensemble

app = typer.Typer(help="Measure what the paper measured: figure 3.", no_args_is_help=True)
app.command("ensemble")(benchmark_ensemble.ensemble)
