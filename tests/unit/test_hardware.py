from __future__ import annotations

import pytest
import torch

from medsegdiff import hardware
from medsegdiff.config.run import Precision
from medsegdiff.errors import ConfigError
from medsegdiff.hardware import TF32, autocast, device_memory, full_float32, pick_device, pick_precision

CPU = torch.device("cpu")


def test_what_is_asked_for_is_taken() -> None:
    assert pick_precision("fp32", CPU) == "fp32"
    assert pick_precision("bf16", CPU) == "bf16"
    assert pick_device("cpu") == CPU


@pytest.mark.parametrize(("tiles", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_goes_by_the_hardware(monkeypatch: pytest.MonkeyPatch, tiles: bool, precision: str) -> None:
    monkeypatch.setattr(hardware, "_multiplies_bf16", lambda: tiles)
    assert pick_precision("auto", CPU) == precision
    with autocast("auto", CPU):
        product = torch.ones(4, 4) @ torch.ones(4, 4)
    assert product.dtype == (torch.bfloat16 if tiles else torch.float32)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_what_stays_in_float32_is_not_rounded_to_tf32(precision: Precision) -> None:
    """GPUs would round the factors of convolutions, and so the last layer, to 10 bits. Switches outside stay as set."""

    def switches() -> list[object]:
        return [getattr(part, name) for part, name, _ in TF32]

    outside = switches()
    with autocast(precision, CPU):
        assert switches() == [off for _, _, off in TF32]
    assert switches() == outside
    assert outside[0] != TF32[0][2]  # of PyTorch's own accord TF32 is on


def test_who_leaves_first_does_not_decide_for_those_who_stay() -> None:
    """Two threads, say, of which the one that began first ends first."""
    first, second = full_float32(), full_float32()
    outside = [getattr(part, name) for part, name, _ in TF32]
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert [getattr(part, name) for part, name, _ in TF32] == [off for _, _, off in TF32]
    second.__exit__(None, None, None)
    assert [getattr(part, name) for part, name, _ in TF32] == outside


@pytest.mark.parametrize(("capability", "precision"), [((6, 1), "fp32"), ((7, 5), "fp16"), ((8, 0), "bf16")])
def test_gpus_take_what_they_multiply_fast(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], precision: str
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert pick_precision("auto", torch.device("cuda")) == precision


@pytest.mark.parametrize(("amx", "avx512"), [(True, False), (False, True), (False, False)])
def test_a_cpu_takes_bf16_where_its_flags_say_so(monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    assert pick_precision("auto", CPU) == ("bf16" if amx or avx512 else "fp32")


def test_a_cpu_does_not_take_fp16() -> None:
    with pytest.raises(ConfigError, match="take fp32, bf16 or auto"):
        pick_precision("fp16", CPU)


def test_memory_of_a_gpu_is_what_others_have_left_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (3_000_000_000, 16_000_000_000))
    assert device_memory(torch.device("cuda")) == 3e9


def test_a_device_that_is_not_there_says_what_is() -> None:
    with pytest.raises(ConfigError, match="Here there is: cpu" if not torch.cuda.is_available() else "Here there is"):
        pick_device("cuda:99")
