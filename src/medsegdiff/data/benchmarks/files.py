"""Files of official data sets: by their names, and folder after folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from medsegdiff.io.image import images_in
from medsegdiff.io.nifti import is_volume


def named(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """List the images of a folder that are named as they should be."""
    return [path for path in images_in(folder) if pattern.fullmatch(path.name)] if folder.is_dir() else []


def walk(root: Path, *, levels: int) -> Iterator[tuple[Path, list[Path]]]:
    """Walk through a folder and those below it, the outer ones first and those of a level by their names.

    Nothing is looked for below a folder with ``images/``: it is a data set of another kind.
    """
    level = [root]
    for _ in range(levels + 1):
        deeper: list[Path] = []
        for folder in level:
            try:
                with os.scandir(folder) as entries:
                    shown = sorted((e.name, e.is_dir()) for e in entries if not e.name.startswith("."))
            except OSError:  # a file, or a folder of somebody else
                continue
            yield folder, [folder / name for name, is_folder in shown if not is_folder and is_volume(Path(name))]
            if ("images", True) not in shown:
                deeper += [folder / name for name, is_folder in shown if is_folder]
        level = deeper
