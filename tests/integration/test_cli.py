"""The command line: help, exit codes, JSON, and the whole path as a user types it."""

from __future__ import annotations

import json
import re
import resource
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.makers import disc, write_png
from tests.program import SETS, call
from tests.volumes import save

COMMANDS = [
    [],
    ["demo"],
    ["train"],
    ["segment"],
    ["collect"],
    ["doctor"],
    ["evaluate"],
    ["compare"],
    *(["paper", name] for name in ("table1", "table2", "table3", "table4", "table5", "figure3")),
    ["reproduce", "table4"],
    ["benchmark", "speed"],
    ["benchmark", "train"],
    ["data", "check"],
    ["data", "masks"],
    ["data", "convert"],
    ["data", "plan"],
    ["import"],
    ["info"],
    ["list"],
]
STEPS = ["--set", "train.max_steps=4", "--set", "train.val_every=2", "--set", "train.save_every=2"]


def cpu_seconds(*arguments: str) -> float:
    """Run Python, and measure the time that its process computed, whatever else the machine does."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], capture_output=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_is_quick() -> None:
    start = min(cpu_seconds("-c", "pass") for _ in range(3))
    assert min(cpu_seconds("-m", "medsegdiff", "--help") for _ in range(5)) - start < 0.5


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_gives_an_example_and_what_all_commands_know(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*command, "--help") == 0
    shown = capsys.readouterr().out
    assert not command or "Example" in shown
    assert "--quiet" in shown
    assert "--verbose" in shown


def test_no_heavy_library_is_imported_for_help() -> None:
    """What the half second above rests on, without a clock."""
    heavy = {"torch", "monai", "numpy", "accelerate", "pydantic", "yaml"}
    code = f"import medsegdiff, medsegdiff.cli, sys; print({heavy} & set(sys.modules))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "set()"


def test_the_whole_path(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = tmp_path / "run", tmp_path / "out"
    assert call("train", folder, "--out", run, *SETS, *STEPS) == 0
    assert str(run) in capsys.readouterr().out
    assert call("segment", folder, "--model", run, "--out", out, "--split", "test", "--write", "all") == 0
    shown = capsys.readouterr()
    assert shown.out.strip().endswith(str(out))
    assert "Segmented 2 of 2 images" in shown.err
    assert len(list((out / "masks").glob("*.png"))) == 2
    assert len(list((out / "members").iterdir())) == 3
    assert call("evaluate", out, folder / "masks", "--json") == 1  # ten references have no prediction
    assert "have no prediction" in capsys.readouterr().err
    assert call("evaluate", out, folder, "--split", "test", "--json", "--out", tmp_path / "scores") == 0
    result = json.loads(capsys.readouterr().out)
    assert {"mean", "ci95"} == set(result["summary"]["dice"])
    assert {case["name"] for case in result["cases"]} == {p.stem for p in (out / "masks").glob("*.png")}
    assert (tmp_path / "scores" / "metrics.csv").exists()
    assert call("segment", folder, "--model", run, "--out", out, "--split", "test") == 2
    assert "Add --overwrite" in capsys.readouterr().err
    assert call("segment", folder, "--model", run, "--out", out, "--split", "test", "--overwrite") == 0
    assert not (out / "members").exists()
    assert call("segment", folder, "--model", run, "--out", folder, "--overwrite") == 2
    assert "did not write, perhaps your data" in capsys.readouterr().err
    assert call("train", folder, "--out", run, "--resume", "--set", "train.max_steps=6") == 0
    assert call("info", run, "--json") == 0
    described = json.loads(capsys.readouterr().out.split("\n", 1)[1])
    assert described["cases"]["test"] == 2


def test_files_that_can_not_be_read_are_listed_and_the_rest_is_done(
    trained: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, data = trained
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(97):
        (pictures / f"picture{i:02d}.png").write_bytes((data / "images" / f"case{i % 12:02d}.png").read_bytes())
    (pictures / "bad.png").write_bytes(b"not a picture")
    write_png(pictures / "flat.png", np.zeros((20, 20), np.uint8))
    (pictures / "gone.png").symlink_to(pictures / "nowhere.png")
    save(pictures / "cut.nii.gz", np.random.default_rng(0).integers(0, 99, (9, 9, 9), dtype=np.int16))
    (pictures / "cut.nii.gz").write_bytes((pictures / "cut.nii.gz").read_bytes()[:-200])
    options = ("--members", "2", "--steps", "1", "--json")
    assert call("segment", pictures, "--model", run, "--out", tmp_path / "out", *options) == 3
    shown = capsys.readouterr()
    done = json.loads(shown.out)
    assert len(done["done"]) == len(list((tmp_path / "out" / "masks").iterdir())) == 97
    assert sorted(Path(p).name for p in done["failed"]) == ["bad.png", "cut.nii.gz", "flat.png"]
    assert any("nothing to see" in reason for reason in done["failed"].values())
    assert any("cut off or damaged" in reason for reason in done["failed"].values())
    assert "3 images could not be segmented" in shown.err
    assert "Warning: Left out of" in shown.err
    assert [line.endswith("gone.png (a link that leads nowhere).") for line in done["passed_over"]] == [True]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "DATA", "--out", "RUN", "--preset", "v2-tny"], 2, "Did you mean 'v2-tiny'"),
        (["train", "DATA", "--out", "RUN", "--set", "train.max_stepz=3"], 2, "Did you mean 'train.max_steps'"),
        (["train", "gone", "--out", "RUN"], 1, "there is no such folder"),
        (["segment", "DATA", "--model", "gone", "--out", "OUT"], 1, "there is no such folder"),
        (["segment", "gone", "--model", "TRAINED", "--out", "OUT"], 1, "no such file or folder"),
        (["segment", "DATA", "--model", "TRAINED", "--out", "OUT", "--fusion", "stapl"], 2, "Did you mean 'staple'"),
        (["segment", "DATA", "--model", "TRAINED", "--out", "OUT", "--split", "exam"], 1, "the split 'exam' holds no"),
        (["train", "DATA", "--out", "RUN", "--resume", "--preset", "v2"], 2, "leave --preset out"),
        (["train", "DATA", "--out", "FILE", "--set", "train.max_steps=1"], 2, "is a file"),
        (["train", "folder", "--out", "RUN"], 1, "there is no such folder"),
        (["train", "DATA", "--out", "RUN", "--device", "cuda:7"], 2, "allowed is cpu"),
        (["segment", "DATA", "DATA", "--model", "TRAINED", "--out", "OUT"], 1, "would overwrite each other"),
        (["segment", "DATA", "--model", "TRAINED", "--out", "OUT", "--device", "tpu9"], 2, "can't be used"),
        (["train", "DATA"], 2, "Missing option"),
        (["segment", "DATA", "--model", "TRAINED", "--out", "OUT", "--precision", "fp8"], 2, "Invalid value"),
        (["info", "v9"], 2, "No preset 'v9'"),
        (["--plugin", "gone.py", "list"], 1, "no such plugin"),
    ],
)
def test_what_is_wrong_is_said_and_nothing_is_written(
    folder: Path,
    trained: tuple[Path, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    words: str,
) -> None:
    places = {
        "DATA": folder,
        "RUN": tmp_path / "run",
        "OUT": tmp_path / "out",
        "TRAINED": trained[0],
        "FILE": folder / "split.csv",
    }
    (folder / "split.csv").write_text(
        "id,split\n" + "".join(f"case{i:02d},{'val' if i == 1 else 'train'}\n" for i in range(12))
    )
    assert call(*(places.get(a, a) for a in arguments)) == code
    shown = capsys.readouterr()
    assert words in " ".join(shown.err.split())
    assert "Traceback" not in shown.err
    assert not (tmp_path / "run").exists()
    assert not (tmp_path / "out").exists()


def test_dry_run_prints_and_writes_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("train", folder, "--out", tmp_path / "run", *SETS, "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "task: binary" in shown
    assert "channels: 1" in shown
    assert not (tmp_path / "run").exists()


def test_data_check_says_how_many_it_does_not_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = ["id,split"]
    for number in range(10):
        picture = disc((20 + number, 24), (10, 12), 6).astype(np.uint8) * 200
        for part in ("train", "test"):
            for kind in ("images", "masks"):
                write_png(tmp_path / kind / f"{part}{number}.png", picture if kind == "images" else picture // 200)
            rows.append(f"{part}{number},{part}")
    (tmp_path / "split.csv").write_text("\n".join(rows) + "\n")
    assert call("data", "check", tmp_path) == 0
    said = capsys.readouterr().out
    assert re.search(r"sizes  .*27×24 and 2 more", said)
    assert re.search(r"near-duplicates (\d+) across parts\n(  .* ~ .*\n){8}  and \d+ more \(all with --json\)\n", said)
    call("data", "check", tmp_path, "--json")
    assert len(json.loads(capsys.readouterr().out)["sizes"]) == 10


def test_data_check(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("data", "check", folder, "--out", tmp_path / "preview.png") == 0
    assert "Ready to train" in capsys.readouterr().out
    assert (tmp_path / "preview.png").exists()
    (folder / "masks" / "case03.png").unlink()
    write_png(folder / "masks" / "case05.png", np.zeros((5, 5), np.uint8))
    twin = (folder / "images" / "case00.png").read_bytes()
    (folder / "images" / "case01.png").write_bytes(twin)
    (folder / "split.csv").write_text(
        "id,split\n" + "".join(f"case{i:02d},{'test' if i == 1 else 'train'}\n" for i in range(12))
    )
    assert call("data", "check", folder, "--out", tmp_path / "preview.png", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert any("case03" in problem and "no mask" in problem for problem in found["problems"])
    assert any("case05" in problem and "5×5" in problem for problem in found["problems"])
    assert [(p["a"], p["b"]) for p in found["near_duplicates"]] == [("case00", "case01")]
    (tmp_path / "empty").mkdir()
    assert call("data", "check", tmp_path / "empty", "--out", tmp_path / "preview.png") == 1
    shown = capsys.readouterr()
    assert "expected images" in shown.out
    assert not (tmp_path / "preview.png").exists()  # that of another folder would mislead
    assert call("data", "check", tmp_path, "--out", tmp_path) == 2


@pytest.mark.parametrize("kind", ["exclusive", "regions", "one structure", "raters"])
def test_every_layout_can_be_trained_segmented_and_scored(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    labels = np.zeros((40, 32), np.uint8)
    labels[8:30, 8:24], labels[14:22, 12:20] = 1, 2
    masks = {
        "exclusive": {"": labels},
        "regions": {"disc": labels > 0, "cup": labels > 1},
        "one structure": {"lesion": labels > 0},
        "raters": {"rater1": labels > 0, "rater2": labels > 1},
    }[kind]
    for path in list((folder / "masks").iterdir()):
        path.unlink()
        for name, mask in masks.items():
            pixels = mask if kind == "exclusive" else mask.astype(np.uint8) * np.uint8(255)
            write_png(folder / "masks" / name / path.name, pixels)
    run, out = tmp_path / "run", tmp_path / "out"
    assert call("train", folder, "--out", run, *SETS, *STEPS) == 0
    assert call("segment", folder, "--model", run, "--out", out, "--split", "test") == 0
    capsys.readouterr()
    assert call("evaluate", out, folder, "--split", "test", "--json") == 0
    scores = json.loads(capsys.readouterr().out)["summary"]
    structures = {"exclusive": ["class_1", "class_2"], "regions": ["cup", "disc"]}.get(kind, [])
    assert {"dice", "hd95"} <= set(scores)
    assert list(scores.get("structures", {})) == structures
    assert all({"dice", "hd95"} <= set(of) for of in scores.get("structures", {}).values())


def test_ctrl_c_on_the_command_line_says_how_to_go_on(folder: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "of mine.py"
    plugin.touch()
    run, more = str(tmp_path / "a run"), ("--device", "cpu", "--set", "train.max_steps=100000")
    arguments = ["--plugin", str(plugin), "train", str(folder), "--out", run, *SETS, *more]
    running = subprocess.Popen(
        [sys.executable, "-m", "medsegdiff", *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = tmp_path / "a run" / "log.jsonl"
    while not (log.exists() and log.read_text()):
        assert running.poll() is None, running.communicate()[1]
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=120)
    assert running.returncode == 130
    (told,) = (line.removeprefix("Go on with: ") for line in said.splitlines() if line.startswith("Go on with: "))
    same = ["medsegdiff", "train", str(folder), "--out", run, "--device=cpu", f"--plugin={plugin}", "--resume"]
    assert shlex.split(told) == same
    assert "Traceback" not in said
    assert (tmp_path / "a run" / "state.safetensors").exists()


def test_a_plugin_registers_a_data_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / "clinic.py"
    plugin.write_text(
        "from medsegdiff.data.dataset import DATASETS\n"
        "from medsegdiff.data.phantom import PhantomSource\n"
        "DATASETS.register('clinic', layout='ours')(lambda config: PhantomSource(config, counts=(8, 2, 2)))\n"
    )
    assert call("--plugin", plugin, "train", "clinic", "--out", tmp_path / "run", *SETS, "--dry-run") == 0
    assert "lesion" in capsys.readouterr().out
