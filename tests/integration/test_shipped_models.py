"""The models that are shipped segment the images that come with them, and are what their files say."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medsegdiff import Segmenter
from medsegdiff.hub.card import Card
from medsegdiff.io.raster import read_mask
from medsegdiff.models.packed import check_packed, packed_facts
from medsegdiff.training.run import Run

MODELS = sorted(file.parent for file in (Path(__file__).parents[2] / "models").glob("*/*/config.json"))
MOST = 12_000_000
"""Bytes of weights that a model may have."""


def test_there_are_a_model_and_its_twin() -> None:
    assert [folder.name for folder in MODELS] == ["heart-lv", "heart-lv-once"]


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_it_segments_patients_that_it_has_not_learned_from(folder: Path) -> None:
    """A heartbeat of three of them: both areas are right to three tenths."""
    segmenter = Segmenter.from_pretrained(folder, device="cpu")
    patients = json.loads((folder / "examples" / "patients.json").read_text())
    for cases in list(patients.values())[:3]:
        for case in cases:
            result = segmenter(folder / "examples" / "images" / f"{case}.png", members=4, seed=0)
            reference = read_mask(folder / "examples" / "masks" / f"{case}.png") > 0
            mask = result.mask > 0
            assert 2 * (mask & reference).sum() / (mask.sum() + reference.sum()) > 0.8, case
            assert np.isclose(mask.sum(), reference.sum(), rtol=0.3), case


@pytest.mark.parametrize("folder", MODELS, ids=lambda folder: folder.name)
def test_its_files_are_as_they_were_packed_and_its_card_tells_what_it_is(folder: Path) -> None:
    check_packed(folder)
    assert set(packed_facts(folder)["files"]) >= {"model.safetensors", "calibration.json", "quality.json"}
    assert (folder / "model.safetensors").stat().st_size <= MOST
    assert Run(folder).tells_trained  # so that who trains on knows which cases are held out
    card = Card.read(folder)
    assert card.head["license"] == "cc0-1.0"
    for words in ("Not for other views", "By pathology", "SC-N-06", "size lies in the 90 % interval", "AURC"):
        assert words in card.text, words
