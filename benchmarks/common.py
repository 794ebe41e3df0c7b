"""What the benchmarks share: a trial (train, segment, score, each once for all time), tables, timing, differences."""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from medsegdiff.cli.console import track
from medsegdiff.config.load import load_preset
from medsegdiff.config.run import Config
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.split import evenly
from medsegdiff.evaluation import Evaluation, evaluate
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.metrics.paired import bootstrap_interval
from medsegdiff.models.checkpoint import load_config
from medsegdiff.pictures.cases import case_grid, saved_rows
from medsegdiff.pictures.curves import save
from medsegdiff.training.run import Run
from medsegdiff.training.train import train

HERE = Path(__file__).parent
CPU = torch.device("cpu")


def parser(about: str | None, *, data: str = "", runs: str = "") -> argparse.ArgumentParser:
    """Make a command line; ``data`` and ``runs`` are defaults of their options."""
    made = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    if data:
        made.add_argument("--data", type=Path, default=Path(data))
    if runs:
        made.add_argument("--runs", type=Path, default=Path(runs), help="Where runs and masks go.")
    return made


Clock = Callable[[], float]
"""Gives seconds. `time.process_time` gives those that the processors worked, whatever else they did beside."""


def timed(work: Callable[[], object], *, clock: Clock = time.perf_counter) -> float:
    """Give the seconds that something takes."""
    start = clock()
    work()
    return clock() - start


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Print rows as they come, and give the table in Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in rows:
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
    return lines


def write_page(name: str, lines: Iterable[str], *, folder: Path = HERE) -> None:
    """Write a page, by default beside the scripts, and print it."""
    text = "\n".join([*lines, ""])
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)


def machine() -> str:
    """Say what computes, for a page."""
    name = platform.processor() or platform.machine()
    return f"{name}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def learn(data: Path, run: Path, config: Config, *, clock: Clock = time.monotonic) -> None:
    """Train from the start, in one go: what is timed is all of it; ``train.max_minutes`` goes by the clock."""
    if train(data, run, config, console=Console(), track=track, clock=clock).reason == "interrupted":
        raise KeyboardInterrupt


@dataclass(frozen=True)
class Trial:
    """A run and what it made of the test images; what was done in an earlier call is not done again."""

    name: str
    data: Path
    runs: Path

    @property
    def run(self) -> Path:
        """The training run."""
        return self.runs / self.name

    @property
    def out(self) -> Path:
        """What it made of the test images."""
        return self.runs / f"{self.name}_masks"

    @property
    def seconds(self) -> dict[str, float]:
        """How long ``train`` and ``segment`` took."""
        file = self.runs / f"{self.name}_seconds.json"
        return json.loads(file.read_text()) if file.exists() else {}

    @property
    def config(self) -> ResolvedConfig:
        """What was trained."""
        return load_config(self.run)

    @property
    def log(self) -> list[dict[str, Any]]:
        """The lines of its log."""
        return Run(self.run).lines()

    @property
    def steps(self) -> int:
        """How many were made."""
        return int([line["step"] for line in self.log][-1])

    @property
    def best(self) -> int:
        """The step of the best validation."""
        return int(max((line for line in self.log if "dice" in line), key=lambda line: line["dice"])["step"])

    @property
    def cases(self) -> dict[str, int]:
        """Part → how many."""
        counts: dict[str, int] = json.loads((self.run / "run.json").read_text())["cases"]
        return counts

    def learn(self, config: Config | None = None, *, clock: Clock = time.monotonic) -> None:
        """Train with a configuration, by default that in ``NAME.yaml``; a run that was interrupted is refused."""
        if "train" not in self.seconds:
            wanted = config or load_preset(str(HERE / f"{self.name}.yaml"))
            self._time("train", lambda: learn(self.data, self.run, wanted, clock=clock))

    def segment(self, *, most: int | None = None, **options: Any) -> None:
        """Segment the test images, or so many of them, and save the members; what was interrupted begins anew."""
        if "segment" not in self.seconds:
            files = find_inputs([self.data], split_file=self.run / "split.csv", split="test")
            files = files if most is None else evenly(files, most)
            model = Segmenter.from_pretrained(self.run)
            work = partial(segment_files, model, files, self.out, save_members=True, overwrite=True, track=track)
            self._time("segment", partial(work, **options))

    def _time(self, stage: str, work: Callable[[], object]) -> None:
        took = self.seconds | {stage: timed(work)}
        (self.runs / f"{self.name}_seconds.json").write_text(json.dumps(took))

    def scores(self, parts: Mapping[str, str]) -> dict[str, Evaluation]:
        """Score what lies in some folders of the results; name of the row → folder."""
        config = self.config.data
        return {
            row: evaluate(self.out / part, self.data, split="test", data=config, track=track)
            for row, part in parts.items()
        }

    def draw_extremes(self, fused: Evaluation) -> list[str]:
        """Draw the best, the median and the worst case and the curves of training; give the lines that show them."""
        ranked = fused.scores.ranked("dice")
        lines = []
        for which, case in {"best": ranked[0], "median": ranked[len(ranked) // 2], "worst": ranked[-1]}.items():
            note = {case: f"Dice {fused.scores.value(case, 'dice'):.3f}"}
            rows = saved_rows(self.out, self.data, note, config=self.config.data)
            save(case_grid(rows, max_members=5), HERE / f"{self.name}_{which}.png")
            lines.append(f"![{which}]({self.name}_{which}.png)")
        (HERE / f"{self.name}_curves.png").write_bytes((self.run / "curves.png").read_bytes())
        return [*lines, "", f"![training]({self.name}_curves.png)"]


def difference(a: Evaluation, b: Evaluation, named: str) -> str:
    """Compare two scores of the same images; ``named`` says what is subtracted from what."""
    gains = np.array(a.scores.column("dice")) - np.array(b.scores.column("dice"))
    low, high = bootstrap_interval(gains) or (0.0, 0.0)
    return f"| {named} | {gains.mean():+.4f} [{low:+.4f}, {high:+.4f}] | {np.mean(gains > 0):.0%} of images |"
