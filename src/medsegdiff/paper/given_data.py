"""The data of a reproduction: a folder of the user's, or the phantom, which is written first."""

from __future__ import annotations

from pathlib import Path

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import DATASETS
from medsegdiff.data.open import detect
from medsegdiff.data.phantom import PhantomSource, write_phantom
from medsegdiff.errors import DataError
from medsegdiff.io.names import folder_name

DATA, PHANTOM = "data", "phantom"
SMALL = ("data.image_size=64",)
"""For the phantom: what ``medsegdiff demo`` trains on."""


def is_made(data: str) -> bool:
    """Tell whether data are made, not read."""
    return data == PHANTOM and not Path(data).exists()


def resolved_name(data: str) -> str:
    """Name data by what they are from wherever one looks: a folder by its whole path."""
    return data if is_made(data) else str(Path(data).resolve())


def check_there(data: str) -> None:
    """Refuse a folder that is not there."""
    if not (is_made(data) or Path(data).exists()):
        raise DataError(f"{data}: there is no such folder. Give a data folder, or {PHANTOM}.")


def folder_of(data: str, out: Path, reading: DataConfig, *, counts: tuple[int, int, int] = (400, 40, 40)) -> Path:
    """Give the folder of the data; the phantom is written first, with so many cases to train, validate and test."""
    if not is_made(data):
        check_there(data)
        return Path(data)
    if not (out / DATA / "split.csv").is_file():  # written last
        write_phantom(PhantomSource(reading, counts=counts), out / DATA)
    return out / DATA


def label_of(data: str, reading: DataConfig) -> str:
    """Name data for people: by the benchmark whose layout they have, else by the folder."""
    if is_made(data):
        return PHANTOM
    layout = detect(Path(data)) if reading.layout == "auto" else reading.layout
    benchmark = layout is not None and DATASETS[layout].facts.get("kind") == "benchmark"
    return str(layout) if benchmark else folder_name(Path(data))
