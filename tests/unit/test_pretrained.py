"""Encoders begin with weights from a user's file: which fit, what becomes of them, and what a run remembers."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from safetensors.torch import save_file
from scipy import ndimage
from torch import Tensor, nn
from torch.nn import functional as F

from medsegdiff.config.run import Config
from medsegdiff.errors import CheckpointError, ConfigError
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.models.base import DiffusionModel, build_model
from medsegdiff.models.checkpoint import LAST
from medsegdiff.models.foreign import read_weights
from medsegdiff.models.pretrained import mobilenet, resnet, take
from medsegdiff.nn.mobilenet import MobileNetV2
from medsegdiff.nn.resnet import ResNetEncoder
from medsegdiff.training.plan import config_for
from medsegdiff.training.train import train
from tests.integration.test_training import weights
from tests.makers import make_folder, randomised, small_network

STEPS = (
    *("train.max_steps=1", "train.val_every=1", "train.save_every=1", "train.batch_size=2", "train.val_cases=1"),
    *("train.learning_rate=1e-12", "train.warmup_steps=0", "data.image_size=32"),
)
WIDTH, DIM, HEADS, GRID = 8, 16, 2, 3


def in_flax(seed: int = 0) -> dict[str, np.ndarray]:
    """Arrays as R50+ViT-B_16.npz has them, for the small network: of a grid of 3×3 and a class token."""
    drawn = np.random.RandomState(seed)
    arrays: dict[str, np.ndarray] = {}

    def make(name: str, *shape: int) -> None:
        arrays[name] = drawn.standard_normal(shape).astype(np.float32)

    def norm(name: str, *shape: int) -> None:
        make(f"{name}/scale", *shape)
        make(f"{name}/bias", *shape)

    make("conv_root/kernel", 7, 7, 3, WIDTH)
    norm("gn_root", 1, 1, 1, WIDTH)
    for block, given in ((1, WIDTH), (2, 4 * WIDTH)):
        unit, inner = f"block{block}/unit1", WIDTH * block
        for number, shape in enumerate(((1, 1, given, inner), (3, 3, inner, inner), (1, 1, inner, 4 * inner)), 1):
            make(f"{unit}/conv{number}/kernel", *shape)
            norm(f"{unit}/gn{number}", 1, 1, 1, shape[-1])
        make(f"{unit}/conv_proj/kernel", 1, 1, given, 4 * inner)
        norm(f"{unit}/gn_proj", 1, 1, 1, 4 * inner)
    make("embedding/kernel", 1, 1, 8 * WIDTH, DIM)
    make("embedding/bias", DIM)
    make("cls", 1, 1, DIM)
    make("head/kernel", DIM, 5)
    make("head/bias", 5)
    make("Transformer/posembed_input/pos_embedding", 1, GRID * GRID + 1, DIM)
    layer = "Transformer/encoderblock_0"
    for number in (0, 2):
        norm(f"{layer}/LayerNorm_{number}", DIM)
    for part in ("query", "key", "value"):
        make(f"{layer}/MultiHeadDotProductAttention_1/{part}/kernel", DIM, HEADS, DIM // HEADS)
        make(f"{layer}/MultiHeadDotProductAttention_1/{part}/bias", HEADS, DIM // HEADS)
    make(f"{layer}/MultiHeadDotProductAttention_1/out/kernel", HEADS, DIM // HEADS, DIM)
    make(f"{layer}/MultiHeadDotProductAttention_1/out/bias", DIM)
    for number, (a, b) in enumerate(((DIM, 4 * DIM), (4 * DIM, DIM))):
        make(f"{layer}/MlpBlock_3/Dense_{number}/kernel", a, b)
        make(f"{layer}/MlpBlock_3/Dense_{number}/bias", b)
    norm("Transformer/encoder_norm", DIM)
    return arrays


def saved(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    np.savez(folder / "R50+ViT.npz", **arrays)
    return folder / "R50+ViT.npz"


def transunet(*overrides: str) -> DiffusionModel:
    return build_model(small_network("transunet", *overrides)).eval()


def begun(model: DiffusionModel, file: Path) -> DiffusionModel:
    (taken,) = take([str(file)], model, model.layouts)
    model.load_state_dict(taken.weights, strict=False)
    return model


def test_a_layer_of_flax_computes_the_same_here(tmp_path: Path) -> None:
    arrays = in_flax()
    layer = begun(transunet(), saved(tmp_path, arrays)).condition_model.layers[0]
    x = np.random.RandomState(1).standard_normal((1, 5, DIM)).astype(np.float32)

    def of(name: str) -> np.ndarray:
        return arrays[f"Transformer/encoderblock_0/{name}"]

    def normed(values: np.ndarray, name: str) -> np.ndarray:
        centred = values - values.mean(-1, keepdims=True)
        return centred / np.sqrt(values.var(-1, keepdims=True) + 1e-6) * of(f"{name}/scale") + of(f"{name}/bias")

    attention = "MultiHeadDotProductAttention_1"
    q, k, v = (
        np.einsum("bld,dhk->bhlk", normed(x, "LayerNorm_0"), of(f"{attention}/{part}/kernel"))
        + of(f"{attention}/{part}/bias")[None, :, None]
        for part in ("query", "key", "value")
    )
    scores = np.einsum("bhlk,bhmk->bhlm", q, k) / np.sqrt(DIM // HEADS)
    share = np.exp(scores - scores.max(-1, keepdims=True))
    seen = np.einsum("bhlm,bhmk->blhk", share / share.sum(-1, keepdims=True), v)
    x2 = x + np.einsum("blhk,hkd->bld", seen, of(f"{attention}/out/kernel")) + of(f"{attention}/out/bias")
    hidden = normed(x2, "LayerNorm_2") @ of("MlpBlock_3/Dense_0/kernel") + of("MlpBlock_3/Dense_0/bias")
    hidden = F.gelu(torch.from_numpy(hidden)).numpy()
    expected = x2 + hidden @ of("MlpBlock_3/Dense_1/kernel") + of("MlpBlock_3/Dense_1/bias")
    np.testing.assert_allclose(layer(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-4, atol=1e-4)


def test_a_kernel_of_flax_looks_at_height_width_and_colours_in_their_places(tmp_path: Path) -> None:
    arrays = in_flax()
    weight = begun(transunet(), saved(tmp_path, arrays)).condition_model.encoder.root.conv.weight.detach().numpy()
    kernel = arrays["conv_root/kernel"]
    assert all(
        weight[out, colour, y, x] == kernel[y, x, colour, out] for out, colour, y, x in ((0, 2, 1, 5), (7, 0, 6, 3))
    )


def test_positions_lose_the_class_token_and_are_resized_as_by_scipys_zoom(tmp_path: Path) -> None:
    arrays = in_flax()
    model = begun(transunet(), saved(tmp_path, arrays))  # 32 px: a grid of 4×4
    grid = arrays["Transformer/posembed_input/pos_embedding"][0, 1:].reshape(GRID, GRID, DIM)
    expected = ndimage.zoom(grid, (4 / GRID, 4 / GRID, 1), order=1).reshape(1, 16, DIM)
    np.testing.assert_allclose(model.condition_model.positions.detach().numpy(), expected, atol=1e-5)
    same = begun(transunet("model.image_size=24"), saved(tmp_path, arrays)).condition_model.positions
    np.testing.assert_array_equal(same.detach().numpy(), grid.reshape(1, 9, DIM))


class Encoded(nn.Module):
    """A network with a small ResNet in it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.encoder = ResNetEncoder(channels, widths=(4, 8), blocks=(1, 1))


