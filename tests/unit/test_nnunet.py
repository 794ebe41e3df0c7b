"""nnU-Net's UNet: its plan, its size, its coarser grids. Truth: MONAI's DynUNet, and numbers by hand."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from monai.networks.nets.dynunet import DynUNet
from torch.nn import functional as F

from medsegdiff.benchmark.nnunet_reference import planned_widths, reference_for
from medsegdiff.config.load import load_preset
from medsegdiff.config.networks.nnunet import NNUNetConfig
from medsegdiff.config.spec import assumed
from medsegdiff.models.base import build_model
from medsegdiff.models.nnunet import PlainUNet
from tests.makers import configured


def theirs(widths: tuple[int, ...], *, deep: int) -> DynUNet:
    n = len(widths)
    return DynUNet(
        *(2, 1, 2, [3] * n, [1, *[2] * (n - 1)], [2] * (n - 1)),
        filters=widths,
        deep_supervision=True,
        deep_supr_num=deep,
        trans_bias=True,
    )


def test_it_says_what_monais_network_says_on_every_grid() -> None:
    """Theirs comes resized to the image, by repeating pixels; their blocks have the same names but where they lie."""
    widths = (8, 16, 16, 16, 16, 16)
    reference = theirs(widths, deep=3)
    ours = PlainUNet(1, 2, widths=widths)
    where = {"down.0": "input_block", "down.5": "bottleneck", "heads.0": "output_block"}
    where |= {f"down.{level}": f"downsamples.{level - 1}" for level in range(1, 5)}
    where |= {f"heads.{level}": f"deep_supervision_heads.{level - 1}" for level in range(1, 4)}
    known = reference.state_dict()
    moved = {}
    for name in ours.state_dict():
        place = ".".join(name.split(".")[:2])
        moved[name] = known[name.replace(place, where.get(place, place.replace("up.", "upsamples.")), 1)]
    ours.load_state_dict(moved)
    image = torch.randn(2, 1, 64, 96)
    logits, deep = ours.train()(image)
    stacked = reference.train()(image)
    assert [tuple(of.shape[2:]) for of in deep] == [(32, 48), (16, 24), (8, 12)]  # all but the two coarsest of six
    for level, of in enumerate((logits, *deep)):
        assert torch.allclose(F.interpolate(of, (64, 96)), stacked[:, level], atol=1e-6)
    assert torch.equal(ours.eval()(image)[0], logits)
    assert ours(image)[1] == ()


def test_the_preset_is_the_plan_for_256_pixels_and_has_its_parameters() -> None:
    """By hand: kernels of 3×3 and two numbers per channel for a norm; 2×2 and a bias upwards; a head of 1×1 and bias.

    nnU-Net's own network has a bias more in each convolution before a norm, which takes it away again.
    """
    config = assumed(load_preset("nnunet", ["data.channels=3", "data.task=binary", "data.classes=[a]"]))
    widths = config.model.widths
    assert widths == planned_widths(256) == (32, 64, 128, 256, 512, 512, 512)

    def stage(a: int, b: int) -> int:
        return 9 * a * b + 9 * b * b + 4 * b

    down = sum(stage(a, b) for a, b in zip((3, *widths), widths, strict=False))
    up = sum(4 * b * a + a + stage(2 * a, a) for a, b in pairwise(widths))
    with torch.device("meta"):
        model = build_model(config)
        reference, _ = reference_for(256)
    heads = model.condition_model.heads
    assert [sum(p.numel() for p in head.parameters()) for head in heads] == [w + 1 for w in widths[:5]]
    total = sum(p.numel() for p in model.parameters())
    assert total == down + up + sum(w + 1 for w in widths[:5])
    assert sum(p.numel() for p in reference.parameters()) == down + up + 2 * (32 + 1)
    biases = 2 * sum(widths) + 2 * sum(widths[:-1])
    assert down + up + 2 * (32 + 1) + biases == pytest.approx(33.47e6, rel=1e-3)


def test_instance_norm_takes_away_what_a_bias_would_add() -> None:
    """Why convolutions have none here: the same image comes out, whatever the bias."""
    net = PlainUNet(1, 1, widths=(4, 4, 4)).eval()
    image = torch.randn(1, 1, 16, 16)
    before = net(image)[0]
    first = net.down[0].conv1.conv
    first.bias = torch.nn.Parameter(torch.randn(4))
    assert torch.allclose(net(image)[0], before, atol=1e-5)


def test_coarser_grids_are_supervised_and_only_where_asked() -> None:
    batchwise = ("loss.alpha=1", "loss.beta=1", "loss.batch_dice=true")
    for asked, heads in ((True, 2), (False, 1)):
        config = configured("nnunet", "binary", f"model.deep_supervision={str(asked).lower()}", *batchwise)
        model = build_model(config)
        said = model(torch.randn(2, 2, 32, 32), torch.randn(2, 1, 32, 32), torch.tensor([9.0, 1.0]))
        assert (len(said.deep), len(model.condition_model.heads)) == (heads - 1, heads)
        assert torch.equal(said.prediction, said.logits)
        assert not said.prediction.requires_grad


def test_levels_and_widths_by_hand() -> None:
    assert NNUNetConfig(levels=4, channels=8, max_channels=20).widths == (8, 16, 20, 20)
