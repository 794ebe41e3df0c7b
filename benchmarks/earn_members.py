"""What members are worth beside a probability: decisions that follow from them, and how they follow a known law."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from common import table
from earn_results import Columns
from earn_section import Section
from earn_statistics import Averaged, differences, of_rule, with_interval
from matplotlib.figure import Figure
from scipy.stats import binom

from medsegdiff.evaluation.compare import Difference
from medsegdiff.pictures.curves import save


def rules(section: Section) -> list[str]:
    """Write how good the masks are that different rules make of V2's members."""
    trials = section.of("v2")
    if not trials:
        return []
    cases = section.cases
    rows = {rule: of_rule(rule, trials, cases) for rule in trials[0].rules}
    metrics = [name for name in ("dice", "expected", "expected majority") if len(rows["STAPLE"].values(name))]
    pairs = [(row, rows["STAPLE"]) for rule, row in rows.items() if rule != "STAPLE"]
    found = {of.run: minus(of) for of in differences(pairs, metrics[-1])}
    lines = [
        [rule, *(row.shown(metric, scale=100, digits=2) for metric in metrics), found.get(rule, "–")]
        for rule, row in rows.items()
    ]
    names = {"dice": "Dice", "expected": "expected Dice, one rater", "expected majority": "expected Dice, majority"}
    head = ["V2's members, decided by", *(names[metric] for metric in metrics), f"minus STAPLE ({names[metrics[-1]]})"]
    return [*table(head, lines), ""]


def minus(of: Difference) -> str:
    """Write a difference in points, with its p."""
    interval = None if of.ci95 is None else (100 * of.ci95[0], 100 * of.ci95[1])
    return f"{with_interval(100 * of.mean, interval, 2)}, p {of.p_holm:.2g}"


def law(section: Section, rows: Mapping[str, Averaged]) -> list[str]:
    """Write how often members draw what raters draw with a known probability."""
    known = {name: row for name, row in rows.items() if "p rim" in row.trials[0]}
    if not known:
        return []
    lines = [(row.title, *law_cells(row)) for row in known.values()]
    first = next(iter(known.values()))
    errors = (f"{error_of_perfect(first.trials[0], part, members=10):.3f}" for part in ("rim", "satellite"))
    lines.append(("ten members drawn as raters are", *(cell for error in errors for cell in ("1.00", error))))
    draw_law(section, known)
    heads = (f"{part}: {what}" for part in ("rim", "satellite") for what in ("slope", "mean absolute error"))
    return [
        "Share of members that draw a part (of a single mask: its mean probability there) against the probability that "
        "a rater does:",
        "",
        *table(("", *heads), lines),
        "",
        f"![share of members against probability]({section.picture('law')})",
        "",
    ]


def law_cells(row: Averaged) -> Iterator[str]:
    """Write slope and error by part."""
    for part in ("rim", "satellite"):
        slope, error = followed(row.trials, part)
        yield from (f"{slope:.2f}", f"{error:.3f}")


def draw_law(section: Section, rows: Mapping[str, Averaged]) -> None:
    """Plot the share of members that draw the rim against its probability."""
    figure = Figure(figsize=(2.6 * len(rows), 2.9), layout="constrained")
    for axis, row in zip(figure.subplots(1, len(rows), squeeze=False)[0], rows.values(), strict=True):
        axis.plot([0, 1], [0, 1], "--", color="grey", linewidth=1)
        for columns in row.trials:
            p, drawn = (list(columns[name].values()) for name in ("p rim", "drawn rim"))
            axis.plot(p, drawn, ".", markersize=3, alpha=0.5)
        axis.set(title=row.title, xlabel="probability of the rim", xlim=(0, 1), ylim=(-0.03, 1.03))
        axis.title.set_fontsize(8)
    save(figure, section.out / section.picture("law"))


def followed(columns: Sequence[Columns], part: str) -> tuple[float, float]:
    """Tell how the share of members that draw a part follows its probability: slope, and mean absolute error."""
    pairs = np.array(
        [(of[f"p {part}"][case], drawn) for of in columns for case, drawn in of[f"drawn {part}"].items()], float
    )
    p, drawn = pairs[~np.isnan(pairs).any(axis=1)].T
    return float(np.polyfit(p, drawn, 1)[0]), float(np.abs(drawn - p).mean())


def error_of_perfect(columns: Columns, part: str, *, members: int) -> float:
    """Compute the mean absolute error of members that are drawn with the true probability."""
    counts = np.arange(members + 1)
    p = np.array([value for value in columns[f"p {part}"].values() if not np.isnan(value)])
    return float((binom.pmf(counts, members, p[:, None]) * np.abs(counts / members - p[:, None])).sum(axis=1).mean())
