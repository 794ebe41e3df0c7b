"""What tests share: where real data are, a small network, a small data folder, one trained run."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
import torch

import tests.shapes  # noqa: F401  before the package: it decides how functions are checked

# isort: split
from medsegdiff.config.run import Config
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.models.base import DiffusionModel, build_model
from tests.makers import make_folder, randomised, small_config

# Tests run beside each other, one for each core: more threads would wait for each other. What is set here reaches the
# processes that this one starts (workers, commands, torchrun); torch has already read it in this one.
os.environ.update(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--data-root", default="../shared/data", help="Folder of real data; tests skip without it.")
    parser.addoption("--fuzz-inputs", default=300, type=int, help="Inputs that tests/fuzz tries, over all formats.")
    parser.addoption("--fuzz-kills", default=2, type=int, help="Points at which each command is killed.")
    parser.addoption("--fuzz-seed", default=0, type=int, help="The same seed tries the same inputs.")
    parser.addoption("--nnunet-python", default=None, help="Python that has nnunetv2; its check is skipped without.")


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for garbage neither while modules are loaded nor, later, among what they hold: a fifth of collecting."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture
def real_data(request: pytest.FixtureRequest) -> Callable[[str], Path]:
    """Find a folder of real data, or skip."""

    def find(name: str) -> Path:
        folder = Path(request.config.getoption("--data-root")) / name
        if not folder.is_dir():
            pytest.skip(f"no real data at {folder} (set --data-root)")
        return folder

    return find


@pytest.fixture
def config() -> Config:
    return small_config()


@pytest.fixture
def model(config: Config) -> DiffusionModel:
    return randomised(build_model(config))


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    """A small network that draws one structure in grey pictures, with random weights."""
    config = small_config("data.channels=1", "data.task=binary", "data.classes=[lesion]")
    return Segmenter(randomised(build_model(config)), config, device="cpu", precision="fp32")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder as a user has it: 12 grey pictures of a bright disc, masks 0/255."""
    return make_folder(tmp_path / "data")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A run of a few steps, and the data it was trained on."""
    from medsegdiff.training.train import train

    base = tmp_path_factory.mktemp("trained")
    data = make_folder(base / "data")
    train(data, base / "run", small_config("train.max_steps=6", "train.val_every=3", "train.save_every=3"))
    return base / "run", data