RESNET = (resnet("A small ResNet", "encoder", spare=(r"^layer[34]\.",)),)


def torchvisions(folder: Path, change: Callable[[dict[str, Tensor]], object] = dict, suffix: str = ".pth") -> Path:
    whole = ResNetEncoder(3, widths=(4, 8, 8), blocks=(1, 1, 1)).state_dict()
    state = {name: value.contiguous() for name, value in whole.items()} | {"fc.weight": torch.zeros(5, 8)}
    file = folder / f"resnet{suffix}"
    changed: Any = change(state)
    save_file(changed, file) if suffix == ".safetensors" else torch.save(changed, file)
    return file


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_resnet_of_torchvision_fills_the_stages_that_are_there(suffix: str, tmp_path: Path) -> None:
    file, network = torchvisions(tmp_path, suffix=suffix), Encoded(3)
    (taken,) = take([str(file)], network, RESNET)
    network.load_state_dict(taken.weights, strict=False)
    stored = read_weights(file)
    assert all(torch.equal(value, stored[name]) for name, value in network.encoder.state_dict().items())
    assert taken.made_anew == ()
    assert taken.facts["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert f"{len(taken.weights)} of {len(network.state_dict())} tensors" in taken.told(len(network.state_dict()))


def test_grey_images_are_seen_as_if_they_were_given_in_three_colours(tmp_path: Path) -> None:
    file, networks, image = torchvisions(tmp_path), {k: Encoded(k).eval() for k in (1, 3)}, torch.randn(1, 1, 16, 16)
    for network in networks.values():
        network.load_state_dict(take([str(file)], network, RESNET)[0].weights, strict=False)
    grey, colour = networks[1].encoder(image), networks[3].encoder(image.repeat(1, 3, 1, 1))
    assert torch.allclose(grey[-1], colour[-1], atol=1e-5)


def test_images_of_other_channels_begin_with_a_new_first_convolution_and_say_so(tmp_path: Path) -> None:
    (taken,) = take([str(torchvisions(tmp_path))], Encoded(4), RESNET)
    assert taken.made_anew == ("encoder.conv1.weight",)
    assert "begun anew, for other image channels: encoder.conv1.weight" in taken.told(99)


def conv_bn_relu6(a: int, b: int, kernel: int, **options: int) -> nn.Sequential:
    convolution = nn.Conv2d(a, b, kernel, padding=kernel // 2, bias=False, **options)
    return nn.Sequential(convolution, nn.BatchNorm2d(b), nn.ReLU6())


def torchvisions_block(a: int, b: int, expansion: int) -> nn.Module:
    """An inverted residual as torchvision nests it: each convolution with its norm and ReLU6, the last one bare."""
    wide = expansion * a
    parts = [conv_bn_relu6(a, wide, 1)] if expansion > 1 else []
    block = nn.Module()
    block.conv = nn.Sequential(
        *parts, conv_bn_relu6(wide, wide, 3, groups=wide), nn.Conv2d(wide, b, 1, bias=False), nn.BatchNorm2d(b)
    )
    return block


def test_mobilenet_of_torchvision_puts_each_convolution_where_it_is_computed(tmp_path: Path) -> None:
    encoder = nn.Module()
    encoder.backbone = MobileNetV2(3, widths=(8, 4, 6), blocks=(1, 2))
    theirs = nn.Module()
    blocks = [torchvisions_block(8, 4, 1), torchvisions_block(4, 6, 6), torchvisions_block(6, 6, 6)]
    theirs.features = nn.Sequential(conv_bn_relu6(3, 8, 3), *blocks)
    randomised(theirs)
    torch.save(theirs.state_dict() | {"classifier.1.weight": torch.zeros(2, 6)}, tmp_path / "mobilenet.pth")
    (taken,) = take([str(tmp_path / "mobilenet.pth")], encoder, (mobilenet("backbone"),))
    encoder.load_state_dict(taken.weights)
    for number in (1, 2, 3):
        ours, nested = encoder.backbone.features[number].conv, theirs.features[number].conv
        flat = [part for entry in nested for part in (entry if isinstance(entry, nn.Sequential) else [entry])]
        for one, other in zip(ours, flat, strict=True):
            assert type(one) is type(other)
            assert all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


def without(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {key: value for key, value in state.items() if key != name}


class Malicious:
    """Unpickled, it would run code."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("code of a file has run",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without("layer1.0.bn1.weight"), r"encoder\.layer1\.0\.bn1\.weight is missing"),
        (lambda s: s | {"layer1.0.se.weight": torch.zeros(3)}, r"encoder\.layer1\.0\.se\.weight is unexpected"),
        (lambda s: s | {"layer1.0.bn1.bias": torch.zeros(9)}, r"layer1\.0\.bn1\.bias is 9 instead of 4"),
        (without("layer1.0.conv1.weight"), "holds no weights that this network can begin with"),
        (lambda s: {}, "holds no weights by name"),
        (lambda s: Malicious(), "refused"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_name(change: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=words):
        take([str(torchvisions(tmp_path, change))], Encoded(3), RESNET)


def test_arrays_that_are_pickled_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "evil.npz", weight=np.array([Malicious()], dtype=object))
    with pytest.raises(CheckpointError, match="can't be read"):
        read_weights(tmp_path / "evil.npz")
    (tmp_path / "evil.pth").write_bytes(pickle.dumps({"weight": Malicious()}))
    with pytest.raises(CheckpointError, match="refused|can't be read"):
        read_weights(tmp_path / "evil.pth")


def test_two_files_of_the_same_weights_are_one_too_many(tmp_path: Path) -> None:
    file = str(torchvisions(tmp_path))
    with pytest.raises(CheckpointError, match="give the same weights"):
        take([file, file], Encoded(3), RESNET)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("data"), count=8)


def settings(file: Path) -> Config:
    return small_network("transunet", *STEPS, f"model.weights={file}")


def test_a_run_begins_with_the_file_remembers_it_and_does_not_need_it_again(data: Path, tmp_path: Path) -> None:
    file, out, said = saved(tmp_path, in_flax()), tmp_path / "run", StringIO()
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    train(data, out, settings(file), device="cpu", console=Console(file=said, width=300))
    expected, found = begun(transunet(), file).condition_model.state_dict(), weights(out, LAST)
    for name in ("encoder.body.block2.unit1.conv2.weight", "layers.0.qkv.bias", "positions", "norm.weight"):
        assert torch.allclose(found[f"condition_model.{name}"], expected[name], atol=1e-6), name
    assert "R50+ViT.npz: " in said.getvalue()
    assert "tensors are taken over" in said.getvalue()
    file.unlink()
    longer = config_for(out, resume=True, changes=["train.max_steps=2"])
    assert train(data, out, longer, device="cpu", resume=True).step == 2
    assert Segmenter.from_pretrained(out, device="cpu")(data / "images" / "case00.png").mask.shape == (40, 32)
    (told,) = json.loads((out / "run.json").read_text())["pretrained"]
    assert (told["file"], told["sha256"]) == ("R50+ViT.npz", digest)
    begun_with = config_for(tmp_path / "more", start=out, changes=["train.max_steps=1"])
    assert begun_with.model.weights is None
    with pytest.raises(ConfigError, match="model.weights .*--start"):
        config_for(tmp_path / "more", start=out, changes=["model.weights=x.npz"])


def deits(folder: Path, *, dim: int, depth: int, patch: int) -> Path:
    """A small DeiT with the names of its authors, distilled."""
    shapes = {
        "patch_embed.proj.weight": (dim, 3, patch, patch),
        "patch_embed.proj.bias": (dim,),
        **dict.fromkeys(("cls_token", "dist_token", "pos_embed"), (1, 1, dim)),
        **{f"{name}.{kind}": (dim,) for name in ("norm", "head", "head_dist") for kind in ("weight", "bias")},
    }
    widths = {"attn.qkv": (3 * dim, dim), "attn.proj": (dim, dim), "mlp.fc1": (4 * dim, dim), "mlp.fc2": (dim, 4 * dim)}
    for block in range(depth):
        for name, shape in widths.items():
            shapes |= {f"blocks.{block}.{name}.weight": shape, f"blocks.{block}.{name}.bias": shape[:1]}
        for name in ("norm1", "norm2"):
            shapes |= {f"blocks.{block}.{name}.{kind}": (dim,) for kind in ("weight", "bias")}
    torch.save({"model": {name: torch.randn(shape) for name, shape in shapes.items()}}, folder / "deit.pth")
    return folder / "deit.pth"


def test_fatnet_begins_with_two_files_one_for_each_branch(tmp_path: Path) -> None:
    config = small_network("fatnet")
    model, settings = build_model(config).eval(), config.model
    encoder = ResNetEncoder(3, widths=settings.widths, blocks=settings.blocks)
    torch.save(randomised(encoder).state_dict() | {"fc.bias": torch.zeros(5)}, tmp_path / "resnet.pth")
    deit = deits(tmp_path, dim=settings.dim, depth=settings.depth, patch=model.stride)
    for taken in take([str(tmp_path / "resnet.pth"), str(deit)], model, model.layouts):
        model.load_state_dict(taken.weights, strict=False)
    ours, given = model.condition_model, read_weights(deit)
    assert all(torch.equal(value, encoder.state_dict()[name]) for name, value in ours.encoder.state_dict().items())
    theirs = nn.TransformerEncoderLayer(
        settings.dim, settings.heads, 4 * settings.dim, 0.0, F.gelu, 1e-6, batch_first=True, norm_first=True
    ).eval()
    places = {"self_attn.in_proj_": "attn.qkv.", "self_attn.out_proj.": "attn.proj.", "linear1.": "mlp.fc1."}
    places |= {"linear2.": "mlp.fc2.", "norm1.": "norm1.", "norm2.": "norm2."}
    kinds = ("weight", "bias")
    theirs.load_state_dict({a + kind: given[f"blocks.1.{b}{kind}"] for a, b in places.items() for kind in kinds})
    tokens = torch.randn(2, 7, settings.dim)
    assert torch.allclose(ours.layers[1](tokens), theirs(tokens), atol=1e-4)
    assert torch.equal(ours.patches.weight, given["patch_embed.proj.weight"])


def test_a_missing_file_stops_training_before_anything_is_written(data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="nowhere.npz: there is no such file"):
        train(data, tmp_path / "run", settings(tmp_path / "nowhere.npz"), device="cpu")
    assert not (tmp_path / "run").exists()
