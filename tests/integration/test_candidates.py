"""``candidates``: many masks are drawn and decide, those that stand for all are kept as members."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medsegdiff import Segmenter
from medsegdiff.errors import ConfigError
from medsegdiff.evaluation import evaluate
from medsegdiff.fusion.herding import herd
from medsegdiff.inference.members import distances_of
from medsegdiff.inference.request import Request
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.io.atomic import make_room
from medsegdiff.io.raster import read_mask
from medsegdiff.labels import Labels
from tests.integration.test_adaptive import doubtful, slope
from tests.integration.test_volumes import phantom
from tests.makers import small_config
from tests.program import call
from tests.volumes import save

SAME = ("mask", "probability", "anchor")


def assert_chosen(kept: Segmentation, whole: Segmentation) -> None:
    """All candidates decide; members, and what is told of each, are those chosen by brute force."""
    masks = whole.members.reshape(len(whole.members), -1) > 0
    d = np.array([[1 - (a & b).sum() / max((a | b).sum(), 1) if (a | b).any() else 0 for b in masks] for a in masks])
    chosen = herd(d, len(kept.members))
    assert kept.choice is not None
    assert kept.choice.numbers == tuple(chosen)
    assert (kept.chosen_of, whole.chosen_of) == (len(masks), None)
    assert np.array_equal(kept.members, whole.members[chosen])
    for name in SAME:
        assert np.array_equal(getattr(kept, name), getattr(whole, name)), name
    assert np.array_equal(kept.uncertainty.std, whole.uncertainty.std)
    assert kept.sizes() == whole.sizes()
    assert kept.agreement() != whole.agreement()
    if whole.sensitivity is not None and kept.sensitivity is not None:
        assert np.array_equal(kept.sensitivity, whole.sensitivity[chosen])


def test_members_of_a_picture_are_chosen_and_all_candidates_decide() -> None:
    segmenter, images = doubtful(batch_size=7), [slope(seed) for seed in range(2)]
    chosen = segmenter(images, members=4, candidates=30, seed=2)
    assert [(len(kept.members), kept.chosen_of) for kept in chosen] == [(4, 30)] * 2
    for kept, whole in zip(chosen, segmenter(images, members=30, seed=2), strict=True):
        assert_chosen(kept, whole)


@pytest.mark.parametrize("fusion", ["staple", "dice"])
def test_members_of_a_volume_are_chosen_by_its_whole_masks(tmp_path: Path, fusion: str) -> None:
    size = (9, 8, 11)
    values = phantom(size) * np.float32(90) + np.random.default_rng(0).random(size, np.float32)
    file, segmenter = save(tmp_path / "a.nii.gz", values), doubtful(batch_size=16)
    kept = segmenter(file, members=3, candidates=20, fusion=fusion)
    assert_chosen(kept, segmenter(file, members=20, fusion=fusion))
    assert isinstance(kept.members, np.memmap)  # it lies in a file, as it would not fit into memory


@pytest.mark.parametrize("labels", [Labels(), Labels("exclusive", ("b", "x", "y")), Labels("regions", ("x", "y"))])
@pytest.mark.parametrize("slab", [1, 50, 1 << 25])
def test_distances_are_the_mean_over_structures_a_part_at_a_time(labels: Labels, slab: int) -> None:
    lead, top = ((4, 2), 2) if labels.task == "regions" else ((4,), 1 + len(labels.structures))
    members = make_room((*lead, 5, 6, 7), np.dtype(np.uint8), outer=len(lead) + 1)
    members[...] = np.random.default_rng(0).integers(0, top, members.shape)
    members[0] = 0
    each = np.stack([labels.masks(member) for member in np.array(members)]).astype(bool)
    truth = [
        [
            np.mean([1 - (x & y).sum() / (x | y).sum() if (x | y).any() else 0 for x, y in zip(a, b, strict=True)])
            for b in each
        ]
        for a in each
    ]
    assert distances_of(members, labels, slab=slab) == pytest.approx(np.array(truth))


def test_as_many_candidates_as_members_are_not_chosen() -> None:
    segmenter = doubtful()
    alike, plain = segmenter(slope(), members=6, candidates=6), segmenter(slope(), members=6)
    assert np.array_equal(alike.members, plain.members)
    assert alike.chosen_of is None


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"members": 5, "candidates": 4}, "candidates is 4, members 5"),
        ({"members": "auto", "candidates": 40}, "members auto"),
        ({"mode": "mean", "candidates": 40}, "mode mean"),
        ({"candidates": 0}, "at least 1"),
    ],
)
def test_what_leaves_no_choice_is_refused(asked: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Request.of(small_config(), **asked)  # type: ignore[arg-type]  # as a user may


def test_candidates_of_a_model_give_way_to_what_leaves_no_choice() -> None:
    config = small_config("sampling.candidates=40")
    assert Request.of(config).sampling.drawn == 40
    for asked in ({"members": "auto"}, {"mode": "mean"}):
        assert Request.of(config, **asked).sampling.candidates is None  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="candidates is 2, members 3"):
        small_config("sampling.candidates=2")


def test_ten_of_a_hundred_is_said_wherever_members_are(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = trained
    out = tmp_path / "out"
    called = ("segment", data, "--split", "test", "--model", run, "--out", out, "--steps", "1", "--write", "all")
    assert call(*called, "--members", "2", "--candidates", "9") == 0
    assert "2 chosen of 9 candidates" in capsys.readouterr().err
    told = json.loads((out / "segment.json").read_text())
    assert (told["members"], told["sampling"]["candidates"]) == (2, 9)
    assert (told["images"][0]["members"], told["images"][0]["chosen_of"]) == (2, 9)
    name = told["images"][0]["name"]
    kept = Segmenter.from_pretrained(run)(data / "images" / f"{name}.png", members=2, candidates=9, steps=1)
    for number, member in enumerate(kept.members):
        saved = read_mask(out / "members" / f"{number:02d}" / "masks" / f"{name}.png")
        assert np.array_equal(saved > 0, member > 0)
    scores = evaluate(out, data, split="test")
    assert scores.setup.members_are == "2 members chosen of 9 candidates"
    assert "expected_ged) is no floor" in scores.conventions["members"]
    assert call("evaluate", out, data, "--split", "test", "--out", tmp_path / "scores") == 0
    assert "2 members chosen of 9 candidates" in " ".join(capsys.readouterr().err.split())
    assert "chosen of 9 candidates" in (tmp_path / "scores" / "report.html").read_text()
