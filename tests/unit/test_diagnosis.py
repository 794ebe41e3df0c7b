"""The doctor: what is broken is named, what is whole is called good, and nothing ends in a traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from medsegdiff.data.phantom import PhantomSource, write_phantom
from medsegdiff.data.split import names_in
from medsegdiff.doctor import examine
from medsegdiff.doctor.log import examine_log
from medsegdiff.doctor.masks import _differ
from medsegdiff.doctor.raters import ECE_EXCESS, Drawn, calibration_error
from medsegdiff.doctor.report import Diagnosis, Finding
from medsegdiff.doctor.settings import examine_data, examine_machine, examine_sampler
from medsegdiff.doctor.weights import examine_weights
from medsegdiff.errors import CheckpointError, ConfigError, DataError
from medsegdiff.metrics.distribution import ged
from medsegdiff.metrics.plausibility import Appearance
from medsegdiff.models.base import build_model
from medsegdiff.models.checkpoint import BEST, LAST, STATE, load_config, save_config, save_weights
from medsegdiff.training.run import Run
from medsegdiff.training.train import train
from tests.makers import small_config, write_png

FILLED = ("data.channels=1", "data.task=binary", "data.classes=[lesion]")


def fresh_run(folder: Path, *overrides: str) -> Path:
    """A run whose weights are as they were drawn."""
    config = small_config(*FILLED, *overrides)
    save_config(folder, config)
    torch.manual_seed(7)
    save_weights(folder / BEST, build_model(config).state_dict())
    return folder


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of a few seconds on the phantom that has learned where lesions are."""
    base = tmp_path_factory.mktemp("learned")
    recipe = ["max_steps=40", "val_every=40", "save_every=40", "warmup_steps=5", "learning_rate=8e-3", "batch_size=4"]
    config = small_config(*(f"train.{one}" for one in recipe), "train.ema_decay=0.9", "sampling.steps=20")
    write_phantom(PhantomSource(config.data, counts=(48, 2, 3)), base / "data")
    train(base / "data", base / "run", config, device="cpu")
    return base / "run"


@pytest.fixture(scope="module")
def diagnosis(learned: Path) -> Diagnosis:
    return examine(learned, device="cpu", precision="fp32")


@pytest.fixture
def copied(learned: Path, tmp_path: Path) -> Path:
    """The learned run, to be broken."""
    return Path(shutil.copytree(learned, tmp_path / "copied"))


def of_weights(run: Path) -> dict[str, Finding]:
    return by_name(examine_weights(Run(run), load_config(run), "best")[0])


def of_history(run: Path) -> dict[str, Finding]:
    return by_name(examine_log(Run(run), load_config(run)))


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def test_a_fresh_run_is_called_untrained(tmp_path: Path) -> None:
    result = examine(fresh_run(tmp_path / "run"), device="cpu")
    assert result.of("weights", "trained").verdict == "wrong"
    assert "untrained" in result.of("weights", "trained").found
    assert "scattered like noise" in result.of("masks", "appearance").found
    assert result.of("masks", "decided").verdict == "to look at"
    assert not result.ok


def test_a_fresh_run_is_known_by_its_masks_alone(tmp_path: Path, copied: Path) -> None:
    """The same weights beside a log and data of a run that was trained."""
    save_weights(copied / BEST, build_model(load_config(copied)).state_dict(), {"step": 40, "dice": 0.8})
    result = examine(copied, device="cpu")
    assert result.of("masks", "appearance").verdict == "wrong"
    assert result.of("training", "end").verdict == "good"


def test_a_trained_run_is_not_called_untrained(diagnosis: Diagnosis) -> None:
    for finding in ("file", "last.safetensors", STATE, "values", "trained", "average"):
        assert diagnosis.of("weights", finding).verdict == "good", finding
    for finding in ("appearance", "follow the image", "members"):
        assert diagnosis.of("masks", finding).verdict == "good", finding
    for finding in ("end", "loss", "skipped steps", "validation"):
        assert diagnosis.of("training", finding).verdict == "good", finding
    assert diagnosis.of("sampler", "steps").verdict == diagnosis.of("sampler", "noise").verdict == "good"
    assert diagnosis.of("data", "split").numbers == {"train": 48, "val": 2, "test": 3}
    assert diagnosis.ok


