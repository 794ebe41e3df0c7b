"""Which validation cases a run is calibrated on, and what of them counts."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.dataset import DataInfo
from medsegdiff.data.loader import PreparedCases
from medsegdiff.data.placement import Placement
from medsegdiff.data.transforms import Prepared
from medsegdiff.fusion.mixture import Mixture
from medsegdiff.inference.calibration import Calibration
from medsegdiff.metrics.intervals import Stretch
from medsegdiff.models.base import DiffusionModel
from medsegdiff.training.calibration import CASES, calibrate
from medsegdiff.types import Condition
from tests.makers import disc, small_config

SIZE = (32, 32)
INSIDE = torch.from_numpy(disc(SIZE, (16, 16), 6))
CONFIG = small_config("data.channels=1", "sampling.members=4", "sampling.steps=1")


class _Drawer(DiffusionModel):
    """Draws the disc, of every other member the lower part of the picture too."""

    def __init__(self) -> None:
        super().__init__(stride=16)
        self.shown = list[torch.Tensor]()

    def condition(self, image: torch.Tensor) -> Condition:
        return Condition(image)

    def denoise(self, x_t: torch.Tensor, time: torch.Tensor, condition: Condition) -> torch.Tensor:
        self.shown.append(x_t[0].clone())
        more = torch.arange(32)[:, None] >= 24
        drawn = torch.stack([INSIDE | (more & bool(member % 2)) for member in range(len(x_t))])
        return 40 * drawn[:, None].float() - 20


class _Discs(PreparedCases):
    def __init__(self, ignored: torch.Tensor | None = None) -> None:
        self.ignored, self.asked = ignored, list[str]()

    def __getitem__(self, name: str) -> Prepared:
        self.asked.append(name)
        mask = INSIDE[None, None].to(torch.uint8)
        return Prepared(name, 4 * INSIDE[None].float() - 2, mask, Placement(SIZE, SIZE, SIZE), self.ignored)


def calibrated(
    cases: _Discs,
    *,
    slices: int = 0,
    model: _Drawer | None = None,
    config: ResolvedConfig = CONFIG,
    patients: int = 0,
    clock: Callable[[], float] = time.monotonic,
) -> Calibration:
    names = [f"{number:02d}" for number in range(20)]
    inner = {name: tuple(f"{name}/{index:04d}" for index in range(slices)) for name in names} if slices else {}
    groups = {name: str(min(int(name), patients)) for name in names} if patients else {}
    info = DataInfo(1, CONFIG.spec.labels, ("reference",), dict.fromkeys(names, "val"), inner, groups=groups)
    return calibrate(model or _Drawer(), config, cases, info, device=torch.device("cpu"), clock=clock)


@pytest.mark.parametrize(("slices", "sizes"), [(0, True), (9, True), (150, False)])
def test_volumes_of_any_number_of_slices_calibrate_probabilities_but_only_whole_ones_sizes(
    slices: int, sizes: bool
) -> None:
    cases = _Discs()
    found = calibrated(cases, slices=slices)
    assert found.cases >= 5
    assert found.log_scores["mixture"] <= found.log_scores["members"]
    assert bool(found.stretch) == sizes
    assert len(cases.asked) <= CASES


def test_what_nobody_labelled_counts_to_no_size() -> None:
    """Members that draw there alone are as right as those that draw what is known."""
    unknown = (torch.arange(32)[:, None] >= 23).expand(1, *SIZE).to(torch.uint8)
    assert calibrated(_Discs()).stretch["foreground"].above < 0  # too large, by what every other member draws
    assert calibrated(_Discs(unknown)).stretch["foreground"][:2] == pytest.approx((0, 0))


def test_what_is_drawn_beside_an_image_counts_to_no_size() -> None:
    """There the grid is filled up; on the image's own grid it is not."""

    class Low(_Discs):
        def __getitem__(self, name: str) -> Prepared:
            return replace(super().__getitem__(name), placement=Placement((16, 32), (16, 32), SIZE))

    assert calibrated(Low()).stretch["foreground"][:2] == pytest.approx((0, 0))


