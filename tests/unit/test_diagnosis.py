"""The doctor: what is broken is named, what is whole is called good, and nothing ends in a traceback."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from medsegdiff.checkpoint import BEST, LAST, load_config, save_config, save_weights
from medsegdiff.data.phantom import PhantomSource, write_phantom
from medsegdiff.diffusion import dpm_solver
from medsegdiff.diffusion.process import Process
from medsegdiff.diffusion.samplers import SAMPLERS, Denoised, Row
from medsegdiff.doctor.examination import examine
from medsegdiff.doctor.finding import Diagnosis, Finding
from medsegdiff.doctor.history import examine_history
from medsegdiff.doctor.machine import examine_machine
from medsegdiff.doctor.raters import ECE_EXCESS, Drawn, calibration_error, phantom_of
from medsegdiff.doctor.recorded import examine_recorded, record_of
from medsegdiff.doctor.sampling import examine_sampling, foreground_share
from medsegdiff.doctor.weights import examine_weights
from medsegdiff.errors import CheckpointError, ConfigError, DataError
from medsegdiff.models.base import build_model
from medsegdiff.training.run import Run
from medsegdiff.training.state import STATE
from medsegdiff.training.train import train
from tests.makers import make_folder, small_config, write_png

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
    return by_name(examine_history(Run(run), load_config(run)))


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
    assert diagnosis.of("sampler", "order").verdict == diagnosis.of("sampler", "calibration").verdict == "good"
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


def test_the_phantom_is_compared_with_its_raters(diagnosis: Diagnosis) -> None:
    distance = diagnosis.of("raters", "distance").numbers
    assert 0 < distance["perfect"] < distance["ged"] < 1
    assert 0 < diagnosis.of("raters", "calibration").numbers["perfect"] < 0.15
    assert "known exactly" in diagnosis.of("raters", "calibration").found


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
    assert by_name(examine_recorded(Run(copied), load_config(copied), record_of(copied)))["split"].verdict == "wrong"


def test_other_versions_than_those_of_training_are_told(copied: Path) -> None:
    record = json.loads((copied / "run.json").read_text())
    record["versions"]["torch"] = "1.13.1"
    finding = examine_machine(record, load_config(copied), torch.device("cpu"), "fp32")[0]
    assert finding.verdict == "to look at"
    assert "training had torch 1.13.1" in finding.found


def sampling(*overrides: str) -> dict[str, str]:
    config = small_config(*FILLED, "sampling.steps=20", *overrides)
    return {finding.name: finding.verdict for finding in examine_sampling(config)}


@pytest.mark.parametrize("sampler", ["ddpm", "ddim", "dpmpp-1", "dpmpp-2m", "dpmpp-sde-2m"])
def test_every_sampler_is_right_with_steps_enough(sampler: str) -> None:
    found = sampling(f"sampling.sampler={sampler}", "sampling.steps=60")
    assert found == {"order": "good", "calibration": "good"}


@pytest.mark.parametrize("target", ["x0", "eps", "v"])
def test_every_target_is_read_as_it_was_meant(target: str) -> None:
    assert sampling(f"diffusion.target={target}")["calibration"] == "good"


def test_a_sampler_whose_step_is_broken_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    exponential = dpm_solver._exponential

    def forgets_x(*step: object) -> Row:
        return dataclasses.replace(exponential(*step), x=0.0)  # the prediction instead of the step

    monkeypatch.setattr(dpm_solver, "_exponential", forgets_x)
    assert sampling()["order"] == "wrong"


def test_a_sampler_that_is_no_longer_of_second_order_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dpm_solver, "_multistep", lambda rows, path: tuple(rows))
    assert sampling()["order"] == "wrong"


def test_a_last_step_that_returns_noise_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = SAMPLERS["dpmpp-2m"]

    def noisy(schedule: object, times: object, *, eta: float = 0.0) -> tuple[Row, ...]:
        *rows, last = entry.factory(schedule, times, eta=eta)
        return (*rows, dataclasses.replace(last, x=1.0, x_0=0.0, previous=0.0))

    monkeypatch.setitem(SAMPLERS._entries, "dpmpp-2m", dataclasses.replace(entry, factory=noisy))
    monkeypatch.setattr(Process, "denoised", lambda self, output, x_t, level: Denoised(torch.randn_like(x_t)))
    assert sampling()["calibration"] == "wrong"


def test_one_step_can_not_draw_what_is_rare() -> None:
    assert sampling("sampling.steps=1")["calibration"] == "wrong"


@pytest.mark.parametrize("p", [0.1, 0.4])
def test_exclusive_classes_and_regions_are_drawn_as_often_as_they_should(p: float) -> None:
    classes = small_config(
        "data.channels=1", "data.task=exclusive", "data.classes=[background, a, b]", "sampling.steps=30"
    )
    regions = small_config("data.channels=1", "data.task=regions", "data.classes=[a, b]", "sampling.steps=30")
    assert foreground_share(classes, p) == pytest.approx(p, abs=0.03)
    assert foreground_share(regions, p) == pytest.approx(p, abs=0.03)


def drawn_lesions(members_of: Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]) -> list[Drawn]:
    source, rng = PhantomSource(small_config().data), np.random.default_rng(0)
    cases = []
    for name in source.info.names("test"):
        masks, weights = source.lesion(name).distribution()
        raters = masks[rng.choice(4, size=5, p=weights)]
        cases.append(Drawn(members_of(masks, weights, rng), raters, masks, weights, known=True))
    return cases


def test_members_drawn_as_raters_draw_are_calibrated_and_the_likeliest_mask_is_not() -> None:
    perfect = drawn_lesions(lambda masks, weights, rng: masks[rng.choice(4, size=8, p=weights)])
    stubborn = drawn_lesions(lambda masks, weights, rng: masks[[weights.argmax()] * 8])
    assert calibration_error(perfect) < 0.1
    assert calibration_error(stubborn) > calibration_error(perfect) + ECE_EXCESS
    measured, rng = np.mean([one.expected_agreement() for one in perfect]), np.random.default_rng(1)
    pairs = [one.perfect(rng) for one in perfect for _ in range(30)]
    dice = [2 * (m[0] & m[1]).sum() / max(1, m[0].sum() + m[1].sum()) for m in pairs]
    assert measured == pytest.approx(np.mean(dice), abs=0.03)


def test_raters_who_stand_for_their_distribution_give_the_same_expectation_on_average() -> None:
    exact = drawn_lesions(lambda masks, weights, rng: masks[rng.choice(4, size=8, p=weights)])
    share = np.full(5, 0.2)
    stand_ins = [Drawn(one.members, one.raters, one.raters, share, known=False) for one in exact]
    known, guessed = (np.mean([one.expected_ged() for one in cases]) for cases in (exact, stand_ins))
    assert guessed == pytest.approx(known, rel=0.15)


def test_the_phantom_is_recognised_as_a_folder_and_others_are_not(tmp_path: Path) -> None:
    config = small_config()
    write_phantom(PhantomSource(config.data, counts=(1, 1, 1)), tmp_path / "phantom")
    assert phantom_of("phantom", config) is not None
    assert phantom_of(tmp_path / "phantom", config) is not None
    assert phantom_of(tmp_path / "phantom", small_config("data.split_seed=1")) is None
    assert phantom_of(make_folder(tmp_path / "data"), config) is None
    assert phantom_of("", config) is None


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
