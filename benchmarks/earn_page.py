"""The page of `earn.py`, written from the files of the trials that there are; nothing else is printed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from common import table, write_page
from earn_differences import compared, difference_table, plotted, verdict
from earn_members import law, rules
from earn_plan import DATASETS, SYSTEMS
from earn_results import Outcome
from earn_section import ROWS, Section
from earn_statistics import Averaged

OVERLAP = {
    "Dice": ("dice", 100, 2),
    "references in place": ("placed", 100, 2),
    "small structures": ("small", 100, 2),
    "HD95 (px)": ("hd95", 1, 2),
    "expected Dice, one rater": ("expected", 100, 2),
    "expected Dice, majority": ("expected majority", 100, 2),
}
UNCERTAINTY = {
    "GED²": ("ged", 1, 3),
    "HM-IoU": ("hm_iou", 1, 3),
    "ECE near": ("ece_near", 1, 4),
    "NLL near": ("nll_near", 1, 4),
    "size within interval": ("size_covered", 1, 2),
    "CRPS of sizes": ("crps", 1, 3),
}
READING = """How to read it. Every system has had the same images and the same processor time for training steps, in
one precision; validation, which comes once and chooses nothing, and calibration come on top. *Its anchor* is V2's
own Condition Model in the same run, through the same mirrors, at ½; *tuned*, its probability is calibrated on
validation cases and its threshold is the one that suits these best. *The network alone* is that Condition Model trained
by itself: its widths, its augmentation, its mirrors. nnU-Net has four mirrors, or as many as suit the images. EnsDiff
and MedSegDiff draw and fuse as V2 does. The probabilities of all but *its anchor* are calibrated. Later seeds of
heart_lv, CHASE_DB1 and CURVAS made the training steps that seed 0 found time for (`--paced`), beside other work, so
that their seconds per image are a little long.

Numbers are means over cases (over patients, where several cases are of one) with 95 % bootstrap intervals; seeds are
averaged within each case first, so that intervals say how far another set of cases might be, not another seed. Small
structures are the smallest third by area of the reference. *Near* are pixels near what a rater drew, the same for all
systems; where nobody drew anything there are none. GED² and HM-IoU depend on the number of members, and a single mask
counts as an ensemble of one. *Size within interval* is how often the 90 % interval holds the size. CRPS is relative to
the true size; that of a single mask is its error. AURC is the mean risk, 1 − Dice, of the cases kept, the most certain
first: by the agreement of members, or by the soft Dice of probability and mask where there is one network. GFLOP are
convolutions, matrix products and Fourier transforms; a multiplication with an addition is two.

