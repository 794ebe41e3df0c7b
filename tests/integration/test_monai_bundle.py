"""A run as a MONAI bundle: MONAI itself runs it, and finds the network that the metadata describe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from monai.bundle import ConfigWorkflow, run, verify_net_in_out

from medsegdiff.errors import ConfigError
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.io.raster import read_mask
from medsegdiff.sharing.bundle import write_bundle
from tests.makers import write_png
from tests.packages import packed
from tests.program import call

PICTURE = np.random.default_rng(2).integers(0, 255, (30, 24), dtype=np.uint8)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("bundle")
    write_bundle(packed(base), base / "bundle")
    write_png(base / "images" / "a.png", PICTURE)
    return base / "bundle"


def config_of(bundle: Path) -> str:
    return str(bundle / "configs" / "inference.json")


@pytest.mark.filterwarnings("ignore:parsing config_file:UserWarning")  # MONAI: a bundle is code
def test_monai_runs_it_and_the_masks_are_those_of_the_run(bundle: Path, tmp_path: Path) -> None:
    places = {"bundle_root": str(bundle), "dataset_dir": str(bundle.parent / "images"), "output_dir": str(tmp_path)}
    run(config_file=config_of(bundle), logging_file=False, seed=5, members=2, device="cpu", **places)
    segmenter = Segmenter.from_pretrained(bundle.parent / "run", device="cpu")
    own = segmenter(bundle.parent / "images" / "a.png", members=2, seed=5)
    assert np.array_equal(read_mask(tmp_path / "masks" / "a.png") > 0, own.mask > 0)


def test_the_network_is_what_the_metadata_describe(bundle: Path) -> None:
    meta = str(bundle / "configs" / "metadata.json")
    verify_net_in_out("network_def", meta, config_of(bundle), device="cpu", bundle_root=str(bundle))
    told = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert told["network_data_format"]["outputs"]["pred"]["channel_def"] == {"0": "disc"}
    workflow = ConfigWorkflow(
        config_of(bundle), meta, logging_file=False, workflow_type="infer", bundle_root=str(bundle)
    )
    workflow.initialize()
    assert not workflow.check_properties()


def test_card_and_licence_come_along(bundle: Path) -> None:
    assert (bundle / "LICENSE").read_bytes() == (bundle.parent / "disc" / "LICENSE").read_bytes()
    assert "Intended use" in (bundle / "docs" / "README.md").read_text()


def test_the_command_writes_it_and_leaves_other_folders_alone(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = bundle.parent / "disc"
    assert call("export", model, tmp_path / "out", "--to", "monai", "--json") == 0
    assert "models/model.safetensors" in json.loads(capsys.readouterr().out)["bytes"]
    assert call("export", model, tmp_path / "out", "--to", "monai") == 2
    assert call("export", model, tmp_path / "out", "--to", "monai", "--steps", "3", "--overwrite") == 2
    assert call("export", model, tmp_path / "out", "--to", "monai", "--overwrite") == 0
    with pytest.raises(ConfigError, match="holds something that is no bundle"):
        write_bundle(model, model)


def test_folders_of_those_names_that_are_no_bundle_are_left_alone(tmp_path: Path) -> None:
    """Many a project has models/ and docs/."""
    run = packed(tmp_path / "project" / "models", "mine")
    (tmp_path / "project" / "docs").mkdir()
    (tmp_path / "project" / "docs" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="no bundle of medsegdiff's"):
        write_bundle(run, tmp_path / "project", overwrite=True)
    write_bundle(run, tmp_path / "bundle")
    with pytest.raises(ConfigError, match="which would be replaced"):
        write_bundle(tmp_path / "bundle" / "models", tmp_path / "bundle", overwrite=True)
    with pytest.raises(ConfigError, match="Leave it out"):
        write_bundle(run, tmp_path / "bundle", size=(8, 8), overwrite=True)
    assert (tmp_path / "bundle" / "models" / "model.safetensors").is_file()
    assert (tmp_path / "project" / "docs" / "notes.txt").read_text() == "mine"
    assert (run / "model.safetensors").is_file()