def test_findings_repeat_what_training_wrote(diagnosis: Diagnosis, learned: Path) -> None:
    lines = [json.loads(line) for line in (learned / "log.jsonl").read_text().splitlines()]
    best = next(line for line in lines if "dice" in line)
    assert diagnosis.of("training", "validation").numbers["dice"] == best["dice"]
    gain = diagnosis.of("training", "fused against anchor").numbers["gain"]
    assert gain == pytest.approx(best["dice"] - best["dice_anchor"])
    assert diagnosis.of("training", "end").numbers == {"step": 40, "max_steps": 40}
    recorded = json.loads((learned / "run.json").read_text())["versions"]["torch"]
    assert diagnosis.of("machine", "versions").numbers["here"]["torch"] == recorded
    json.dumps(diagnosis.to_dict())


def test_a_run_is_compared_with_the_raters_of_its_data(diagnosis: Diagnosis) -> None:
    distance = diagnosis.of("raters", "distance").numbers
    assert 0 < distance["perfect"] < distance["ged"] < 1
    calibration = diagnosis.of("raters", "calibration")
    assert 0 < calibration.numbers["perfect"] < 0.15
    assert calibration.numbers["cases"] == 3  # the test part
    assert "5 raters" in calibration.found


def test_the_phantom_is_made_anew_for_a_run_that_was_trained_on_it(copied: Path, diagnosis: Diagnosis) -> None:
    record = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(record | {"data": "phantom"}))
    (copied / "split.csv").unlink()
    result = examine(copied, device="cpu", cases=2)
    assert "2 images of the phantom" in result.of("masks", "appearance").found
    assert result.of("masks", "appearance").verdict == diagnosis.of("masks", "appearance").verdict
    assert result.of("raters", "calibration").numbers["cases"] == 4


def test_data_that_are_gone_are_said_to_be_and_made_up(copied: Path) -> None:
    record = json.loads((copied / "run.json").read_text())
    (copied / "run.json").write_text(json.dumps(record | {"data": "/gone"}))
    result = examine(copied, device="cpu", cases=2)
    assert "made-up images" in result.of("masks", "appearance").found
    assert "--data" in result.of("raters", "calibration").advice


