"""Folders of probabilities: grey pictures or volumes, one per case and class."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from medsegdiff.data.mask_folder import mask_folder
from medsegdiff.errors import DataError, some
from medsegdiff.io.image import read_map
from medsegdiff.io.names import file_name
from medsegdiff.labels import Labels


@dataclass(frozen=True)
class Maps:
    """Probability maps by class and case."""

    root: Path
    files: tuple[Mapping[str, Path] | None, ...]
    """By channel: case → file; ``None`` for a background that was not saved."""

    @property
    def names(self) -> list[str]:
        """Cases that have all maps."""
        return sorted(set.intersection(*(set(of) for of in self.files if of is not None)))

    def paths(self, name: str) -> list[Path]:
        """List the files of a case."""
        return [of[name] for of in self.files if of is not None]

    def read(self, name: str, channel: int) -> Float[np.ndarray, "*s"]:
        """Read a map."""
        of = self.files[channel]
        if of is None:
            rest = [self.read(name, index) for index, files in enumerate(self.files) if files is not None]
            return np.clip(1 - sum(rest), 0, 1)
        values = read_map(of[name])
        low, high = float(values.min()), float(values.max())
        if not (low >= 0 and high <= 1 + 1e-6):
            raise DataError(f"{of[name]}: values go from {low:g} to {high:g}; probabilities lie in 0 … 1.")
        return np.minimum(values, 1)

    def decided(self, name: str, channel: int, *, exclusive: bool) -> np.ndarray:
        """Decide which pixels are of a channel."""
        if not exclusive:
            return self.read(name, channel) >= 0.5
        return np.stack([self.read(name, index) for index in range(len(self.files))]).argmax(axis=0) == channel


def find_maps(folder: Path, coding: Labels, *, names: Collection[str]) -> Maps:
    """Look through a folder of probabilities."""
    found = mask_folder(folder, kind="structures", names=names)
    by_folder = {
        of: {name: found.by_folder(name)[of] for name in found.names if of in found.by_folder(name)}
        for of in found.folders
    }
    if len(coding.classes) == 1 and set(by_folder) == {""}:
        return Maps(folder, (by_folder[""],))
    wanted = [file_name(name) for name in coding.classes]
    optional = {wanted[0]} if coding.task == "exclusive" else set()
    if missing := [name for name in wanted if name not in by_folder and name not in optional]:
        raise DataError(
            f"{folder}: holds {some([name or 'pictures' for name in by_folder])}; expected a folder of probabilities "
            f"for each of {some(wanted)}; {some(missing)} is missing."
        )
    return Maps(folder, tuple(by_folder.get(name) for name in wanted))
