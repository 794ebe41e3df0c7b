from __future__ import annotations

import pytest
import torch

from medsegdiff import hardware
from medsegdiff.config.run import Precision
from medsegdiff.errors import ConfigError
from medsegdiff.hardware import TF32, autocast, pick_device, pick_precision

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


def test_a_device_that_is_not_there_says_what_is() -> None:
    with pytest.raises(ConfigError, match="Here there is: cpu" if not torch.cuda.is_available() else "Here there is"):
        pick_device("cuda:99")
