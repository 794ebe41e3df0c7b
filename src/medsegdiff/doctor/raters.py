"""Members against raters: do they differ as much as raters do, and where raters do?

Each number stands beside that of a perfect sampler, which draws its members as the raters draw.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from medsegdiff.config.data import DataConfig
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.dataset import DataSource, Track, no_progress
from medsegdiff.data.open import detect, list_cases, matches, open_source
from medsegdiff.data.phantom import PhantomSource
from medsegdiff.data.split import names_in, resolve
from medsegdiff.doctor.finding import Finding
from medsegdiff.errors import DataError, MedSegDiffError
from medsegdiff.inference.inputs import read_case
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.metrics.calibration import Calibration, near
from medsegdiff.metrics.distribution import agreement, expected_ged, ged
from medsegdiff.metrics.pairs import dice_of, intersections
from medsegdiff.training.run import Run
from medsegdiff.types import Case

MEMBERS = 8
SECONDS = 10.0
"""After which no further case is segmented, once there are two."""
DRAWS = 20
"""Ensembles of a perfect sampler whose calibration error is averaged."""
ECE_EXCESS, GED_RATIO, AGREEMENT_EXCESS = 0.05, 2.0, 0.1
"""How much worse than a perfect sampler is still good."""


@dataclass(frozen=True)
class Drawn:
    """One structure of one image: members, raters, and the distribution that raters are drawn from."""

    members: Bool[np.ndarray, "m h w"]
    raters: Bool[np.ndarray, "r h w"]
    masks: Bool[np.ndarray, "d h w"]
    """All masks that a rater may draw, as far as they are known."""
    weights: Float[np.ndarray, " d"]
    """Their probabilities."""
    known: bool
    """Whether the distribution is known exactly; else the raters stand for it."""

    @property
    def probability(self) -> Float[np.ndarray, "h w"]:
        """How probable it is that a rater draws each pixel."""
        return np.tensordot(self.weights, self.masks.astype(float), axes=1).clip(0, 1)

    @property
    def where(self) -> Bool[np.ndarray, "h w"]:
        """The pixels that a rater or a member draws: elsewhere calibration is easy, and would hide the rest."""
        return near(*self.masks, *self.members, margin=0)

    def expected_ged(self) -> float:
        """GED² of a perfect sampler; where raters stand for the distribution, their own pairs are left out."""
        r = len(self.masks)
        value = expected_ged(self.masks, self.weights, num_samples=len(self.members), num_raters=len(self.raters))
        return value if self.known else value * r / (r - 1)

    def expected_agreement(self) -> float:
        """Mean Dice of two raters, as of two members of a perfect sampler."""
        if not self.known:
            return agreement(self.raters)
        return float(self.weights @ dice_of(intersections(self.masks, self.masks)) @ self.weights)

    def perfect(self, rng: np.random.Generator) -> Bool[np.ndarray, "m h w"]:
        """Draw members as raters draw."""
        return self.masks[rng.choice(len(self.masks), size=len(self.members), p=self.weights)]


def examine_raters(
    run: Run, segmenter: Segmenter, *, data: Path | None, recorded: str, count: int, track: Track = no_progress
) -> list[Finding]:
    """Compare an ensemble with raters, if the model has learned from data with several."""
    where: str | Path = data or recorded
    source: DataSource | None = phantom_of(where, segmenter.config)
    if source is None and data is None:
        found = "The run was not trained on the phantom, so nothing exact is known of its raters."
        return [Finding("raters", "calibration", "skipped", found, "Give --data with the masks of several raters.")]
    if source is None:
        source = _opened(Path(where), segmenter.config.data, track)
    if source is None:
        found = f"{where} holds no masks: there are no raters to compare with."
        return [Finding("raters", "calibration", "skipped", found)]
    if len(source.info.raters) < 2:
        found = f"{where} has one rater: there is no disagreement to compare with."
        return [Finding("raters", "calibration", "skipped", found)]
    if source.info.slices:
        return [Finding("raters", "calibration", "skipped", "Volumes are not compared with their raters here.")]
    names = _held_out(run, source)[:count]
    drawn = list(_draw(segmenter, source, names, track))
    exact = "known exactly" if drawn[0].known else f"{len(source.info.raters)} raters"
    return _compared(drawn, f"{len(drawn)} masks of {where}, {exact}, {MEMBERS} members")


def _opened(where: Path, config: DataConfig, track: Track) -> DataSource | None:
    """Open a data set in its own layout; ``None`` for images without masks."""
    layout = config.layout if matches(config.layout, where, asked=True) else "auto"
    if layout == "auto" and (detect(where) is None or not list_cases(where, config_of(config, layout)).masks.names):
        return None
    return open_source(where, config_of(config, layout), track=track)


def config_of(config: DataConfig, layout: str) -> DataConfig:
    """Read other data than those of the run as the run's were read, but for what the data tell themselves."""
    told = config.layout != layout
    return config.model_copy(update={"layout": layout} | ({"task": None, "classes": None} if told else {}))


