"""Three ways to spend fewer steps, beside plain sampling: a start at the anchor, self-conditioning, distillation.

python benchmarks/shortcuts.py --cases 24
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from isic2016 import learn
from jaxtyping import Float
from steps import measure, references
from torch import Tensor

from medsegdiff.checkpoint import load_config
from medsegdiff.cli import guard
from medsegdiff.config.run import Config
from medsegdiff.diffusion.process import encode
from medsegdiff.diffusion.samplers import SAMPLERS, Denoise, Table, sample
from medsegdiff.diffusion.schedule import Level
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.models.base import MODELS, size_of
from medsegdiff.models.diffusion_unet import DiffusionUNet
from medsegdiff.models.medsegdiff_v2 import MedSegDiffV2
from medsegdiff.types import Condition

HERE = Path(__file__).parent
SHOWN = {"dice": "Dice", "agreement": "agreement", "ece_near": "ECE near", "ged": "GED² (10)"}
SELF_CONDITIONED = {"phantom": (("regions", 5), ("trailing", 4), ("trailing", 2), ("trailing", 1))}
"""Data set → spacings and steps; a network of its own has to be trained."""
WORDS = """All with DPM-Solver++(2M), 10 members, fused by STAPLE, `v2-fast-tiny` at 64 px.

- *From the anchor*: the sampler starts at time s·T from the anchor's probabilities with the noise of that time
  (truncated diffusion), and visits evenly spaced times from there.
- *Self-conditioned* (Chen et al., 2023, Analog Bits): the Diffusion Model also sees its own prediction of the step
  before. Trained like the plain network, for as many steps; half of the batches cost a forward pass more. On the
  phantom alone.
- *Distilled*: one round of progressive distillation (Salimans & Ho, 2022), from 2 steps to 1: the network learns to
  say at once what two steps (trailing) of its teacher come to from the same noise, in a quarter of the steps that the
  teacher was trained for.

How to read it: one plain step is the mean of all masks, and its members hardly differ. Distilled, one step comes out
as a hundred do, on both data sets; that is what is offered. A start at the anchor with half of the noise comes near it
without any training, with the anchor's errors in every member; it is not offered. Self-conditioning gained Dice and
lost some spread; it is not offered. All of it by one training run each and few images: small differences mean nothing.
"""


def main() -> None:
    """Measure what was not measured, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/isic2016"))
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="Where benchmarks/fast.py left its runs.")
    parser.add_argument("--cases", type=int, default=24)
    given = parser.parse_args()
    page = [
        "# Shortcuts to fewer steps",
        "",
        f"Command: `python benchmarks/shortcuts.py --cases {given.cases}` after `python benchmarks/fast.py`; "
        f"{given.cases} test images.",
        "",
        WORDS,
    ]
    for name, data in (("phantom", given.runs / "fast_phantom"), ("isic", given.data)):
        page += study(Study(name, data, given.runs, given.cases))
    (HERE / "shortcuts.md").write_text("\n".join(page), encoding="utf-8")
    print("\n".join(page))


@dataclass(frozen=True)
class Study:
    """A data set, and where its runs are."""

    name: str
    data: Path
    runs: Path
    cases: int

    @property
    def plain(self) -> Path:
        """The run that the others start from or are measured against."""
        return self.runs / f"fast_{self.name}_fast"


def study(of: Study) -> list[str]:
    """Measure each way once for all time, and write its part of the page."""
    kept = of.runs / f"shortcuts_{of.name}_{of.cases}.json"
    found: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}
    cases = references(of.data, of.plain, of.cases)
    for title, run, context, options in ways(of):
        if title not in found:
            with context:
                found[title] = measure(run(), cases, **options)
            kept.write_text(json.dumps(found))
            print(of.name, title, found[title], flush=True)
    shown = {key: head for key, head in SHOWN.items() if key in next(iter(found.values()))}
    lines = [f"## {of.name}", "", "| | " + " | ".join(shown.values()) + " |", "|---" * (len(shown) + 1) + "|"]
    rows = {title: found[title] for title, *_ in ways(of)}
    lines += [f"| {title} | " + " | ".join(f"{row[key]:.3f}" for key in shown) + " |" for title, row in rows.items()]
    return [*lines, ""]


Way = tuple[str, Callable[[], Segmenter], AbstractContextManager[Any], dict[str, Any]]


