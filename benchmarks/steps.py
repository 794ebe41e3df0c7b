"""Fewer steps: Dice and what raters make of the ensemble against the number of steps, by sampler and spacing.

python benchmarks/steps.py --cases 12
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from common import HERE, parser, table, write_page
from matplotlib.figure import Figure

from medsegdiff.cli import guard
from medsegdiff.cli.console import track
from medsegdiff.config.data import DataConfig
from medsegdiff.data.open import list_cases
from medsegdiff.data.split import names_in
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.metrics.calibration import ece, near
from medsegdiff.metrics.distribution import agreement, ged
from medsegdiff.metrics.overlap import dice
from medsegdiff.pictures.curves import save

FULL = (1, 2, 4, 5, 10, 20, 50, 100)
WAYS = {
    ("dpmpp-2m", "logsnr"): FULL,
    ("dpmpp-2m", "regions"): FULL,
    ("dpmpp-2m", "trailing"): FULL,
    ("dpmpp-2m", "linspace"): FULL,
    ("ddim", "logsnr"): FULL,
    ("ddim", "trailing"): FULL,
    ("dpmpp-sde-2m", "logsnr"): FULL,
}
"""Sampler and spacing → numbers of steps; the first with 100 steps is what the others are judged against."""
METRICS = ("dice", "agreement", "ece_near", "ged")


def main() -> None:
    """Measure what was not measured, and write the page."""
    asked = parser(__doc__, data="../shared/data/isic2016", runs="runs")  # where benchmarks/fast.py left its runs
    asked.add_argument("--cases", type=int, default=12)
    asked.add_argument("--only", default="", help="Studies whose names hold this; no page.")
    given = asked.parse_args()
    phantom = given.runs / "fast_phantom"
    studies = {
        "phantom, v2-tiny": (given.runs / "fast_phantom_plain", phantom),
        "phantom, v2-fast-tiny": (given.runs / "fast_phantom_fast", phantom),
        "isic2016, v2-tiny": (given.runs / "fast_isic_plain", given.data),
        "isic2016, v2-fast-tiny": (given.runs / "fast_isic_fast", given.data),
    }
    lines = [
        "# Fewer steps",
        "",
        f"Command: `python benchmarks/steps.py --cases {given.cases}` after `python benchmarks/fast.py`; 64 px, "
        f"{given.cases} test images, 10 members, fused by STAPLE. "
        "100 steps of DPM-Solver++(2M) with log-SNR spacing are what the rest is judged against.",
        "",
        "How to read it: one step from pure noise is the mean of all masks, so its members agree where raters do not "
        "(agreement near 1, high GED²); spaced in log-SNR, two steps do the same and five are no better than four. "
        "Spaced evenly in time (trailing, linspace), the ensemble spreads from two steps on about as with 100. On the "
        "phantom `v2-tiny` pays for spread with Dice, at whatever spacing. The mean of one step (`--mode mean`) is as "
        "good a single mask as any.",
        "",
    ]
    for name, (run, data) in ((name, of) for name, of in studies.items() if given.only in name):
        lines += study(name, run, data, given.cases)
    if not given.only:
        write_page("steps", lines)


def study(name: str, run: Path, data: Path, count: int) -> list[str]:
    """Measure a run, each setting once for all time, and write its part of the page."""
    kept = run / f"steps_{count}.json"
    found: dict[str, dict[str, float]] = json.loads(kept.read_text()) if kept.exists() else {}
    segmenter = Segmenter.from_pretrained(run)
    cases = references(data, run, count)
    for (sampler, spacing), steps in WAYS.items():
        for number in track(steps, f"{name}: {sampler}, {spacing}"):
            key = f"{sampler} {spacing} {number}"
            if key not in found:
                found[key] = measure(segmenter, cases, sampler=sampler, spacing=spacing, steps=number)
                kept.write_text(json.dumps(found))
    if "mean" not in found:
        found["mean"] = measure(segmenter, cases, mode="mean")
        found["spread"] = spread_of_the_mean(segmenter, cases)
        kept.write_text(json.dumps(found))
    slug = name.replace(", ", "_")
    draw(found, HERE / f"steps_{slug}.png")
    return page(name, found, slug)


def references(data: Path, run: Path, count: int) -> dict[Path, np.ndarray]:
    """Read the masks of all raters of some test images, by image."""
    listing = list_cases(data, DataConfig())
    masks = listing.masks
    coding = masks.labels({0, 255}, task="binary")
    names = sorted(names_in(run / "split.csv", "test"))
    chosen = names[:: max(1, len(names) // count)][:count]
    return {listing.cases[name].images[0]: masks.read(name, coding)[:, 0].astype(bool) for name in chosen}


def measure(segmenter: Segmenter, cases: dict[Path, np.ndarray], **options: object) -> dict[str, float]:
    """Segment the images, and average what comes out."""
    rows = []
    results = list(segmenter.stream(list(cases), **({} if "mode" in options else {"members": 10}), **options))
    for result, raters in zip(results, cases.values(), strict=True):
        members, mask = result.members.astype(bool), result.mask.astype(bool)
        truth = 2 * raters.sum(axis=0) >= len(raters)
        p = result.probability[0] if len(members) == 1 else members.mean(axis=0)
        row = {"dice": dice(mask, truth, spacing=(1.0, 1.0)), "agreement": agreement(members)}
        row["ece_near"] = ece(p.astype(np.float64), raters.mean(axis=0), where=near(mask, *raters))
        if len(raters) > 1:
            row["ged"] = ged(members, raters).value
        rows.append(row)
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def spread_of_the_mean(segmenter: Segmenter, cases: dict[Path, np.ndarray]) -> dict[str, float]:
    """Compare the variance, over seeds, of the mean of ten members with and without antithetic noise."""
    found = {}
    chosen = list(cases)[:4]
    for antithetic in (False, True):
        sampling = segmenter.config.sampling.model_copy(update={"antithetic": antithetic})
        config = segmenter.config.model_copy(update={"sampling": sampling})
        drawn = Segmenter(segmenter.model, config)
        means = [
            [result.members.mean(axis=0) for result in drawn.stream(chosen, members=10, steps=5, seed=seed)]
            for seed in range(8)
        ]
        found["antithetic" if antithetic else "independent"] = float(np.var(np.array(means), axis=0).mean())
    return found


def draw(found: dict[str, dict[str, float]], path: Path) -> None:
    """Plot each number against steps, a line for each way."""
    metrics = [metric for metric in METRICS if metric in found["dpmpp-2m logsnr 100"]]
    figure = Figure(figsize=(3.3 * len(metrics), 3.2), layout="constrained")
    for axis, metric in zip(figure.subplots(1, len(metrics)), metrics, strict=True):
        for (sampler, spacing), steps in WAYS.items():
            values = [found[f"{sampler} {spacing} {number}"][metric] for number in steps]
            axis.plot(steps, values, ".-", linewidth=1, label=f"{sampler}, {spacing}")
        axis.set(xscale="log", xlabel="steps", title=metric)
        axis.grid(alpha=0.3)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=7)
    save(figure, path)


def page(name: str, found: dict[str, dict[str, float]], slug: str) -> list[str]:
    """Write the whole curve as a table."""
    metrics = [metric for metric in METRICS if metric in found["dpmpp-2m logsnr 100"]]
    numbers = {
        (f"{sampler}, {spacing}", str(number)): found[f"{sampler} {spacing} {number}"]
        for (sampler, spacing), steps in WAYS.items()
        for number in steps
    } | {("`--mode mean`", "1"): {key: found["mean"][key] for key in found["mean"] if key not in ("agreement", "ged")}}
    rows = (
        (*way, *(f"{row[metric]:.3f}" if metric in row else "–" for metric in metrics)) for way, row in numbers.items()
    )
    spread = found["spread"]
    ratio = spread["antithetic"] / spread["independent"]
    return [
        f"## {name}",
        "",
        *table(("sampler, spacing", "steps", *metrics), rows),
        "",
        f"![{name}](steps_{slug}.png)",
        "",
        f"Antithetic starting noise: the variance over seeds of the mean of ten members is {ratio:.2f} of that with "
        "independent noise (5 steps, 4 images, 8 seeds).",
        "",
    ]


if __name__ == "__main__":
    guard(main)
