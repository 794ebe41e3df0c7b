"""The authors' command lines, with the flags that their page prints."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from medsegdiff.cli import authors
from medsegdiff.config.load import load_preset
from medsegdiff.errors import CheckpointError, DataError
from medsegdiff.io.atomic import write_json
from tests.makers import small_config

TRAIN_FLAGS = (
    "--data_name ISIC --image_size 256 --num_channels 128 --class_cond False --num_res_blocks 2 --num_heads 1 "
    "--learn_sigma True --use_scale_shift_norm False --attention_resolutions 16 --diffusion_steps 1000 "
    "--noise_schedule linear --rescale_learned_sigmas False --rescale_timesteps False --lr 1e-4 --batch_size 8"
).split()


def test_the_flags_of_the_page_become_the_papers_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    data, out, config, resume = authors.read_training([*TRAIN_FLAGS, "--data_dir", "d", "--out_dir", "o"])
    assert (data, out, resume) == ("d", Path("o"), False)
    assert (config.data.image_size, config.train.batch_size, config.train.learning_rate) == (256, 8, 1e-4)
    assert (config.diffusion.num_train_timesteps, config.diffusion.schedule) == (1000, "linear")
    assert config.model.condition_widths == (48, 80, 128, 192, 256)
    assert config.model.num_blocks == 2
    said = capsys.readouterr().err
    for flag in ("data_name", "class_cond", "num_heads", "learn_sigma", "use_scale_shift_norm", "rescale_timesteps"):
        assert f"--{flag} has no meaning here" in said
    assert "--lr has no" not in said


def test_the_large_setting_scales_the_widths() -> None:
    config = authors.read_training("--num_channels 512 --num_res_blocks 12 --data_dir d".split())[2]
    assert config.model.condition_widths == (192, 320, 512, 768, 1024)
    assert config.model.num_blocks == 12


def test_other_flags_are_settings_too() -> None:
    flags = "--data_dir d --predict_xstart True --use_fp16 True --lr_anneal_steps 7 --ema_rate 0.99 --weight_decay 0"
    config = authors.read_training(flags.split())[2]
    assert (config.diffusion.target, config.train.precision, config.train.max_steps) == ("x0", "fp16", 7)
    assert (config.train.ema_decay, config.train.weight_decay) == (0.99, 0)
    for given, precision in (("--use_fp16 False", "fp32"), ("", "auto")):
        assert authors.read_training(f"--data_dir d {given}".split())[2].train.precision == precision


def test_what_a_flag_is_said_to_mean_is_so(capsys: pytest.CaptureFixture[str]) -> None:
    given = "--use_checkpoint True --learn_sigma True --rescale_learned_sigmas True --version new --data_dir d"
    config = authors.read_training(given.split())[2]
    said = capsys.readouterr().err
    assert config.train.gradient_checkpointing
    assert "use_checkpoint" not in said
    assert not authors.read_training("--use_checkpoint False --data_dir d".split())[2].train.gradient_checkpointing
    for flag in ("learn_sigma", "rescale_learned_sigmas", "version"):
        (line,) = (line for line in said.splitlines() if f"--{flag} has no meaning" in line)
        assert "v1" in line
        assert "release" in line
    learned = {name: getattr(load_preset(name).model, "learn_sigma", False) for name in ("v2-paper", "v1", "release")}
    assert learned == {"v2-paper": False, "v1": True, "release": True}


def test_sampling_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_json(tmp_path / "run.json", {"data": "here"})
    given = ["--data_name", "ISIC", "--model_path", str(tmp_path / "model.pt"), "--num_ensemble", "5"]
    flags = authors.read_sampling([*given, "--dpm_solver", "True", "--image_size", "256"])
    assert (flags.data, flags.run, flags.weights, flags.out) == (Path("here"), tmp_path, "best", Path("results"))
    assert (flags.options["members"], flags.options["steps"]) == (5, 20)
    assert (flags.options["sampler"], flags.options["fusion"]) == ("dpmpp-2m", "staple")
    assert "--image_size has no meaning here: the checkpoint carries its configuration" in capsys.readouterr().err
    plain = authors.read_sampling([*given, "--diffusion_steps", "50", "--data_dir", "there"])
    assert (plain.data, plain.options["steps"], plain.options["sampler"]) == (Path("there"), 50, None)
    respaced = authors.read_sampling([*given, "--timestep_respacing", "ddim25"]).options
    assert (respaced["steps"], respaced["sampler"]) == (25, "ddim")


def test_imported_weights_tell_of_no_data_and_segment_those_that_are_given(
    trained: tuple[Path, Path], tmp_path: Path
) -> None:
    run, data = tmp_path / "run", trained[1]
    shutil.copytree(trained[0], run)
    (run / "split.csv").unlink()
    for record in ({"imported": "theirs.pt", "sha256": "0", "made_anew": []}, None):  # as 'import' writes it; none
        (run / "run.json").unlink(missing_ok=True)
        if record is not None:
            write_json(run / "run.json", record)
        with pytest.raises(DataError, match=r"does not tell what it was trained on\. Give --data_dir"):
            authors.read_sampling(["--model_path", str(run)])
        few = ("--num_ensemble", "1", "--diffusion_steps", "1")
        out = tmp_path / f"out {record is None}"
        authors.sample(["--model_path", str(run), "--data_dir", str(data), "--out_dir", str(out), *few])
        assert len(list((out / "masks").iterdir())) == 12


def test_a_checkpoint_that_is_not_there_and_a_respacing_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no such file or folder"):
        authors.read_sampling(["--model_path", str(tmp_path / "gone")])
    with pytest.raises(DataError, match="Give --data_dir"):
        authors.read_sampling(["--model_path", str(tmp_path)])
    with pytest.raises(SystemExit):
        authors.read_sampling(["--model_path", str(tmp_path), "--timestep_respacing", "fast"])


@pytest.mark.slow
def test_the_three_commands_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = small_config("train.max_steps=3", "train.val_every=3", "train.save_every=3")
    monkeypatch.setattr(authors, "load_preset", lambda name, overrides=(): small)
    monkeypatch.setitem(authors.FLAGS, "num_channels", authors.Flag(int, "", lambda v: []))
    authors.train([*TRAIN_FLAGS, "--data_dir", str(folder), "--out_dir", str(tmp_path / "run")])
    run, out = str(tmp_path / "run" / "model.pt"), str(tmp_path / "results")
    authors.sample(["--data_dir", str(folder), "--model_path", run, "--out_dir", out, "--dpm_solver", "True"])
    authors.env(["--inp_pth", out, "--out_pth", str(folder / "masks")])
    with (tmp_path / "run" / "split.csv").open(newline="") as file:
        held_out = {row["id"] for row in csv.DictReader(file) if row["split"] == "test"}
    assert {path.stem for path in (tmp_path / "results" / "masks").glob("*.png")} == held_out
    assert held_out


def test_the_scripts_themselves_start() -> None:
    for name in ("train", "sample", "env"):
        shown = subprocess.run(
            [sys.executable, f"scripts/segmentation_{name}.py", "--help"], capture_output=True, text=True, check=True
        )
        assert "usage" in shown.stdout
    bad = subprocess.run(
        [sys.executable, "scripts/segmentation_env.py", "--inp_pth", "gone", "--out_pth", "gone"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert bad.returncode == 1
    assert "there is no such folder" in " ".join(bad.stderr.split())
