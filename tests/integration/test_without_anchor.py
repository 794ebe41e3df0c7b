"""A network without an anchor: nothing is written, plotted, told or asked of one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from torch import Tensor

from medsegdiff.doctor.log import examine_log
from medsegdiff.models.denoiser import ImageCondition
from medsegdiff.pictures.cases import case_grid, saved_rows
from medsegdiff.pictures.curves import training_curves
from medsegdiff.training.run import Run
from medsegdiff.types import Condition
from tests.integration.test_adaptive import Doubtful, doubtful
from tests.integration.test_volumes import phantom
from tests.makers import make_folder, small_network
from tests.volumes import save


class Blind(Doubtful):
    """Draws what `Doubtful` draws, and has no anchor."""

    def condition(self, image: Tensor) -> Condition:
        return ImageCondition(None, image)

    def denoise(self, x_t: Tensor, time: Tensor, condition: ImageCondition) -> Tensor:
        return super().denoise(x_t, time, super().condition(condition.image))


def volume(folder: Path) -> Path:
    grain = np.random.default_rng(0).random((6, 5, 4), np.float32)
    return save(folder / "a.nii.gz", phantom((6, 5, 4)) * np.float32(90) + grain)


@pytest.mark.parametrize("members", [3, "auto"])
def test_a_volume_is_segmented_as_with_an_anchor_but_for_the_anchor(tmp_path: Path, members: int | str) -> None:
    file = volume(tmp_path)
    found, other = (doubtful(model=model)(file, members=members) for model in (Blind, Doubtful))
    assert (found.anchor, found.anchor_probability) == (None, None)
    assert other.anchor is not None
    if members == 3:  # the probability of one is mixed with its anchor's
        assert np.array_equal(found.mask, other.mask)
    found.save(tmp_path / "out", members=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        *("masks", "labels", "members", "overlay", "probability", "uncertainty")
    }


class Watched(Blind):
    """Remembers whose members it draws, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[float] = []

    def denoise(self, x_t: Tensor, time: Tensor, condition: ImageCondition) -> Tensor:
        self.drawn.append(float(condition.image[0].sum()))
        return super().denoise(x_t, time, condition)


def test_all_slices_are_candidates_where_no_anchor_chooses(tmp_path: Path) -> None:
    """All four slices get a round of members before any gets a second."""
    segmenter = doubtful(model=Watched)
    assert len(segmenter(volume(tmp_path), members="auto").members) >= 15
    first, second = segmenter.model.drawn[:4], segmenter.model.drawn[4:8]
    assert len(set(first)) == 4
    assert first == second


def test_the_grid_of_cases_has_no_column_for_it(tmp_path: Path) -> None:
    data, out = make_folder(tmp_path / "data", count=2), tmp_path / "out"
    for model in (Blind, Doubtful):
        for result in doubtful(model=model)(sorted((data / "images").iterdir()), members=2):
            result.save(out / model.__name__, members=True)
    seen = []
    for model in (Blind, Doubtful):
        rows = saved_rows(out / model.__name__, data, {"case00": "Dice 1", "case01": "Dice 0"})
        assert all((row.anchor is None) == (model is Blind) for row in rows)
        seen.append(case_grid(rows))
    shared = ["image", "reference", "member 1", "member 2", "fused", "uncertainty"]
    for figure, titles in zip(seen, (shared, [*shared, "anchor"]), strict=True):
        (axis,) = figure.axes
        words = {text.get_text(): text.get_position()[0] for text in axis.texts}
        assert [word for word in words if word in (*shared, "anchor")] == titles
        assert words["Dice 1"] == words["fused"]
        assert len(axis.images) == 2 * len(titles)


def test_curves_show_what_the_log_has() -> None:
    losses = {"step": 10, "loss": 1.0, "loss_noise": 0.4}
    validation = {"step": 10, "dice": 0.5, "dice_member": 0.4}
    seen = [
        training_curves([losses, validation]),
        training_curves([losses | {"loss_anchor": 0.6}, validation | {"dice_anchor": 0.3}]),
    ]
    labels = [[line.get_label() for axis in figure.axes for line in axis.lines] for figure in seen]
    assert labels[0] == ["diffusion (L_n)", "fused", "one member"]
    assert labels[1] == ["diffusion (L_n)", "anchor", "fused", "one member", "anchor"]


@pytest.mark.parametrize(
    ("name", "compared"), [("medsegdiff-v2", True), ("release", True), ("segdiff", False), ("anchor", False)]
)
def test_doctor_compares_with_an_anchor_that_there_is(tmp_path: Path, name: str, compared: bool) -> None:
    """Whatever an old log holds; the network `anchor` is nothing else, so there is nothing to compare."""
    line = {"step": 5, "dice": 0.8, "dice_anchor": 0.39}
    (tmp_path / "log.jsonl").write_text(json.dumps(line) + "\n")
    found = examine_log(Run(tmp_path), small_network(name))
    assert ("fused against anchor" in [finding.name for finding in found]) == compared
