"""Spoilt images, which `quality.py` mixes with clean ones: does a calibrated run trust them less?"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from scipy.stats import mannwhitneyu

from medsegdiff.cli.console import track
from medsegdiff.data.split import evenly
from medsegdiff.inference.inputs import find_inputs, read_case
from medsegdiff.inference.judging import distances, looks_of, share_unlike
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.models.checkpoint import load_config
from medsegdiff.training.quality import calibrate_quality
from medsegdiff.types import Case

CASES = 40
"""Clean ones at most, evenly spread over the test part."""
NOISE, BLUR = 0.15, 1 / 64
"""Standard deviation in the unit of the images, which lie in [0, 1]; and of the blur, as a share of the side."""
TURNED = "upside down"
SPOILT: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "blurred": lambda image: gaussian_filter(image, (0, *(BLUR * side for side in image.shape[1:]))),
    "inverted": lambda image: 1 - image,
    TURNED: lambda image: image[:, ::-1].copy(),
    "wrong window": lambda image: np.clip(4 * (image - 0.35), 0, 1),
    "noise": lambda image: np.clip(image + NOISE * np.random.default_rng(0).standard_normal(image.shape), 0, 1),
}
OTHER = "another organ"
TOLD = ("trust", "score alone", "look alone")
"""What ranks: both together, as `segment` sorts; the score of the mask; how far the image lies from training."""


def spoilt_auroc(run: Path, data: Path, other: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Calibrate a copy of a run, segment clean and spoilt test images, and compare how far each is trusted.

    Args:
        run: It was trained on ``data``.
        data: Its images, with references.
        other: Images of something else.
        folder: For the copy.

    Returns:
        By what was spoilt, for each of `TOLD`, how often a clean image is trusted more than a spoilt one.
    """
    copy = folder / run.name
    if not (copy / "quality.json").exists():
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        calibrate_quality([copy], data, device="cpu", track=track)
    segmenter = Segmenter.from_pretrained(copy, device="cpu")
    test = cases_of(data, copy, like=load_config(copy), part="test")
    clean = told_of(test, segmenter, "clean")
    found = {}
    for name, spoil in SPOILT.items():
        wrong = [replace(case, image=spoil(case.image).astype(np.float32)) for case in test]
        found[name] = aurocs(clean, told_of(wrong, segmenter, name))
    strange = [as_channels(read_case(file), len(test[0].image)) for file in evenly(find_inputs([other]), CASES)]
    return found | {OTHER: aurocs(clean, told_of(strange, segmenter, OTHER))}


def cases_of(data: Path, run: Path, *, like: object, part: str) -> list[Case]:
    """Read some images of a part."""
    files = find_inputs([data], like=like, split_file=run / "split.csv", split=part)  # type: ignore[arg-type]
    return [read_case(file) for file in evenly(files, CASES)]


def as_channels(case: Case, channels: int) -> Case:
    """Make an image grey, or coloured, as the others are."""
    grey = case.image.mean(axis=0, keepdims=True)
    return replace(case, image=grey if channels == 1 else np.broadcast_to(case.image, (channels, *grey.shape[1:])))


def told_of(cases: Sequence[Case], segmenter: Segmenter, what: str) -> np.ndarray:
    """Segment images, and give for each what is told of the structure that is trusted least."""
    known, rows = segmenter.quality, []
    assert known is not None
    for case in track(cases, what):
        result = segmenter(case, seed=0)
        quality = min(result.quality.values(), key=lambda of: of.trust)
        look = share_unlike(known, distances(known, looks_of(result, known.plane)))
        rows.append((quality.trust, quality.score, look))
    return np.array(rows)


def aurocs(clean: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """Tell how often clean ones have the larger number; ties count half."""
    areas = [mannwhitneyu(clean[:, place], wrong[:, place]).statistic for place in range(len(TOLD))]
    return {name: float(area) / (len(clean) * len(wrong)) for name, area in zip(TOLD, areas, strict=True)}