def phantom_of(where: str | Path, config: ResolvedConfig) -> PhantomSource | None:
    """Recognise the phantom: by its name, or as a folder with its pictures."""
    source = PhantomSource(config.data)
    if str(where) == "phantom":
        return source
    files = {name: Path(where) / "images" / f"{name}.png" for name in source.info.names("all")}
    name = next((name for name, file in files.items() if file.is_file()), None)
    if name is None:
        return None
    try:
        given, made = read_case(files[name]).image, source.load(name).image
    except MedSegDiffError:
        return None
    return source if given.shape == made.shape and np.allclose(given, made, atol=1e-3) else None


def _held_out(run: Run, source: DataSource) -> list[str]:
    """Name the test cases of the run; of data that it does not know all, where they name no test cases themselves."""
    known = set(source.info.split)
    try:
        names = sorted({resolve(name, known) for name in names_in(run.split, "test")} & known)
        return names or source.info.names("test")
    except (OSError, DataError):
        return source.info.names("all")


def _draw(segmenter: Segmenter, source: DataSource, names: Sequence[str], track: Track) -> Iterator[Drawn]:
    start = time.monotonic()
    for number, name in enumerate(track(names, "Comparing with raters")):
        if number >= 2 and time.monotonic() - start >= SECONDS:
            return
        case = source.load(name)
        yield from _structures(segmenter(case, members=MEMBERS), case, source)


def _structures(result: Segmentation, case: Case, source: DataSource) -> Iterator[Drawn]:
    """Take members and raters apart by structure; the background of exclusive classes is none."""
    assert case.mask is not None
    first = result.labels.foreground.start
    for index in range(len(result.labels.structures)):
        members = np.stack([result.labels.mask(member, index) for member in result.members]).astype(bool)
        raters = case.mask[:, first + index].astype(bool)
        if isinstance(source, PhantomSource):
            masks, weights = source.lesion(case.name).distribution()
            yield Drawn(members, raters, masks, weights, known=True)
        elif raters.any() or members.any():
            yield Drawn(members, raters, raters, np.full(len(raters), 1 / len(raters)), known=False)


def _compared(drawn: Sequence[Drawn], how: str) -> list[Finding]:
    if not drawn:
        return [Finding("raters", "calibration", "skipped", f"Neither members nor raters drew anything ({how}).")]
    return [_calibration(drawn, how), _distance(drawn), _agreement(drawn)]


def calibration_error(
    drawn: Sequence[Drawn], members_of: Callable[[Drawn], Bool[np.ndarray, "m h w"]] = lambda one: one.members
) -> float:
    """Compute the calibration error of the mean of members where anybody draws, over all cases."""
    pooled = Calibration.empty(MEMBERS + 1)  # a bin for each number of members
    for one in drawn:
        pooled = pooled.add(members_of(one).mean(axis=0), one.probability, where=one.where)
    return pooled.ece()


def _calibration(drawn: Sequence[Drawn], how: str) -> Finding:
    rng = np.random.default_rng(0)
    measured = calibration_error(drawn)
    perfect = float(np.mean([calibration_error(drawn, lambda one: one.perfect(rng)) for _ in range(DRAWS)]))
    found = f"ECE of the pixel mean where anybody draws {measured:.3f}; a perfect sampler has {perfect:.3f} ({how})."
    numbers = {"ece": measured, "perfect": perfect, "cases": len(drawn), "members": MEMBERS}
    if measured <= perfect + ECE_EXCESS:
        return Finding("raters", "calibration", "good", found, numbers=numbers)
    advice = "Train longer, with masks of several raters; take more steps and members."
    return Finding("raters", "calibration", "to look at", found, advice, numbers)


def _distance(drawn: Sequence[Drawn]) -> Finding:
    measured = float(np.mean([ged(one.members, one.raters).value for one in drawn]))
    perfect = float(np.mean([one.expected_ged() for one in drawn]))
    found = f"GED² of members and raters {measured:.3f}; a perfect sampler has {perfect:.3f} on average."
    numbers = {"ged": measured, "perfect": perfect}
    if measured <= GED_RATIO * perfect:
        return Finding("raters", "distance", "good", found, numbers=numbers)
    advice = "Members are not drawn as raters draw: train longer, or with more raters per image."
    return Finding("raters", "distance", "to look at", found, advice, numbers)


def _agreement(drawn: Sequence[Drawn]) -> Finding:
    members = float(np.mean([agreement(one.members) for one in drawn]))
    raters = float(np.mean([one.expected_agreement() for one in drawn]))
    found = f"Members agree by {members:.3f}, raters by {raters:.3f} (mean Dice of pairs)."
    numbers = {"members": members, "raters": raters}
    if members > raters + AGREEMENT_EXCESS:
        advice = "The ensemble is too sure of itself: take more steps, or train longer."
        return Finding("raters", "agreement", "to look at", found, advice, numbers)
    if members < raters - AGREEMENT_EXCESS:
        advice = "Members differ more than raters: train longer."
        return Finding("raters", "agreement", "to look at", found, advice, numbers)
    return Finding("raters", "agreement", "good", found, numbers=numbers)
