"""V2 minus its rivals, case by case: the table, the plot, and what follows in words, by rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common import table
from earn_section import Section
from earn_statistics import Averaged, differences, with_interval

from medsegdiff.evaluation.compare import Difference
from medsegdiff.metrics.base import better
from medsegdiff.pictures.curves import Gain, save
from medsegdiff.pictures.curves import differences as drawn

PAIRED = {
    "dice": "Dice",
    "expected majority": "expected Dice",
    "ged": "GED²",
    "ece_near": "ECE near",
    "nll_near": "NLL near",
}
"""What is compared, and its name."""
OWN = ("anchor", "anchor-tuned")
LOWER = {"ged": "GED²", "ece_near": "ECE near", "nll_near": "NLL near"}


def compared(rows: Mapping[str, Averaged]) -> dict[str, list[Difference]]:
    """Compare V2 with every other row in the metrics that count."""
    if "v2" not in rows:
        return {}
    pairs = [(rows["v2"], row) for name, row in rows.items() if name != "v2"]
    found = {metric: differences(pairs, metric) for metric in PAIRED}
    return {metric: of for metric, of in found.items() if of}


def difference_table(found: dict[str, list[Difference]]) -> list[str]:
    """Write the paired differences."""
    lines = []
    for metric, of_rivals in found.items():
        scale, digits = (100, 2) if better_when(metric) == "higher" else (1, 4)
        for of in of_rivals:
            interval = None if of.ci95 is None else (scale * of.ci95[0], scale * of.ci95[1])
            shown = with_interval(scale * of.mean, interval, digits)
            lines.append((PAIRED[metric], of.against, shown, f"{of.p:.2g}", f"{of.p_holm:.2g}", told(of, metric)))
    head = ("", "rival", "V2 − rival", "p", "p, Holm", "better")
    return [*table(head, lines), ""] if lines else []


def better_when(metric: str) -> str:
    """Tell whether a metric should be high or low."""
    return better("dice" if metric.startswith("expected") else metric)


def told(of: Difference, metric: str) -> str:
    """Name the better one, if it is real."""
    if not of.real:
        return "–"
    return of.run if (of.mean > 0) == (better_when(metric) == "higher") else of.against


def plotted(section: Section, found: dict[str, list[Difference]]) -> list[str]:
    """Plot the differences, every case as a point."""
    if not found:
        return []
    panels = {
        f"{PAIRED[metric]}: V2 minus …": {of.against: Gain(of.values, of.mean, of.ci95, of.real) for of in of_rivals}
        for metric, of_rivals in found.items()
    }
    save(drawn(panels, against="rivals"), section.out / section.picture("differences"))
    return [f"![differences]({section.picture('differences')})", ""]


def verdict(rows: Mapping[str, Averaged], found: Mapping[str, Sequence[Difference]]) -> list[str]:
    """Say how V2 stands: in Dice to the best rival and to the better of its anchors, in the rest to all."""
    if not found:
        return []
    own = {rows[name].title for name in OWN if name in rows}
    exact = "expected majority" in found
    what, dice = ("Expected Dice", found["expected majority"]) if exact else ("Dice", found["dice"])
    sentences = [
        in_dice(what, "the best rival", [of for of in dice if of.against not in own]),
        in_dice(what, "the better of its own anchors", [of for of in dice if of.against in own]),
        *(below(name, found[metric]) for metric, name in LOWER.items() if metric in found),
    ]
    return [f"**Verdict.** {' '.join(filter(None, sentences))}", ""]


def in_dice(what: str, who: str, found: Sequence[Difference]) -> str:
    """Compare Dice with the hardest of some rivals."""
    if not found:
        return ""
    hardest = min(found, key=lambda of: of.mean)
    state = ("above" if hardest.mean > 0 else "below") if hardest.real else "not to be told from"
    points, seen = 100 * hardest.mean, ""
    if hardest.ci95 is not None:
        low, high = hardest.ci95
        seen = f" [{100 * low:+.2f}, {100 * high:+.2f}]"
        if not hardest.real:
            seen += f"; differences under {50 * (high - low):.1f} points can't be seen here"
    return f"{what} is {state} that of {who} ({hardest.against}): {points:+.2f}{seen}."


def below(name: str, found: Sequence[Difference]) -> str:
    """Count the rivals that V2 is below, and above, in what should be low."""
    lower = sum(of.real and of.mean < 0 for of in found)
    higher = [of.against for of in found if of.real and of.mean > 0]
    if lower == len(found):
        return f"{name} is below that of all {len(found)}."
    told = f"; above that of {', '.join(higher)}" if higher else "; above none"
    return f"{name} is below that of {lower} of {len(found)}{told}."
