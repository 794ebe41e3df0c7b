"""Packages that bring models, as pip would have installed them; and a tiny run to pack."""

from __future__ import annotations

import importlib
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from medsegdiff.sharing.card import About
from medsegdiff.sharing.pack import pack
from tests.exported import TINY, config_of, write_run

ABOUT = About("disc", "apache-2.0", data="Drawn discs", data_license="CC0 1.0", use="Tests.")


def tiny_run(folder: Path) -> Path:
    """Write a run of one structure in grey pictures, of a few thousand weights."""
    folder.mkdir(parents=True)
    for name, content in _files().items():
        (folder / name).write_bytes(content)
    return folder


@cache
def _files() -> dict[str, bytes]:
    """Make the run once: it takes half a second."""
    with TemporaryDirectory() as place:
        config = config_of(*TINY, "data.task=binary", "data.classes=[disc]", "sampling.fusion=dice")
        return {path.name: path.read_bytes() for path in write_run(Path(place), config).iterdir()}


def packed(base: Path, name: str = "disc") -> Path:
    """Pack the tiny run."""
    return pack(tiny_run(base / "run"), base / name, ABOUT).folder


def install(site: Path, package: str, patch: pytest.MonkeyPatch, *, version: str = "1.0") -> Path:
    """Lay a package with the entry point of models into a folder of the path; models go into what is returned."""
    folder = site / package
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    info = site / f"{package}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package.replace('_', '-')}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[medsegdiff.models]\n{package} = {package}\n")
    patch.syspath_prepend(site)
    importlib.invalidate_caches()
    return folder
