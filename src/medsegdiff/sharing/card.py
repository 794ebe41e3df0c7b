"""The card of a model: what it is for, what it learned from, how good it is, and how that is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.evaluation.results import Results
from medsegdiff.evaluation.scores import Measure
from medsegdiff.hub.card import Card
from medsegdiff.inference.quality import QualityModel
from medsegdiff.training.origin import ancestors
from medsegdiff.training.quality import promise

SHOWN = {
    "dice": "Dice of the fused mask",
    "hd95": "HD95",
    "ged": "GED² of members and raters",
    "agreement": "mean Dice of pairs of members",
    "ece_near": "ECE of the probability near structures",
    "nll_near": "log score of the probability near structures, nats",
    "size_covered": "share of cases whose true size lies in the 90 % interval",
    "excess_aurc": "excess AURC of pixels by uncertainty",
}
"""Numbers of an evaluation that stand on a card, where they are."""
WARNING = (
    "Research software, not a medical device: somebody who knows the images has to look at each mask. The numbers "
    "below are of the images named there; scanners, protocols, ages and diseases that are not among them may do worse, "
    "unannounced."
)


@dataclass(frozen=True)
class About:
    """What only the maker of a model can tell."""

    name: str
    license: str
    """Of the weights: an SPDX name."""
    data: str = ""
    """What it was trained on, with where it is to be had."""
    data_license: str = ""
    use: str = ""
    """What it is for, and what not."""
    notes: str = ""
    """Further sections, in Markdown."""


@dataclass(frozen=True)
class Shown:
    """What the files of a run tell."""

    config: ResolvedConfig
    record: Mapping[str, Any]
    """How the run was made; of imported weights little is known."""
    packed: Mapping[str, Any]
    quality: QualityModel | None
    numbers: Results | None
    size: int
    """Bytes of the weights."""


def card_of(about: About, shown: Shown) -> Card:
    """Write a card."""
    head: dict[str, Any] = {
        "license": about.license.lower(),
        "library_name": "medsegdiff",
        "pipeline_tag": "image-segmentation",
        "tags": ["medical", "segmentation", "diffusion", "uncertainty", "medsegdiff"],
    }
    results = _results(about, shown)
    if results:
        head["model-index"] = [{"name": about.name, "results": results}]
    return Card(head, "\n\n".join(_sections(about, shown)))


def _results(about: About, shown: Shown) -> list[dict[str, Any]]:
    """Write numbers as the hub reads them."""
    if shown.numbers is None:
        return []
    metrics = [
        {"type": metric, "name": f"{words}, {_of_what(shown.numbers)}", "value": round(mean.mean, 4)}
        for metric, words in SHOWN.items()
        if (mean := shown.numbers.summary.get(Measure(metric))) is not None
    ]
    data = {"name": about.data or "not told", "type": "test part of the split"}
    return [{"task": {"type": "image-segmentation"}, "dataset": data, "metrics": metrics}]


def _sections(about: About, shown: Shown) -> Iterator[str]:
    spec, data = shown.config.spec, shown.config.data
    kind = f"{', '.join(spec.modalities)} volumes, cut {spec.plane}" if spec.plane else "pictures"
    yield f"# {about.name}"
    structures = ", ".join(spec.labels.structures)
    yield f"Segments {structures} in {kind}, with uncertainty, by medsegdiff."
    yield f"```bash\nmedsegdiff segment IMAGES --model {about.name} --out masks\n```"
    yield f"## Intended use\n\n{about.use or 'Research on images like those it was trained on.'}\n\n{WARNING}"
    yield "## Data and split\n\n" + "\n".join(_data(about, shown))
    rounded = " rounded after training," if shown.packed.get("rounded_from") else ""
    sampling = shown.config.sampling
    yield (
        f"## Network\n\n`{shown.config.model.name}`, {data.image_size} px; weights in {shown.packed['precision']},"
        f"{rounded} {shown.size / 1e6:.1f} MB. {sampling.members} members by `{sampling.sampler}` in {sampling.steps} "
        f"steps, fused by `{sampling.fusion}`."
    )
    yield f"## Numbers\n\n{_numbers(shown.numbers)}"
    yield f"## Quality: when must a human look?\n\n{_quality(shown)}"
    if about.notes:
        yield about.notes.strip()
    yield (
        f"## Licence\n\nWeights: {about.license} (see LICENSE). Data: "
        f"{about.data_license or 'not told by who packed this'}."
    )


def _data(about: About, shown: Shown) -> Iterator[str]:
    yield f"* Data: {about.data or 'not told by who packed this'}."
    if cases := shown.record.get("cases"):
        parts = ", ".join(f"{count} {part}" for part, count in cases.items())
        yield f"* Cases: {parts}; SHA-256 of the split: `{shown.record.get('split_sha256', 'not told')}`."
    else:
        yield "* Split: not told by the run."
    yield from _beginnings(shown.record)
    if versions := shown.record.get("versions"):
        yield "* Trained with " + ", ".join(f"{name} {number}" for name, number in versions.items()) + "."


def _beginnings(record: Mapping[str, Any]) -> Iterator[str]:
    """Name each model that the weights come from: those that were packed, and files that were imported."""
    told = (record, *ancestors(record))
    for name, license_ in dict.fromkeys((of["name"], of.get("license")) for of in told if of.get("name")):
        yield f"* Began with the weights of {name}; their licence: {license_ or 'not told'}."
    for file in dict.fromkeys(of["imported"] for of in told if of.get("imported")):
        yield f"* Began with weights imported from `{file}`; their licence: not told."


def _numbers(numbers: Results | None) -> str:
    if numbers is None:
        return "None was given when this was packed."
    rows = [
        f"| {words}{_unit(metric, numbers)} | {numbers.shown(metric)} |"
        for metric, words in SHOWN.items()
        if Measure(metric) in numbers.summary
    ]
    named = sorted({of.structure for of in numbers.summary if of.structure and not of.rater})
    rows += [f"| Dice of {name} | {numbers.shown('dice', name)} |" for name in named]
    table = "\n".join(["| | mean [95 % interval] |", "|---|---|", *rows])
    return f"Computed by `medsegdiff evaluate` on {_of_what(numbers)}.\n\n{table}"


def _unit(metric: str, numbers: Results) -> str:
    return f", {numbers.setup.unit}" if metric == "hd95" and numbers.setup.unit else ""


def _of_what(numbers: Results) -> str:
    """Say what was scored."""
    cases, groups = len(numbers.scores.groups), numbers.setup.groups
    of = f" of {groups} patients; means and intervals are over patients" if groups and groups < cases else ""
    return f"{cases} images{of}"


def _quality(shown: Shown) -> str:
    known = shown.quality
    if known is None:
        return "Not calibrated: nothing is predicted of a mask. `medsegdiff calibrate` learns it from cases of yours."
    lines = [f"Learned from {known.cases} cases of {known.patients} patients."]
    if shown.packed.get("rounded_from"):
        lines.append("They were segmented with the weights before these were rounded.")
    lines.append("")
    for name, of in known.structures.items():
        lines.append(f"* {name}: {promise(known, of)}")
        ranked = ", ".join(
            f"{score} {of.aurc[score]:.4f}" for score in (of.score, "random", "oracle") if score in of.aurc
        )
        lines.append(f"  Cases are ranked by `{of.score}`; AURC, lower is better: {ranked}.")
    return "\n".join(lines)