def test_cases_of_one_patient_count_as_one() -> None:
    """The last twelve are smaller than what is drawn, all of them a single patient's."""

    class Smaller(_Discs):
        def __getitem__(self, name: str) -> Prepared:
            found = super().__getitem__(name)
            smaller = torch.from_numpy(disc(SIZE, (16, 16), 4))[None, None].to(torch.uint8)
            return replace(found, mask=smaller) if int(name) >= 8 else found

    alone, together = (calibrated(Smaller(), patients=of).stretch["foreground"] for of in (0, 8))
    assert together.above > alone.above + 0.1  # 9 patients are too few for a rank, 20 are not


def test_the_size_of_what_was_lost_on_the_model_grid_calibrates_nothing() -> None:
    """It is not known there: 0 would be taken for a size that members hit."""

    class Lost(_Discs):
        def __getitem__(self, name: str) -> Prepared:
            found = super().__getitem__(name)
            return replace(found, mask=0 * found.mask, lost=torch.ones(1, dtype=torch.uint8))

    assert calibrated(Lost()).stretch == {}


def test_a_case_that_nobody_labelled_calibrates_nothing() -> None:
    """It would count as one whose size members hit."""

    class Some(_Discs):
        def __getitem__(self, name: str) -> Prepared:
            found, unknown = super().__getitem__(name), torch.ones(1, *SIZE, dtype=torch.uint8)
            return replace(found, ignored=unknown) if int(name) >= self.known else found

        known = 12

    found = calibrated(Some())
    assert found.cases == 12
    assert found.stretch["foreground"] == pytest.approx(calibrated(_Discs()).stretch["foreground"])
    Some.known = 4
    assert calibrated(Some()) == Calibration()


def test_cases_for_which_there_is_time_are_from_all_over_and_always_the_same() -> None:
    """Names tell of patients: the first eight of twenty would be those of two patients of four cases each."""
    hours = itertools.count()
    first = _Discs()
    found = calibrated(first, clock=lambda: 12.0 * next(hours))
    assert (found.cases, len(first.asked)) == (8, 8)  # the eighth ends after 96 s
    assert len({int(name) // 4 for name in first.asked}) > 3
    second = _Discs()
    calibrated(second)
    assert second.asked[:8] == first.asked


def test_a_structure_that_no_case_holds_has_neither_scale_nor_interval() -> None:
    class Empty(_Discs):
        def __getitem__(self, name: str) -> Prepared:
            found = super().__getitem__(name)
            return replace(found, mask=0 * found.mask) if int(name) >= self.held else found

        held = 0

    found = calibrated(Empty())
    assert (found.cases, found.stretch, found.mixture) == (20, {}, Mixture())
    Empty.held = 5
    assert calibrated(Empty()).mixture.slopes
    assert set(calibrated(Empty()).stretch) == {"foreground"}


def test_a_calibration_is_for_ensembles_like_those_that_it_rests_on() -> None:
    """Noise that slices share makes a volume larger or smaller as a whole; of a picture there is one slice."""
    sampling = CONFIG.sampling
    known = Calibration(cases=9, sampling=sampling, stretch={"foreground": Stretch(0.1, 0.2)})
    apart = sampling.model_copy(update={"shared_noise": False})
    assert known.as_for(apart, volumes=False) == known
    assert known.as_for(apart, volumes=True).stretch == {}
    for volumes in (True, False):
        fewer = sampling.model_copy(update={"members": sampling.members - 1})
        assert known.as_for(fewer, volumes=volumes).cases == 0
        assert known.as_for(sampling.model_copy(update={"batch_size": 3}), volumes=volumes) == known


def test_intervals_of_earlier_runs_are_read() -> None:
    """They know no usual size of a structure."""
    assert Calibration.model_validate({"stretch": {"a": [0.1, 0.2]}}).stretch == {"a": Stretch(0.1, 0.2, 0.0)}


@pytest.mark.parametrize("shared", [True, False])
def test_slices_share_their_noise_as_they_do_where_volumes_are_segmented(shared: bool) -> None:
    model, asked = _Drawer(), CONFIG.sampling.model_copy(update={"shared_noise": shared})
    calibrated(_Discs(), slices=9, model=model, config=CONFIG.model_copy(update={"sampling": asked}))
    first, second = model.shown[:2]
    assert torch.equal(first, second) == shared
