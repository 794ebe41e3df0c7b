"""BEAL's own code is the truth for its network, its loss and its boundary; scipy for boundaries of any masks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from medsegdiff.config.load import load_preset
from medsegdiff.config.spec import assumed
from medsegdiff.data.loader import as_batch
from medsegdiff.labels import Labels
from medsegdiff.models.base import MODELS, Said, budget, build_model
from medsegdiff.models.beal import ORIGINAL_KEYS, boundary_and_mask, boundary_map, ring_of
from medsegdiff.models.discriminators import BoundaryAndEntropy, entropy_map
from medsegdiff.training.objective import anchor_losses
from tests.authors import drawn
from tests.makers import configured


def stored(request: pytest.FixtureRequest, name: str) -> dict[str, Any]:
    """What their code gave; texts are read as JSON."""
    file = Path(request.config.getoption("--data-root")).parent / "parity" / f"{name}.npz"
    if not file.is_file():
        pytest.skip(f"no fixture of the authors' code at {file} (set --data-root to the folder of data beside it)")
    with np.load(file) as arrays:
        found = {key: arrays[key] for key in arrays.files}
    texts = {key: str(value) for key, value in found.items() if value.dtype.kind == "U"}
    return {key: torch.from_numpy(value) for key, value in found.items() if key not in texts} | texts


def difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def ours(key: str) -> str:
    for pattern, replacement in ORIGINAL_KEYS:
        key = re.sub(pattern, replacement, key)
    return key


def test_the_network_gives_what_the_authors_code_gave(request: pytest.FixtureRequest) -> None:
    theirs = stored(request, "beal")
    table = json.loads(theirs["table"])
    config = assumed(load_preset("beal"))
    with torch.device("meta"):
        model = MODELS.build("beal", config.model, image_channels=3, mask_channels=2).eval()
    weights = {ours(key): drawn(theirs["salt"] + key, shape, kind) for key, (shape, kind) in table.items()}
    model.load_state_dict(weights, assign=True)
    with torch.inference_mode():
        mask, boundary = model.condition_model(theirs["x"])
    assert difference(mask, theirs["out"]) < 1e-5
    assert difference(boundary, theirs["boundary"]) < 3e-5
    assert torch.equal(mask, model.condition(theirs["x"]).logits)


def test_it_has_the_parameters_and_operations_of_theirs() -> None:
    asked = load_preset("beal", ["data.image_size=256", "data.task=regions", "data.classes=[cup, disc]"])
    costs = budget(assumed(asked))
    assert costs.parameters == pytest.approx(5.812e6, rel=1e-3)
    assert 2 * costs.condition_gmac == pytest.approx(13.3, rel=0.01)


def test_boundary_and_loss_are_theirs(request: pytest.FixtureRequest) -> None:
    theirs = stored(request, "targets")
    structures = torch.stack([theirs["cup"], theirs["disc"]])[None].float()
    assert torch.equal(ring_of(structures)[0, 0], theirs["beal_ring"].float())
    assert difference(boundary_map(structures)[0, 0], theirs["beal_boundary"]) < 1e-5
    mask = theirs["binary"].float()
    certain = torch.logit(boundary_map(mask).clamp(1e-7, 1 - 1e-7))  # a boundary without error leaves the mask's loss
    found = boundary_and_mask(Said(mask, theirs["binary_logits"], extra=(certain,)), mask, labels=Labels())
    assert float(found.mean()) == pytest.approx(json.loads(theirs["losses"])["beal_mask_bce"], rel=1e-5)


def test_the_discriminators_judge_as_theirs(request: pytest.FixtureRequest) -> None:
    theirs = stored(request, "beal_discriminators")
    with torch.device("meta"):
        both = BoundaryAndEntropy(2)
    weights = {}
    for key, (shape, kind) in json.loads(theirs["table"]).items():
        which, layer, last = key.split(".")
        place = 2 * (int(layer.removeprefix("conv")) - 1)  # a leaky ReLU lies between each two
        weights[f"{which}.{place}.{last}"] = drawn(theirs["salt"] + key, shape, kind)
    both.load_state_dict(weights, assign=True)
    with torch.inference_mode():
        for of, judge in (("boundary", both.boundary), ("entropy", both.entropy)):
            assert difference(judge(theirs[f"x_{of}"]), theirs[f"out_{of}"]) < 1e-5
    assert [sum(p.numel() for p in judge.parameters()) for judge in both.children()] == [2_761_728, 2_762_752]
    facts = stored(request, "targets")
    found = float(entropy_map(facts["binary_logits"].sigmoid()).mean())
    assert found == pytest.approx(json.loads(facts["losses"])["beal_entropy_mean"], rel=1e-6)


@pytest.mark.parametrize(("size", "structures"), [((64, 48), 1), ((40, 72), 3), ((10, 9), 2)])
def test_the_boundary_is_scipys_morphology_and_gaussian_on_bytes(size: tuple[int, int], structures: int) -> None:
    rng = np.random.default_rng(structures)
    smooth = ndimage.gaussian_filter(rng.standard_normal((2, structures, *size)), (0, 0, 4, 4))
    masks = smooth > 0
    masks[0, 0, :, : size[1] // 2] = True  # up to the border, where an edge is
    for image, found in zip(masks, boundary_map(torch.from_numpy(masks).float()), strict=True):
        grown = [ndimage.binary_dilation(mask, iterations=5) for mask in image]
        shrunk = [ndimage.binary_erosion(mask, iterations=5, border_value=0) for mask in image]
        ring = np.logical_xor(grown, shrunk).any(axis=0)
        expected = ndimage.gaussian_filter(ring.astype(np.uint8) * np.uint8(255), 3)
        assert np.array_equal((found[0] * 255).round().numpy(), expected)


def test_the_loss_is_that_of_both_heads_where_somebody_labelled_and_the_background_has_no_boundary() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = Labels("exclusive", ("background", "a", "b"))
    classes = torch.zeros(1, 32, 32, dtype=torch.long)
    classes[:, 4:20, 6:22], classes[:, 10:14, 10:14] = 1, 2
    mask = torch.nn.functional.one_hot(classes, 3).movedim(-1, 1).float()
    logits, boundary = torch.randn(1, 3, 32, 32, generator=rng), torch.randn(1, 1, 32, 32, generator=rng)
    labelled = torch.ones(1, 1, 32, 32)
    labelled[..., :8] = 0
    found = boundary_and_mask(Said(mask, logits, extra=(boundary,)), mask, labels=labels, labelled=labelled)
    known = labelled[0, 0].bool()
    segmented = torch.nn.functional.cross_entropy(logits, classes, reduction="none")[0]
    error = (boundary.sigmoid() - boundary_map(mask[:, 1:])).square()[0, 0]
    assert torch.allclose(found, (segmented[known].mean() + error[known].mean())[None], atol=1e-6)


def test_training_moves_both_heads_by_that_loss() -> None:
    config = configured("beal", "regions", "loss.supervision=beal", "loss.alpha=1")
    model = build_model(config)
    image, mask = torch.randn(2, 2, 32, 32), torch.zeros(2, 2, 32, 32)
    mask[:, :, 8:24, 8:24] = 1
    batch = as_batch({"image": image, "mask": mask, "positions": (0, 1)})
    anchor_losses(model, batch, config.loss, labels=config.spec.labels).total.backward()
    without = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []
    assert [len(model.condition(image).extra), len(model.eval().condition(image).extra)] == [1, 0]
