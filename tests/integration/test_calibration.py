"""What a run learns of its own probabilities and sizes at the end of training, and where it is used."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from medsegdiff import Segmenter
from medsegdiff.data.loader import PreparedCases
from medsegdiff.data.open import open_source
from medsegdiff.errors import CheckpointError
from medsegdiff.evaluation import evaluate
from medsegdiff.fusion.mixture import Mixture
from medsegdiff.inference.calibration import FILE, Calibration
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.request import Request
from medsegdiff.io.image import read_map
from medsegdiff.metrics.intervals import Stretch
from medsegdiff.models.checkpoint import load_config, load_model
from medsegdiff.training.calibration import calibrate
from medsegdiff.training.train import train
from tests.makers import make_folder, small_config

STEPS = ("train.max_steps=8", "train.val_every=8", "train.save_every=8")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base = tmp_path_factory.mktemp("calibrated")
    data = make_folder(base / "data", count=30)
    train(data, base / "run", small_config(*STEPS, "data.val_fraction=0.4"))
    return base / "run", data


def test_validation_cases_fit_a_mixture_that_is_not_worse_than_its_parts(run: tuple[Path, Path]) -> None:
    found = Calibration.of_run(run[0])
    assert found.cases >= 5
    scores = found.log_scores
    assert scores["mixture"] <= min(scores["anchor"], scores["members"]) + 1e-9
    assert set(found.stretch) == {"foreground"}


def test_results_use_it_and_tell_it(run: tuple[Path, Path], tmp_path: Path) -> None:
    folder, data = run
    kept = (folder / FILE).read_text()
    known = Calibration(
        cases=9,
        sampling=Request.of(load_config(folder)).sampling,
        mixture=Mixture(weight=1.0, slopes=(2.0,), offsets=(-1.0,), time=999.0),
        stretch={"foreground": Stretch(0.5, 1.0)},
    )
    try:
        known.save(folder)
        segmenter = Segmenter.from_pretrained(folder, device="cpu", precision="fp32")
        files = find_inputs([data], split_file=folder / "split.csv", split="test")
        segment_files(segmenter, files, tmp_path / "out", split_file=folder / "split.csv")
        result = segmenter(files[0].images[0])
        by_hand = expit(2 * logit(np.clip(result.anchor_probability, 1e-6, 1 - 1e-6)) - 1)
        assert np.allclose(result.probability, by_hand, atol=1e-5)
        written = read_map(next((tmp_path / "out" / "probability").glob(f"{files[0].name}.png")))
        assert np.abs(written - by_hand[0]).max() < 1e-4
        sizes = np.array([member.sum() for member in result.members], float)
        size = result.sizes()["foreground"]
        low, high = np.quantile(sizes, [0.05, 0.95])
        assert size.low == pytest.approx(max(0, low - 0.5 * sizes.mean()))
        assert size.high == pytest.approx(min(high + sizes.mean(), result.mask.size))
        told = json.loads((tmp_path / "out" / "segment.json").read_text())
        assert told["calibrated_on"] == 9
        assert told["probability"]["weight"] == 1.0
        words = evaluate(tmp_path / "out", data, split="test").setup.probability_is
        assert "mix the anchor (100%) and what members expect, fitted on 9 validation cases" in words
    finally:
        (folder / FILE).write_text(kept)


def test_a_damaged_calibration_is_refused_with_a_way_out(run: tuple[Path, Path]) -> None:
    folder, _ = run
    kept = (folder / FILE).read_text()
    try:
        (folder / FILE).write_text('{"mixture": {"weight": 3}}')
        with pytest.raises(CheckpointError, match="Remove it to segment uncalibrated"):
            Segmenter.from_pretrained(folder)
    finally:
        (folder / FILE).write_text(kept)


def test_a_finished_run_without_a_calibration_is_calibrated_when_it_is_resumed(run: tuple[Path, Path]) -> None:
    folder, data = run
    kept = (folder / FILE).read_text()
    (folder / FILE).unlink()
    outcome = train(data, folder, small_config(*STEPS, "data.val_fraction=0.4"), resume=True)
    assert outcome.reason == "finished already"
    assert (folder / FILE).read_text() == kept


def test_other_ensembles_are_not_called_calibrated_and_the_mean_states_no_size(
    run: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, data = run
    segmenter = Segmenter.from_pretrained(folder, device="cpu", precision="fp32")
    image = next((data / "images").iterdir())
    assert segmenter.calibration.cases >= 5
    assert segmenter(image).stretch == segmenter.calibration.stretch
    assert "other ensembles" not in caplog.text
    assert segmenter(image, members=5).stretch == {}
    assert "The run was calibrated for other ensembles" in caplog.text
    assert "the probability is as it was fitted for those" in caplog.text
    segment_files(segmenter, find_inputs([image]), tmp_path / "out", members=5)
    told = json.loads((tmp_path / "out" / "segment.json").read_text())
    assert told["calibrated_on"] == 0
    assert told["probability"]["slopes"] == list(segmenter.calibration.mixture.slopes)
    words = evaluate(tmp_path / "out", data, present_only=True).setup.probability_is
    assert "what members expect, as it was fitted for other ensembles" in words
    both = [told["runs"][0], {**told["runs"][0], "probability": {"weight": 0.5}}]
    of_two = {key: value for key, value in told.items() if key != "probability"} | {"runs": both}
    (tmp_path / "out" / "segment.json").write_text(json.dumps(of_two))
    words = evaluate(tmp_path / "out", data, present_only=True).setup.probability_is
    assert "what members expect, some of the runs not calibrated, on average over 2 runs" in words
    assert segmenter(image, mode="mean", views=4).sizes() == {}
    assert segmenter(image, fusion="staple").stretch == segmenter.calibration.stretch
    assert Segmenter.from_pretrained(folder, weights="last").calibration == Calibration()


def test_slow_samplers_are_calibrated_on_as_many_cases_as_the_time_allows_or_not_at_all(
    run: tuple[Path, Path], caplog: pytest.LogCaptureFixture
) -> None:
    folder, data = run
    model, config = load_model(folder)
    cases = PreparedCases(open_source(data, config.data), config, stride=model.stride)
    info = replace(cases.source.info, split=dict.fromkeys(cases.source.info.split, "val"))

    def watch(seconds: float) -> Callable[[], float]:
        times = itertools.count()
        return lambda: seconds * next(times)

    def calibrated(seconds: float) -> int:
        found = calibrate(model, config, cases, info, device=torch.device("cpu"), clock=watch(seconds))
        return found.cases

    assert calibrated(0.0) == 30
    assert calibrated(12.0) == 8  # the eighth ends after 96 s
    assert calibrated(60.0) == 0
    assert "a case takes" in caplog.text
