"""Runs and presets of earlier versions still open, and say what they said.

`tests/golden/run_of_format_1` holds two runs of 30 steps that version 0.1.0 trained before the configuration was split
into what is asked and what is told, and what it then said of one image of each: the anchor, which no noise enters.
"""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from medsegdiff import Segmenter, load_preset
from medsegdiff.labels import Labels
from medsegdiff.models.checkpoint import load_config
from tests.makers import write_png

RUNS = Path(__file__).parents[1] / "golden" / "run_of_format_1"


def test_a_picture_has_the_anchor_that_it_had(tmp_path: Path) -> None:
    expected = np.load(RUNS / "picture" / "expected.npz")
    picture = write_png(tmp_path / "p0.png", expected["image"])
    segmenter = Segmenter.from_pretrained(RUNS / "picture", device="cpu", precision="fp32")
    result = segmenter(picture, members=2, steps=1, seed=0)
    assert np.abs(result.anchor_probability - expected["anchor_probability"]).max() <= 1e-6


def test_a_ct_volume_with_neighbours_has_the_anchor_that_it_had(tmp_path: Path) -> None:
    expected = np.load(RUNS / "volume" / "expected.npz")
    file = tmp_path / "c0.nii.gz"
    nib.save(nib.Nifti1Image(expected["image"], np.diag([1.0, 1.5, 4.0, 1.0])), file)
    segmenter = Segmenter.from_pretrained(RUNS / "volume", device="cpu", precision="fp32")
    result = segmenter(file, members=2, steps=1, seed=0)
    assert np.array_equal(result.anchor, expected["anchor_labels"])


def test_what_the_data_told_is_found_in_the_old_configuration() -> None:
    spec = load_config(RUNS / "volume").spec
    assert spec.labels == Labels("exclusive", ("background", "organ", "tumour"))
    assert (spec.channels, spec.modalities, spec.window) == (1, ("ct",), (47.0, 219.0))
    assert (spec.plane, spec.layout, spec.channel_files) == ("axial", "nnunet", 1)
    sampling = load_config(RUNS / "volume").sampling
    assert (sampling.members, sampling.steps) == (3, 2)


def test_earlier_keys_are_read_in_files_over_a_base_and_on_the_command_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: v2-fast-tiny\nsampling: {num_steps: 7}\ntrain: {val_samples: 3}\n", encoding="utf-8")
    config = load_preset(str(file), ["sampling.num_samples=9"])
    assert (config.sampling.steps, config.sampling.members, config.train.val_members) == (7, 9, 3)


@pytest.mark.parametrize(("old", "new"), [(True, False), (False, True), (True, True), (False, False)])
def test_of_two_switches_for_recomputing_either_was_enough(tmp_path: Path, old: bool, new: bool) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        f"model: {{name: medsegdiff-v1, checkpointing: {old}}}\ntrain: {{gradient_checkpointing: {new}}}\n",
        encoding="utf-8",
    )
    assert load_preset(str(file)).train.gradient_checkpointing == (old or new)
