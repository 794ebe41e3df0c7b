"""Plug-ins: files that the user names, packages that are installed, and runs that were made with them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from medsegdiff import registry
from medsegdiff.data.dataset import DATASETS
from medsegdiff.errors import CheckpointError
from medsegdiff.models.checkpoint import load_config
from tests.program import SETS, call

CODE = """
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.phantom import PhantomSource

print("the plug-in runs")
DATASETS.register("clinic", layout="ours")(lambda config: PhantomSource(config, counts=(4, 2, 2)))
"""
STEPS = ("--set", "train.max_steps=1", "--set", "train.val_every=1")


def installed(folder: Path, name: str = "clinic-tools") -> Path:
    """Make what pip makes of a package that has a plug-in."""
    (folder / "clinic_tools.py").write_text(CODE, encoding="utf-8")
    told = folder / "clinic_tools-1.0.dist-info"
    told.mkdir(parents=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: clinic-tools\nVersion: 1.0\n", encoding="utf-8")
    (told / "entry_points.txt").write_text(f"[medsegdiff.plugins]\n{name} = clinic_tools\n", encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Done:
    """What a command left."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> Run:
    """The program as if in a process of its own: what one plug-in registers, no other shall see."""

    def of(*arguments: str | Path, path: Path | None = None) -> Done:
        before = set(sys.modules)
        caplog.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(registry, "_loaded", {})
            patch.setattr(DATASETS, "_entries", {k: v for k, v in DATASETS._entries.items() if k != "clinic"})
            if path is not None:
                patch.syspath_prepend(str(path))
            code = call(*arguments)
        for name in {"clinic_tools", "named_by_a_run"} & (set(sys.modules) - before):
            del sys.modules[name]
        said = capsys.readouterr()
        return Done(code, said.out, said.err + caplog.text)

    return of


def test_an_installed_plug_in_is_loaded_remembered_and_missed(tmp_path: Path, run: Run) -> None:
    (tmp_path / "site").mkdir()
    site, out = installed(tmp_path / "site"), tmp_path / "run"
    assert "the plug-in runs" not in run("--help", path=site).stdout  # help stays quick
    done = run("train", "clinic", "-o", out, *SETS, *STEPS, path=site)
    assert done.returncode == 0, done.stderr
    assert json.loads((out / "config.json").read_text())["plugins"] == [{"name": "clinic-tools"}]
    resumed = run("train", "clinic", "-o", out, "--resume", "--set", "train.max_steps=2", path=site)
    assert resumed.returncode == 0, resumed.stderr
    missed = run("train", "clinic", "-o", out, "--resume", "--set", "train.max_steps=3")
    assert missed.returncode == 1
    assert "plug-in 'clinic-tools', which is not installed" in " ".join(missed.stderr.split())


def test_a_plug_in_that_a_run_does_not_use_is_not_remembered(folder: Path, tmp_path: Path, run: Run) -> None:
    (tmp_path / "site").mkdir()
    done = run("train", folder, "-o", tmp_path / "run", *SETS, *STEPS, path=installed(tmp_path / "site"))
    assert done.returncode == 0, done.stderr
    assert "plugins" not in json.loads((tmp_path / "run" / "config.json").read_text())


def test_code_that_a_run_names_does_not_run_until_the_user_names_it(
    folder: Path, trained: tuple[Path, Path], tmp_path: Path, run: Run
) -> None:
    """Not even where it lies with the same hash: whoever gave the run could have put it there."""
    file, out, masks = tmp_path / "named_by_a_run.py", shutil.copytree(trained[0], tmp_path / "run"), tmp_path / "masks"
    file.write_text(CODE, encoding="utf-8")
    made = run("--plugin", file, "train", "clinic", "-o", tmp_path / "own", *SETS, *STEPS)
    assert made.returncode == 0, made.stderr
    told = json.loads((tmp_path / "own" / "config.json").read_text())["plugins"]
    assert [Path(plugin["file"]) for plugin in told] == [file]
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps({**config, "plugins": told}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="not run unasked"):
        load_config(out)
    picture = trained[1] / "images" / "case00.png"
    asked = ("segment", picture, "-m", out, "-o", masks, "--members", "1", "--steps", "1")
    refused = run(*asked)
    assert refused.returncode == 1
    assert "the plug-in runs" not in refused.stdout
    assert f"--plugin {file}" in " ".join(refused.stderr.split())
    done = run(*asked, "--plugin", file)
    assert done.returncode == 0, done.stderr
    assert json.loads((masks / "segment.json").read_text())["plugins"] == told
    scored = run("evaluate", masks, trained[1], "--no-report")
    assert scored.returncode == 1
    assert f"--plugin {file}" in " ".join(scored.stderr.split())
    file.write_text(CODE + "# mended\n", encoding="utf-8")
    other = run("--plugin", file, *asked, "--overwrite")
    assert other.returncode == 0, other.stderr
    assert "another version of the plug-in named_by_a_run.py" in " ".join(other.stderr.split())


def test_a_plug_in_that_fails_is_named(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    installed(site)
    (site / "clinic_tools.py").write_text("import not_there\n", encoding="utf-8")
    places = os.pathsep.join([str(site), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "medsegdiff", "list", "samplers"]
    environment = {**os.environ, "PYTHONPATH": places}
    failed = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert failed.returncode == 1
    assert "plug-in 'clinic-tools' (clinic_tools) can't be loaded" in " ".join(failed.stderr.split())