def ways(of: Study) -> Iterator[Way]:
    """List what is measured: title, segmenter, what is replaced meanwhile, options of sampling."""
    plain = partial(Segmenter.from_pretrained, of.plain)
    for spacing, steps in (("logsnr", 100), ("regions", 5), ("trailing", 4), ("trailing", 2), ("trailing", 1)):
        yield f"plain, {steps} × {spacing}", plain, nullcontext(), {"spacing": spacing, "steps": steps}
    for start in (0.75, 0.5, 0.25):
        for steps in (1, 2, 4):
            sampler = partial(FromAnchor, start=start)
            context = patch("medsegdiff.inference.segmenter.EnsembleSampler", sampler)
            yield f"from the anchor at {start} T, {steps}", plain, context, {"steps": steps}
    yield "distilled, 1 (`train --distill`)", partial(distilled, of), nullcontext(), {}
    for spacing, steps in SELF_CONDITIONED.get(of.name, ()):
        options = {"spacing": spacing, "steps": steps}
        yield f"self-conditioned, {steps} × {spacing}", partial(self_conditioned, of), nullcontext(), options


class FromAnchor(EnsembleSampler):
    """Starts at the noised anchor instead of pure noise."""

    def __init__(self, *args: Any, start: float, **options: Any) -> None:
        super().__init__(*args, **options)
        first, steps = start * (self.process.schedule.num_train_timesteps - 1), self.sampling.steps
        times = [first * (1 - step / steps) for step in range(steps)]
        self.table = SAMPLERS[self.sampling.sampler].factory(self.process.schedule, times)

    def _denoised(
        self, condition: Condition, members: Sequence[tuple[int, int]], *args: Any, **options: Any
    ) -> Float[Tensor, "n k h w"]:
        logits = condition.logits[[index for _, index in members]].float()
        x_0, level = (
            encode(self.process.labels.activate(logits)),
            Level.of(self.process.schedule.lam_at(self.table[0].t)),
        )

        def late(denoise: Denoise, x_T: Tensor, table: Table, **more: Any) -> Tensor:
            return sample(denoise, level.alpha * x_0 + level.sigma * x_T, table, **more)

        with patch("medsegdiff.inference.ensemble.sample", late):
            return super()._denoised(condition, members, *args, **options)


@MODELS.register("self-conditioned", kind="diffusion", paper="Chen et al., Analog Bits", year=2023)
class SelfConditioned(MedSegDiffV2):
    """MedSegDiff-V2 whose Diffusion Model also sees what it predicted before.

    The prediction of a walk's last step is remembered; a walk begins where time rises.
    """

    def __init__(self, config: Any, *, image_channels: int, mask_channels: int) -> None:
        super().__init__(config, image_channels=image_channels, mask_channels=mask_channels)
        seeing = config.model_copy(update={"see_image": True})  # of what is concatenated: here the prediction
        self.diffusion_model = DiffusionUNet(mask_channels, mask_channels, seeing)
        self.last: tuple[float, Tensor] | None = None

    def at(self, t: Tensor, size: tuple[int, int]) -> Any:
        """Keep the times beside what is made of them."""
        return t, super().at(t, size)

    def denoise(self, x_t: Tensor, time: Any, condition: Any) -> Tensor:
        """Predict from x_t and the prediction before."""
        t, own = time
        before = self.last
        walking = before is not None and float(t[0]) < before[0] and before[1].shape == x_t.shape
        seen = before[1] if before is not None and walking else torch.zeros_like(x_t)
        logits = super().denoise(x_t, own, replace(condition, image=seen))
        self.last = (float(t[0]), encode(logits.detach().float().sigmoid()))
        return logits

    def forward(self, image: Tensor, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Look and denoise for training, in half of the batches with a prediction to see."""
        condition, seen, time = self.condition(image), torch.zeros_like(x_t), super().at(t, size_of(image))
        if torch.rand(()) < 0.5:
            with torch.no_grad():
                first = super().denoise(x_t, time, replace(condition, image=seen))
                seen = encode(first.float().sigmoid())
        return super().denoise(x_t, time, replace(condition, image=seen)), condition.logits


def self_conditioned(of: Study) -> Segmenter:
    """Train the self-conditioned network like the plain one, if that has not been done."""
    run = of.runs / f"shortcuts_{of.name}_self"
    if not (run / "model.safetensors").exists():
        config = load_config(of.plain)
        learn(of.data, run, config.model_copy(update={"model": named(config, "self-conditioned")}))
    return Segmenter.from_pretrained(run)


def named(config: Config, name: str) -> Any:
    """Give the settings of the network another name."""
    return config.model_copy(update={"model": config.model.model_copy(update={"name": name})}).model


def distilled(of: Study) -> Segmenter:
    """Distil the plain network into one step, as ``medsegdiff train --start RUN --distill`` does."""
    run = of.runs / f"shortcuts_{of.name}_distilled"
    if not (run / "model.safetensors").exists():
        options = ["train", str(of.data), "--out", str(run), "--start", str(of.plain), "--distill"]
        subprocess.run([sys.executable, "-m", "medsegdiff", *options], check=True)
    return Segmenter.from_pretrained(run)


if __name__ == "__main__":
    guard(main)