@pytest.mark.parametrize("broken", [BEST, LAST, STATE])
def test_a_truncated_file_is_reported(copied: Path, broken: str) -> None:
    content = (copied / broken).read_bytes()
    (copied / broken).write_bytes(content[: len(content) // 2])
    result = examine(copied, device="cpu", cases=1)
    name = "file" if broken == BEST else broken
    assert result.of("weights", name).verdict == "wrong"
    assert broken in result.of("weights", name).found
    assert not result.ok
    assert any(finding.group == "masks" for finding in result.findings) == (broken != BEST)
    if broken == BEST:
        assert examine(copied, device="cpu", cases=1, weights="last").of("weights", "file").verdict == "good"


@pytest.mark.parametrize(
    ("broken", "group", "name"),
    [
        ("config.json", "weights", "configuration"),
        ("run.json", "data", "record"),
        ("log.jsonl", "training", "readable"),
        ("split.csv", "data", "split"),
    ],
)
def test_a_damaged_text_is_reported(copied: Path, broken: str, group: str, name: str) -> None:
    (copied / broken).write_text('{"step": 1, "lo}\n' + "id,nothing\n")
    finding = examine(copied, device="cpu", cases=1).of(group, name)
    assert finding.verdict == "wrong"
    assert broken in finding.found or name == "split"


def test_weights_of_another_network_are_reported(copied: Path) -> None:
    other = small_config(*FILLED, "model.time_dim=24")
    save_weights(copied / BEST, build_model(other).state_dict())
    assert "another architecture" in of_weights(copied)["file"].found


def changed_state(run: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    from safetensors import safe_open

    with safe_open(run / STATE, framework="pt") as stored:
        facts = stored.metadata()
    tensors = load_file(run / STATE)
    change(tensors)
    save_file({name: value.clone() for name, value in tensors.items()}, run / STATE, metadata=facts)


def test_an_average_that_equals_the_raw_weights_is_noticed(copied: Path) -> None:
    def equal(tensors: dict[str, Tensor]) -> None:
        tensors.update({f"average.{n.removeprefix('model.')}": v for n, v in tensors.items() if n.startswith("model.")})

    changed_state(copied, equal)
    finding = of_weights(copied)["average"]
    assert (finding.verdict, finding.numbers["distance"]) == ("to look at", 0)
    assert "nothing was averaged" in finding.found


def test_distance_of_average_and_raw_is_relative_to_the_raw(copied: Path) -> None:
    def apart(tensors: dict[str, Tensor]) -> None:
        tensors.update(
            {f"average.{n.removeprefix('model.')}": 1.5 * v for n, v in tensors.items() if n.startswith("model.")}
        )

    changed_state(copied, apart)
    finding = of_weights(copied)["average"]
    assert finding.verdict == "to look at"
    assert finding.numbers["distance"] == pytest.approx(0.5)


def test_weights_that_are_not_finite_are_reported(copied: Path) -> None:
    state = load_file(copied / BEST)
    name = next(name for name, value in state.items() if value.ndim > 1)
    state[name].flatten()[0] = float("nan")
    save_weights(copied / BEST, state, {"step": 40})
    finding = of_weights(copied)["values"]
    assert finding.verdict == "wrong"
    assert name in finding.found


def log(run: Path, *lines: dict[str, object]) -> Path:
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in (STATE, LAST, BEST):
        (run / name).unlink()
    return run


def test_a_loss_that_is_not_finite_or_does_not_fall(copied: Path) -> None:
    losses = [{"step": 10 * i, "loss": 1.0 + 0.01 * i, "skipped": 0} for i in range(1, 9)]
    flat = of_history(log(copied, *losses))
    assert flat["loss"].verdict == "to look at"
    assert flat["validation"].verdict == "to look at"
    (copied / "log.jsonl").write_text(json.dumps({"step": 10, "loss": None, "skipped": 10}) + "\n")
    lost = of_history(copied)
    assert lost["loss"].verdict == "wrong"
    assert lost["skipped steps"].verdict == "to look at"


@pytest.mark.parametrize(
    ("dice", "anchor", "verdicts"),
    [(0.01, 0.4, ("wrong", None)), (0.3, 0.2, ("to look at", "good")), (0.8, 0.85, ("good", "to look at"))],
)
def test_validation_is_judged_at_its_best(
    copied: Path, dice: float, anchor: float, verdicts: tuple[str, str | None]
) -> None:
    validations = [{"step": 5, "dice": dice, "dice_anchor": anchor}, {"step": 10, "dice": 0.0, "dice_anchor": 0.9}]
    result = of_history(log(copied, *validations))
    assert result["validation"].verdict == verdicts[0]
    assert result["validation"].numbers["step"] == 5
    if verdicts[1] is not None:
        assert result["fused against anchor"].verdict == verdicts[1]


def test_an_interrupted_run_and_one_that_stopped_early(copied: Path) -> None:
    config = load_config(copied)
    longer = config.model_copy(update={"train": config.train.model_copy(update={"max_steps": 100})})
    save_config(copied, longer)
    finding = of_history(copied)["end"]
    assert (finding.verdict, finding.numbers["step"]) == ("to look at", 40)
    assert "--resume" in finding.advice
    patient = longer.model_copy(update={"train": longer.train.model_copy(update={"patience": 1})})
    progress = {"step": 80, "worse_validations": 1, "skipped": 0}
    save_weights(copied / STATE, {"none": torch.zeros(1)}, {"progress": json.dumps(progress)})
    save_config(copied, patient)
    finding = of_history(copied)["end"]
    assert (finding.verdict, finding.numbers["step"]) == ("good", 80)
    assert "Stopped early" in finding.found


def test_a_split_that_was_changed_after_training_is_wrong(copied: Path) -> None:
    text = (copied / "split.csv").read_text().replace(",test", ",train", 1)
    (copied / "split.csv").write_text(text)
    assert by_name(examine_data(Run(copied), load_config(copied), Run(copied).told()))["split"].verdict == "wrong"


def test_other_versions_than_those_of_training_are_told(copied: Path) -> None:
    record = json.loads((copied / "run.json").read_text())
    record["versions"]["torch"] = "1.13.1"
    record["commands"][-1]["precision"] = "fp16"
    finding, device = examine_machine(record, load_config(copied), torch.device("cpu"), "fp32")
    assert "trained with fp16)" in device.found
    assert finding.verdict == "to look at"
    assert "training had torch 1.13.1" in finding.found


def sampler(*overrides: str) -> dict[str, Finding]:
    config = small_config(*FILLED, "sampling.steps=20", *overrides)
    return by_name(examine_sampler(config))


def test_steps_are_good_where_several_lie_where_pixels_are_decided_and_wrong_where_none_does() -> None:
    found = sampler()
    assert (found["steps"].verdict, found["noise"].verdict) == ("good", "good")
    assert found["steps"].numbers == {"steps": 20, "deciding": 4}
    few, one = sampler("sampling.steps=5")["steps"], sampler("sampling.steps=1")["steps"]
    assert (few.verdict, one.verdict) == ("to look at", "wrong")
    assert "--steps" in few.advice
    assert "agree where raters do not" in one.found
    late = sampler("sampling.steps=10", "sampling.spacing=trailing")["steps"]
    assert late.verdict == "to look at"  # the last of them leaps from λ = −0.8 to the mask


def test_regions_are_decided_by_four_steps() -> None:
    verdicts = [sampler("sampling.spacing=regions", f"sampling.steps={n}")["steps"].verdict for n in (3, 4, 20)]
    assert verdicts == ["to look at", "good", "good"]


def test_a_distilled_model_takes_one_step_and_a_mean_takes_none() -> None:
    assert sampler("train.teacher=runs/v2", "sampling.steps=1")["steps"].verdict == "good"
    assert sampler("train.teacher=runs/v2", "sampling.steps=4")["steps"].verdict == "to look at"
    assert sampler("sampling.mode=mean")["steps"].verdict == "skipped"


def test_members_in_pairs_of_opposite_noise_are_noticed() -> None:
    assert sampler("sampling.antithetic=true")["noise"].verdict == "to look at"


def test_a_sampler_that_there_is_not_is_a_finding(copied: Path) -> None:
    text = (copied / "config.json").read_text().replace("dpmpp-2m", "euler")
    (copied / "config.json").write_text(text)
    finding = examine(copied, device="cpu", cases=1).of("sampler", "readable")
    assert finding.verdict == "wrong"
    assert "euler" in finding.found


def drawn_lesions(members_of: Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]) -> list[Drawn]:
    source, rng = PhantomSource(small_config().data), np.random.default_rng(0)
    cases = []
    for name in source.info.names("test"):
        masks, weights = source.lesion(name).distribution()
        cases.append(Drawn(members_of(masks, weights, rng), masks[rng.choice(4, size=5, p=weights)]))
    return cases


def test_members_drawn_as_raters_draw_are_calibrated_and_the_likeliest_mask_is_not() -> None:
    rng = np.random.default_rng(1)
    perfect = [one.perfect(rng) for one in drawn_lesions(lambda masks, weights, rng: masks[[0] * 8])]
    stubborn = drawn_lesions(lambda masks, weights, rng: masks[[weights.argmax()] * 8])
    assert calibration_error(perfect) < 0.1
    assert calibration_error(stubborn) > calibration_error(perfect) + ECE_EXCESS


def test_what_a_perfect_sampler_scores_is_what_members_of_the_known_distribution_score_on_average() -> None:
    exact = drawn_lesions(lambda masks, weights, rng: masks[rng.choice(4, size=8, p=weights)])
    scored = np.mean([ged(one.members, one.raters).value for one in exact])
    assert np.mean([one.expected_ged() for one in exact]) == pytest.approx(scored, rel=0.15)


def test_data_with_one_rater_have_nothing_to_compare_and_with_two_they_have(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    run, data = trained
    alone = examine(run, data=data, device="cpu", cases=2)
    assert alone.of("raters", "calibration").verdict == "skipped"
    assert str(data) in alone.of("masks", "appearance").found
    for rater in ("rater1", "rater2"):
        shutil.copytree(data / "masks", tmp_path / "two" / "masks" / rater)
    shutil.copytree(data / "images", tmp_path / "two" / "images")
    several = examine(run, data=tmp_path / "two", device="cpu", cases=2)
    assert several.of("raters", "agreement").numbers["raters"] == 1
    assert "2 raters" in several.of("raters", "calibration").found


def test_images_that_one_rater_drew_are_not_compared(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = trained
    for rater in ("rater1", "rater2"):
        shutil.copytree(data / "masks", tmp_path / "two" / "masks" / rater)
    shutil.copytree(data / "images", tmp_path / "two" / "images")
    tests = sorted(names_in(Run(run).split, "test"))
    masks = sorted((tmp_path / "two" / "masks" / "rater2").iterdir())
    for mask in masks[2:]:
        if mask.stem != tests[0]:
            mask.unlink()
    calibration = examine(run, data=tmp_path / "two", device="cpu", cases=2).of("raters", "calibration")
    assert calibration.verdict in ("good", "to look at")
    assert calibration.numbers["cases"] == 1
    (tmp_path / "two" / "masks" / "rater2" / f"{tests[0]}.png").unlink()
    trained_on = examine(run, data=tmp_path / "two", device="cpu", cases=2).of("raters", "calibration")
    assert trained_on.verdict == "skipped"
    assert "test image of" in trained_on.found  # those that several drew are training's
    shutil.rmtree(tmp_path / "two" / "masks" / "rater2")
    alone = examine(run, data=tmp_path / "two", device="cpu", cases=2).of("raters", "calibration")
    assert alone.verdict == "skipped"
    assert "has one rater" in alone.found


def test_images_that_the_model_ignores_are_noticed(copied: Path) -> None:
    """Without gates and embedding the Diffusion Model sees no image."""
    state = load_file(copied / BEST)
    state = {n: torch.zeros_like(v) if "condition_model" in n else v for n, v in state.items()}
    save_weights(copied / BEST, state, {"step": 40})
    finding = examine(copied, device="cpu").of("masks", "follow the image")
    assert finding.verdict == "wrong"
    assert finding.numbers["change"] < 1e-3


def test_what_is_asked_wrongly_is_an_error(tmp_path: Path, learned: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        examine(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no such file"):
        examine(learned, data=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="at least 1"):
        examine(learned, cases=0)
    write_png(tmp_path / "empty" / "a.txt.png", np.zeros((4, 4), np.uint8))
    assert not examine(tmp_path / "empty").ok  # a folder, though no run


def test_members_that_drew_nothing_agree_about_nothing() -> None:
    nothing = Appearance(0.0, 0.0, 1.0, 0.0)
    assert _differ([nothing] * 3, [1.0] * 3).verdict == "skipped"
    something = Appearance(0.1, 0.1, 1.0, 0.1)
    assert _differ([nothing, something], [1.0, 1.0]).verdict == "to look at"  # all the same
    assert _differ([nothing, something], [1.0, 0.9]).verdict == "good"
