"""ResNets keep torchvision's names and numbers; atrous pooling looks from the distances that it says."""

from __future__ import annotations

import pytest
import torch
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.nn.aspp import ASPP
from medsegdiff.nn.resnet import BLOCKS, WIDTHS, ResNetEncoder, dilated_stage
from tests.makers import randomised

PUBLISHED = {False: 21_797_672 - 513_000, True: 25_557_032 - 2_049_000}
"""Parameters of torchvision's ResNet-34 and ResNet-50, less those of the classifier."""


def spread(kernel: Tensor, dilation: int) -> Tensor:
    """The kernel that a dilated convolution amounts to: zeros between the taps."""
    side = dilation * (kernel.shape[-1] - 1) + 1
    wide = kernel.new_zeros(*kernel.shape[:2], side, side)
    wide[..., ::dilation, ::dilation] = kernel
    return wide


@pytest.mark.parametrize("bottleneck", [False, True])
def test_it_has_torchvisions_names_and_numbers(bottleneck: bool) -> None:
    with torch.device("meta"):
        encoder = ResNetEncoder(3, bottleneck=bottleneck)
        features = encoder(torch.zeros(1, 3, 64, 96))
    assert sum(parameter.numel() for parameter in encoder.parameters()) == PUBLISHED[bottleneck]
    names = {"conv1.weight", "bn1.running_var", "layer1.0.conv2.weight", "layer4.0.downsample.1.bias"}
    assert names <= set(encoder.state_dict())
    sizes = [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    assert [tuple(of.shape[1:]) for of in features] == [
        (c, *size) for c, size in zip(encoder.channels, sizes, strict=True)
    ]
    assert encoder.channels == ((64, 256, 512, 1024, 2048) if bottleneck else (64, *WIDTHS))
    assert encoder.stride == 32


@pytest.mark.parametrize("bottleneck", [False, True])
def test_its_features_are_those_of_the_whole_network(bottleneck: bool) -> None:
    widths, kind = (4, 6, 8, 10), "bottleneck" if bottleneck else "basic"
    encoder = randomised(ResNetEncoder(2, widths=widths, blocks=BLOCKS, bottleneck=bottleneck))
    whole = ResNet(kind, list(BLOCKS), list(widths), 2, 2, conv1_t_stride=2, feed_forward=False, bias_downsample=False)
    whole.load_state_dict(encoder.state_dict())
    image = torch.randn(1, 2, 64, 32)
    pooled = encoder(image)[-1].mean(dim=(-2, -1))
    torch.testing.assert_close(pooled, whole.eval()(image))


def test_fewer_stages_are_the_first_ones_and_without_pooling_they_stay_finer() -> None:
    short = ResNetEncoder(1, widths=(4, 6), blocks=(1, 2), pool=False)
    assert [tuple(of.shape[1:]) for of in short(torch.zeros(2, 1, 16, 16))] == [(4, 8, 8), (4, 8, 8), (6, 4, 4)]
    assert short.stride == 4


def test_a_dilated_stage_is_one_of_wider_kernels() -> None:
    stage = randomised(dilated_stage(6, 4, blocks=2, dilation=2))
    x = torch.randn(1, 6, 9, 7)
    found = stage(x)
    for block in stage:
        wide = nn.Conv2d(4, 4, 5, padding=2, bias=False)
        wide.weight = nn.Parameter(spread(block.conv2.weight, 2))
        block.conv2 = wide
    assert found.shape == (1, 16, 9, 7)
    torch.testing.assert_close(stage(x), found)


def test_atrous_pooling_adds_wider_kernels_and_the_mean() -> None:
    pyramid = randomised(ASPP(3, 4, dilations=(1, 2, 3), bias=True))
    x = torch.randn(2, 3, 6, 8)
    seen = []
    for reach, branch in zip((0, 1, 2, 3), pyramid.branches, strict=True):
        convolution, norm, _ = branch
        kernel = spread(convolution.weight, reach) if reach else convolution.weight
        seen.append(F.relu(norm(F.conv2d(x, kernel, convolution.bias, padding=reach))))
    convolution, norm, _ = pyramid.pooled
    mean = torch.einsum("oc,bc->bo", convolution.weight[..., 0, 0], x.mean(dim=(2, 3))) + convolution.bias
    seen.append(F.relu(norm(mean[..., None, None])).repeat(1, 1, 6, 8))
    convolution, norm, _ = pyramid.mix
    by_hand = F.relu(
        norm(
            torch.einsum("oc,bchw->bohw", convolution.weight[..., 0, 0], torch.cat(seen, dim=1))
            + convolution.bias[:, None, None]
        )
    )
    torch.testing.assert_close(pyramid(x), by_hand)


def test_atrous_pooling_learns_from_a_batch_of_one_image() -> None:
    """Its mean is one vector, which has no variance: a norm of the batch would refuse it."""
    pyramid = ASPP(3, 4).train()
    pyramid(torch.randn(1, 3, 6, 6)).sum().backward()
    assert pyramid.pooled[0].weight.grad is not None