Differences are V2 minus rival, case by case; p is Wilcoxon's signed-rank test, and *p, Holm* is corrected for the
rivals of a data set. A difference is called real where that is below .05 and the interval does not hold 0. Verdicts
follow from these numbers by rule.
"""
TRIED = {
    "raters draw alike: ρ, by log score on validation cases": (
        "log score of the reference: CHASE .191 → .186, Drishti .155 → .122, phantom .128 → .122; Dice +.1, +.04, +.07 "
        "points",
        "yes",
    ),
    "the Condition Model learns alone in the first half of the steps": (
        "Dice: Drishti 92.6 → 93.0, heart 79.5 → 80.7, CHASE 73.8 → 75.0, phantom 89.9 → 89.7; GED²: Drishti .121 → "
        ".123, CHASE .492 → .517, phantom .107 → .115",
        "yes",
    ),
    "the same in the first three quarters": (
        "Drishti: Dice 93.1 → 93.1, GED² .124 → .490; phantom: expected Dice 89.4 → 89.4, GED² .118 → .223",
        "no",
    ),
    "the same in every second step": ("Drishti: Dice 92.6 → 92.8, GED² .121 → .122", "no"),
    "batches of 4 instead of 8": ("Drishti: Dice 92.6 → 92.3, GED² .121 → .130", "no"),
    "slope and offset of the calibration shrunk as leaving a patient out asks for": (
        "log score near: Drishti .144 → .140, heart .183 → .201, phantom .1556 → .1569",
        "no",
    ),
}
"""What → before and after, whether it was kept: on test images, one training each at equal processor time."""


def write(outcomes: Sequence[Outcome], out: Path) -> None:
    """Write the page and its plots."""
    keys = sorted({(list(DATASETS).index(of.key.data), of.key.data, of.key.minutes) for of in outcomes})
    sections = [
        Section(data, minutes, tuple(of for of in outcomes if (of.key.data, of.key.minutes) == (data, minutes)), out)
        for _, data, minutes in keys
    ]
    machines = sorted({of.machine for of in outcomes})
    out.mkdir(parents=True, exist_ok=True)
    head = [
        "# Does the ensemble earn its keep?",
        "",
        f"Command: `python benchmarks/earn.py` ({'; '.join(machines) or 'nothing was run yet'}); "
        "`--page` writes this page anew from `earn/*.json`.",
        "",
        READING,
    ]
    write_page("earn", [*head, *(line for section in sections for line in written(section)), *tried()], folder=out)


def tried() -> list[str]:
    """Tell what was tried on the way."""
    return [
        "## What was tried on the way",
        "",
        "On test images, one training each at equal processor time: less than half a point says little.",
        "",
        *table(("", "before → after", "kept"), ((what, *told) for what, told in TRIED.items())),
    ]


def written(section: Section) -> list[str]:
    """Write the part of a data set."""
    data, rows = DATASETS[section.data], section.rows()
    one, cases = section.outcomes[0], section.cases
    groups = len({one.groups[case] for case in cases if one.groups[case]})
    found = compared(rows)
    return [
        f"## {data.title}, {section.minutes:g} processor minutes",
        "",
        f"{one.image_size} px; {len(cases)} test cases{f' of {groups} patients' if groups else ''}; {data.reference}. "
        f"{data.remark}".strip(),
        "",
        *verdict(rows, found),
        *missing(section),
        *metric_table(rows, OVERLAP),
        *metric_table(rows, UNCERTAINTY, aurc=True),
        *costs(rows),
        *calibrated(section),
        *difference_table(found),
        *plotted(section, found),
        *rules(section),
        *law(section, rows),
        *shown_cases(section),
    ]


def missing(section: Section) -> list[str]:
    """Say which trials there are not."""
    wanted = range(DATASETS[section.data].seeds)
    seeds = {name: {of.key.seed for of in section.of(name)} for name in SYSTEMS}
    lacking = {name: [str(seed) for seed in wanted if seed not in seeds[name]] for name in SYSTEMS}
    told = [f"{SYSTEMS[name].title} ({', '.join(of)})" for name, of in lacking.items() if of]
    mixed = [SYSTEMS[name].title for name in SYSTEMS if len({of.recipe for of in section.of(name)}) > 1]
    lines = [f"Seeds that were not run, or not yet: {'; '.join(told)}."] if told else []
    lines += [f"Trials of {name} were made with different recipes; make them anew." for name in mixed]
    return [*lines, ""]


def metric_table(
    rows: Mapping[str, Averaged], metrics: dict[str, tuple[str, float, int]], *, aurc: bool = False
) -> list[str]:
    """Write means with intervals; rows that were not run are dashes, columns that nobody has are left out."""
    used = {head: of for head, of in metrics.items() if any(len(row.values(of[0])) for row in rows.values())}
    lines = []
    for name, (_, title) in ROWS.items():
        row = rows.get(name)
        if row is None:
            lines.append([title, *"–" * (len(used) + aurc)])
            continue
        cells = [row.shown(metric, scale=scale, digits=digits) for metric, scale, digits in used.values()]
        lines.append([title, *cells, *([row.aurc()] if aurc else [])])
    return [*table(["", *used, *(["AURC over cases"] if aurc else [])], lines), ""]


def costs(rows: Mapping[str, Averaged]) -> list[str]:
    """Write what each row costs."""
    head = ("", "seeds", "members", "processor seconds per image", "GFLOP per image", "training steps")
    lines = [
        (of.title, f"{len(of.seeds)}", of.members, f"{of.seconds:.3f}", f"{of.gflop:.2f}", f"{of.steps:.0f}")
        for of in rows.values()
    ]
    return [*table(head, lines), ""]


def calibrated(section: Section) -> list[str]:
    """Say what calibration has found in V2's runs."""
    told = [of.calibration for of in section.of("v2") if of.calibration.get("cases")]
    if not told or "mixture" not in told[0]:
        return []
    means = {name: float(np.mean([of[name] for of in told])) for name in told[0]}
    parts = ", ".join(f"{name} {means[name]:.4f}" for name in ("anchor", "members", "mixture") if name in means)
    return [f"V2's calibration on {means['cases']:.0f} validation cases, log score near structures: {parts}.", ""]


def shown_cases(section: Section) -> list[str]:
    """Show the picture of cases, where a trial has left it."""
    name = section.picture("cases")
    there = (section.out / name).exists()
    return ["Best, median and worst case of V2, seed 0:", "", f"![cases]({name})", ""] if there else []
