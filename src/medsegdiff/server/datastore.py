"""Images that viewers choose from, labels that they give back, and images that they send once for several questions."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.mask_folder import without_mark
from medsegdiff.errors import DataError
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.io.atomic import atomic_path
from medsegdiff.io.listing import SUFFIXES, folders_in, is_series, list_images
from medsegdiff.io.names import image_name
from medsegdiff.server.uploads import Source, remove, safe_name

LABELS = "labels"
"""Folder of labels that came back, a folder for each tag, as MONAI Label has it."""
FINAL = "final"
"""Tag of a label that somebody has finished."""


@dataclass(frozen=True)
class Datastore:
    """A folder of images, and labels of them."""

    images: Path | None
    """``None``: there are none; viewers send theirs."""
    labels: Path
    """Where labels are kept."""
    like: ResolvedConfig | None = None
    """A model whose cases are of several files, if there is one: images are put together so."""

    def of(self, user: str) -> Datastore:
        """Take what a user sees: labels of common images are common too, of sent ones they are each user's own."""
        if self.images is not None or not user:
            return self
        return replace(self, labels=self.labels / hashlib.sha256(user.encode()).hexdigest()[:16])

    @cached_property
    def cases(self) -> dict[str, CaseFiles]:
        """The images, by name."""
        places = [] if self.images is None else self._looked_at(self.images)
        found = find_inputs(places, like=self.like, noted=lambda _: None)
        return {case.name: case for case in found if self.labels not in case.images[0].parents}

    def _looked_at(self, folder: Path) -> Sequence[Path]:
        """Leave out labels that came back: a folder of images would become a data set by them."""
        others = [path for path in folders_in(folder) if path != self.labels]
        if not self.labels.is_dir() or any(is_series(path) or list_images(path).images for path in others):
            return [folder]
        beside = list_images(folder).images
        names = {image_name(path) for path in beside}
        masks = {name for name in names if without_mark(name) != name and without_mark(name) in names}
        return [path for path in beside if image_name(path) not in masks] or [folder]

    def image(self, name: str) -> CaseFiles:
        """Find an image."""
        if name not in self.cases:
            raise DataError(f"There is no image '{name}' in the folder that was given as --data.")
        return self.cases[name]

    def file(self, name: str) -> Path:
        """Find the file of an image; a series has none."""
        path = self.image(name).images[0]
        if not path.is_file():
            raise DataError(f"{name} is a series of several files, which is not given as one.")
        return path

    def label(self, name: str, tag: str) -> Path:
        """Find a label."""
        folder = self.labels / safe_name(tag or FINAL)
        found = [path for path in (folder / f"{safe_name(name)}{ending}" for ending in SUFFIXES) if path.is_file()]
        if not found:
            raise DataError(f"There is no label '{tag or FINAL}' of {name}.")
        return found[0]

    def keep(self, name: str, tag: str, source: Source, *, given: str) -> Path:
        """Keep a label, in place of an earlier one."""
        ending = next((end for end in SUFFIXES if given.lower().endswith(end)), None)
        if ending is None:
            raise DataError(f"A label is sent as {given}; allowed are {', '.join(SUFFIXES)}.")
        path = self.labels / safe_name(tag or FINAL) / f"{safe_name(name)}{ending}"
        with atomic_path(path, durable=True) as part, part.open("wb") as target:
            shutil.copyfileobj(source, target)
        return path

    def tags(self, name: str) -> list[str]:
        """List the tags of the labels of an image."""
        folders = sorted(self.labels.iterdir()) if self.labels.is_dir() else []
        return [folder.name for folder in folders if any(self._among(folder, name))]

    def next(self, strategy: str) -> str | None:
        """Choose an image that nobody has finished: the first, or any."""
        left = [name for name in self.cases if FINAL not in self.tags(name)]
        if not left:
            return None
        return secrets.choice(left) if strategy == "random" else left[0]

    def status(self) -> dict[str, Any]:
        """Tell how much is done."""
        tags = [tag for name in self.cases for tag in self.tags(name)]
        counts = {tag: tags.count(tag) for tag in tags}
        return {"total": len(self.cases), "completed": counts.get(FINAL, 0), "label_tags": counts, "train": []}

    def sweep(self, keep: float) -> None:
        """Remove labels of images that were sent, if they are older; those of common images stay."""
        if self.images is not None:
            return
        now = time.time()
        for path in self.labels.rglob("*"):
            with suppress(FileNotFoundError):  # it is being replaced
                if path.is_file() and now - path.stat().st_mtime > keep:
                    path.unlink()

    def _among(self, folder: Path, name: str) -> Iterator[Path]:
        return (path for end in SUFFIXES if (path := folder / f"{safe_name(name)}{end}").is_file())


class Sessions:
    """Images that are kept for a while, so that they are sent once."""

    def __init__(self, root: Path, keep: float) -> None:
        self.root, self.keep = root, keep
        remove(root)
        self._open: dict[str, tuple[str, float, Sequence[Path]]] = {}

    def begin(self) -> tuple[str, Path]:
        """Make a folder: its name, and where."""
        self.sweep()
        name = secrets.token_hex(16)
        (self.root / name).mkdir(parents=True)
        return name, self.root / name

    def add(self, name: str, user: str, images: Sequence[Path]) -> None:
        """Keep what was sent."""
        self._open[name] = (user, time.time(), images)

    def images(self, name: str, user: str) -> Sequence[Path]:
        """Give the images of a session of a user."""
        self.sweep()
        owner, _, images = self._open.get(name, (None, 0.0, ()))
        if owner != user:
            raise DataError("There is no such session. It may have expired: send the image anew.")
        return images

    def remove(self, name: str) -> None:
        """End a session."""
        if self._open.pop(name, None) is not None:
            remove(self.root / name)

    def sweep(self) -> None:
        """End those that began long ago."""
        now = time.time()
        for name in [name for name, (_, since, _) in list(self._open.items()) if now - since > self.keep]:
            self.remove(name)
