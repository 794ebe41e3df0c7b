"""Memory that does not suffice, and processes that load and end, are told in words that say what to do."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest
import torch

from medsegdiff.cli.command import guard
from medsegdiff.config.run import TrainConfig
from medsegdiff.data import loader
from medsegdiff.data.loader import TrainingStream, loading_worded, training_loader
from medsegdiff.errors import OutOfMemoryError, TrainingError, lacks_memory, memory_worded
from medsegdiff.training.train import lack_worded
from tests.makers import small_config

FAR_TOO_MANY = 10**15


def of_torch() -> None:
    torch.empty(FAR_TOO_MANY)


def of_numpy() -> None:
    np.empty(FAR_TOO_MANY)


def of_a_gpu() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has 8 GiB.")


def of_python() -> None:
    bytearray(FAR_TOO_MANY)


def of_a_process_that_loads() -> None:
    raise MemoryError("Caught MemoryError in DataLoader worker process 0.\nTraceback …\nMemoryError: no")


WAYS = [of_torch, of_numpy, of_a_gpu, of_python, of_a_process_that_loads]


@pytest.mark.parametrize("fail", WAYS)
def test_every_way_to_lack_memory_becomes_one_that_says_what_to_do(fail) -> None:
    with (
        pytest.raises(OutOfMemoryError, match=r"a.png: there is not enough memory \(.*\)\. Close other programs\."),
        memory_worded("a.png", way_out="Close other programs."),
    ):
        fail()


@pytest.mark.parametrize(
    "error", [RuntimeError("shapes differ"), ValueError("out of memory"), FileNotFoundError(2, "a")]
)
def test_other_errors_stay_as_they_are(error: Exception) -> None:
    assert not lacks_memory(error)
    with pytest.raises(type(error)), memory_worded("a.png", way_out="Close."):
        raise error


def test_training_names_the_settings_to_lower() -> None:
    config = small_config("train.batch_size=64", "data.image_size=512")
    told = r"Lower train.batch_size \(64; .* or data.image_size \(512\)"
    with pytest.raises(OutOfMemoryError, match=told), lack_worded(config):
        of_torch()


@pytest.mark.parametrize("fail", WAYS)
def test_a_command_that_lacks_memory_ends_in_words(fail, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        guard(fail)
    assert ended.value.code == 1
    shown = capsys.readouterr().err
    assert "not enough memory" in shown
    assert "Traceback" not in shown.replace("Traceback …", "")


class Stream(TrainingStream):
    """Samples whose third one does something else."""

    def __init__(self, third) -> None:
        self.third = third

    def __getitem__(self, position: int) -> dict:
        if position == 3:
            self.third()
        return {"image": torch.zeros(1, 2, 2), "mask": torch.zeros(1, 2, 2), "position": position}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def sleep() -> None:
    time.sleep(1000)


def stop() -> None:
    time.sleep(0.5)  # until the batch before has arrived: half of a message is waited for whatever the patience
    os.kill(os.getpid(), signal.SIGSTOP)


@pytest.mark.parametrize("third", [die, sleep, stop])
def test_a_process_that_loads_and_ends_or_hangs_ends_training_in_words(third, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loader, "PATIENCE", 1)
    batches = training_loader(Stream(third), TrainConfig(batch_size=2, num_workers=1), start=0, num_batches=4)
    start = time.monotonic()
    told = r"loads data has died.*Lower train.num_workers \(1; 0 loads in this process\)"
    with pytest.raises(TrainingError, match=told), loading_worded(1):
        list(batches)
    assert time.monotonic() - start < 15
