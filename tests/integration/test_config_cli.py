"""``medsegdiff config``: the schema, what a name stands for, what differs; and what the shell completes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml

from medsegdiff.cli import complete, options
from medsegdiff.config.load import known_keys, load_preset, preset_names
from medsegdiff.config.networks import NETWORKS
from medsegdiff.config.run import Precision
from medsegdiff.data.convert import TARGETS
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.open import layouts
from medsegdiff.diffusion.samplers import SAMPLERS
from medsegdiff.fusion.fusers import FUSERS
from medsegdiff.inference.folder import PARTS
from medsegdiff.models.checkpoint import load_config
from tests.program import call


def test_the_schema_knows_every_key_and_its_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("config", "schema") == 0
    told = json.loads(capsys.readouterr().out)
    sections = {name: part.get("$ref", "").rpartition("/")[2] for name, part in told["properties"].items()}
    networks = [part["$ref"].rpartition("/")[2] for part in told["properties"]["model"]["anyOf"]]
    found = {f"model.{key}" for name in networks for key in told["$defs"][name]["properties"]}
    found |= {f"{s}.{key}" for s, name in sections.items() if name for key in told["$defs"][name]["properties"]}
    assert found == set(known_keys())
    assert told["$defs"]["TrainConfig"]["properties"]["learning_rate"]["description"]
    assert len(networks) == len(list(NETWORKS))
    assert told["$defs"]["TrainConfig"]["additionalProperties"] is False


def test_what_is_shown_is_a_preset_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in preset_names():
        assert call("config", "show", name, "--set", "train.batch_size=3") == 0
        file = tmp_path / "shown.yaml"
        file.write_text(capsys.readouterr().out, encoding="utf-8")
        assert load_preset(str(file)) == load_preset(name, ["train.batch_size=3"])


def test_a_run_is_shown_and_compared(trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, _ = trained
    assert call("config", "show", run) == 0
    assert yaml.safe_load(capsys.readouterr().out) == load_config(run).asked.model_dump(mode="json")
    assert call("config", "diff", run, "v2-tiny", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["train.max_steps"] == [6, load_preset("v2-tiny").train.max_steps]
    assert "diffusion.schedule" not in told
    assert call("config", "diff", "v2-tiny", "v1-tiny") == 0
    assert "model.name" in capsys.readouterr().out
    assert call("config", "diff", "v2-tiny", "v2-tiny", "-q") == 0
    assert capsys.readouterr().out == ""
    assert call("config", "show", "v2-tny") == 2


def test_what_is_offered_is_what_is_registered() -> None:
    assert set(complete.SAMPLERS) == {entry.name for entry in SAMPLERS}
    assert set(complete.FUSIONS) == {entry.name for entry in FUSERS}
    assert set(complete.LAYOUTS) <= {entry.name for entry in DATASETS}
    assert set(complete.LAYOUTS) <= set(layouts())
    assert get_args(options.Precisions) == get_args(Precision)
    assert set(complete.PARTS) == set(PARTS)
    assert set(complete.CONVERSIONS) == set(TARGETS)


def offered(*words: str) -> set[str]:
    """Ask the program as bash does, and see that torch stays out of it."""
    environment = {**os.environ, "_MEDSEGDIFF_COMPLETE": "complete_bash"}
    environment |= {"COMP_WORDS": " ".join(("medsegdiff", *words)), "COMP_CWORD": str(len(words))}
    code = (
        "import sys; sys.argv = ['medsegdiff']; from medsegdiff.cli import main\n"
        "try: main()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    shown = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert not shown.stderr
    return set(shown.stdout.split())


@pytest.mark.parametrize(
    ("words", "among"),
    [
        (["train", "data", "--preset", "v2-f"], {"v2-fast", "v2-fast-tiny"}),
        (["segment", "x", "--sampler", "dpm"], {"dpmpp-1", "dpmpp-2m", "dpmpp-sde-2m"}),
        (["segment", "x", "--spacing", "l"], {"linspace", "logsnr"}),
        (["segment", "x", "--fusion", "m"], {"mean", "majority"}),
        (["train", "data", "--set", "train.max_s"], {"train.max_steps="}),
        (["train", "data", "--set", "train.precision="], {"train.precision=bf16", "train.precision=fp32"}),
        (["train", "data", "--set", "model.name=med"], {"model.name=medsegdiff-v1", "model.name=medsegdiff-v2"}),
        (["train", "data", "--set", "data.layout=n"], {"data.layout=nnunet"}),
        (["data", "convert", "x", "--to", "s"], {"slices"}),
        (["segment", "x", "--write", "masks,o"], {"masks,overlay"}),
        (["info", "pp"], {"pp"}),
    ],
)
def test_tab_offers_values_without_torch(words: list[str], among: set[str]) -> None:
    assert among <= offered(*words)
