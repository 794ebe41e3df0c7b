"""A published data set as data: what lies where and what masks mean. One reader finds, refuses and lists them all.

What no spec can say is a function of its data set: ``find`` takes the place of `in_parts`, or works on what that found.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from medsegdiff.config.data import DataConfig, Modality
from medsegdiff.data.dataset import DATASETS, CaseFiles, Layout, Listing, expected, indexed
from medsegdiff.data.mask_folder import by_name
from medsegdiff.data.masks import MaskFile, MaskReader, Masks
from medsegdiff.data.split import assign
from medsegdiff.io.listing import SUFFIXES, is_hidden
from medsegdiff.io.names import image_name
from medsegdiff.labels import Labels

READABLE = (*SUFFIXES, ".bmp")
"""Endings of images and masks, in small letters."""


@dataclass(frozen=True)
class Part:
    """Where a part of the cases lies: globs seen from the data set's folder, several with ``|`` between."""

    name: str
    """``train``, ``val`` or ``test``; empty where there is no official split."""
    images: str
    masks: str = ""
    """Named as the images are, maybe with ``_mask`` or the like behind; empty where they are secret."""


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """A published data set."""

    name: str
    """The entry of `DATASETS`."""
    labels: Labels
    files: str
    """What lies where, in a line for users."""
    licence: str
    home: str
    paper: str = ""
    """Where the paper reports on it."""
    parts: tuple[Part, ...] = ()
    around: tuple[str, ...] = ()
    """Folders that may lie around those of the parts, as archives unpack."""
    name_of: Callable[[Path], str] = image_name
    """Names the case of an image or a mask."""
    patient: str = ""
    """Regular expression: the beginning of the names of a patient's cases."""
    raters: int = 0
    mask_endings: Mapping[str, str] = field(default_factory=lambda: {"": ""})
    """Rater → what the names of their masks end with."""
    unlabelled: Collection[str] = ("", "test")
    """Parts that may lack masks; any other without them is refused."""
    masks_named: str = "as the images are"
    """How, for users who lack them."""
    reader: MaskReader = field(default_factory=MaskReader)
    find: Callable[[Benchmark, Path, DataConfig], Found] | None = None
    """Finds the files; ``None``: `in_parts`."""
    match: Callable[[Path], bool] | None = None
    """Tells by names alone whether a folder holds the data set; ``None``: whether an image of a part is there."""
    channels: tuple[str, ...] = ()
    modalities: tuple[Modality, ...] = ()
    remarks: tuple[str, ...] = ()
    """What users should know of it."""
    variant_of: str = ""
    """The data set of which this is another reading, which is asked for and never detected."""


@dataclass(frozen=True)
class Found:
    """The files of a data set, and what only they tell."""

    cases: Sequence[CaseFiles] = ()
    masks: Mapping[str, Mapping[str, MaskFile]] = field(default_factory=dict)
    """Rater → case → file; the rater is empty where there is one mask each."""
    where: Path | None = None
    """The folder of the masks; ``None``: that of the data set."""
    labels: Labels | None = None
    """In place of those of the spec."""
    reader: MaskReader | None = None
    """In place of that of the spec."""
    remarks: tuple[str, ...] = ()
    passed_over: Collection[str] = ()
    """Names of images that are no cases."""


def register(spec: Benchmark) -> Benchmark:
    """Enter a data set into `DATASETS`."""
    facts = {
        "kind": "benchmark",
        "variant_of": spec.variant_of,
        "task": spec.labels.task,
        "classes": spec.labels.classes[int(spec.labels.task == "exclusive") :],  # not the background
        "raters": spec.raters,
        "licence": spec.licence,
        "home": spec.home,
        "paper": spec.paper,
        "layout": spec.files + (f"; asked for with data.layout={spec.name}" if spec.variant_of else ""),
    }
    told = {key: value for key, value in facts.items() if value or key == "paper"}
    layout = Layout(partial(matches, spec), partial(list_benchmark, spec))
    DATASETS.register(spec.name, **told)(layout)
    return spec


def matches(spec: Benchmark, root: Path) -> bool:
    """Tell by names alone whether a folder holds a data set; a variant is asked for."""
    if spec.variant_of:
        return False
    if spec.match:
        return spec.match(root)
    return any(True for part in spec.parts for _ in files_in(spec, root, part.images))


def list_benchmark(spec: Benchmark, root: Path, config: DataConfig) -> Listing:
    """List the cases of a data set, in the parts of ``split.csv`` if the user wrote one."""
    found = (spec.find or in_parts)(spec, root, config)
    if not found.cases:
        raise expected(spec.files, root)
    cases = assign(indexed(found.cases, root), root / "split.csv")
    masks = Masks(
        found.masks,
        kind="flat" if "" in found.masks else "raters",
        where=found.where or root,
        declared=found.labels or spec.labels,
        reader=found.reader or spec.reader,
    )
    known = {*found.passed_over, *(case.name for case in found.cases)}
    return Listing(
        root,
        spec.name,
        cases,
        masks,
        channels=spec.channels,
        modalities=spec.modalities,
        unlisted=tuple(sorted(known - set(cases))),
        remarks=(*spec.remarks, *found.remarks),
    )


def in_parts(spec: Benchmark, root: Path, config: DataConfig) -> Found:
    """Find the images and masks of all parts."""
    cases: list[CaseFiles] = []
    drawn: dict[str, Path] = {}
    for part in spec.parts:
        images = [(spec.name_of(path), path) for path in sorted(files_in(spec, root, part.images))]
        paths = sorted(files_in(spec, root, part.masks))
        masks = by_name(paths, {name for name, _ in images}, name_of=spec.name_of)
        if images and not masks and part.name not in spec.unlabelled:
            of, into = _folders(part.images), _folders(part.masks)
            what = f"the masks of {' or '.join(of)} in {' or '.join(into)}, named {spec.masks_named}"
            raise expected(what, root / os.path.commonpath([*of, *into]))
        for name, path in images:
            patient = re.match(spec.patient, name)
            cases.append(CaseFiles(name, (path,), part.name, group=patient[0] if patient else ""))
        drawn |= masks
    by_rater = {
        rater: {name.removesuffix(ending): path for name, path in drawn.items() if name.endswith(ending)}
        for rater, ending in spec.mask_endings.items()
    }
    wanted = [root / folder for part in spec.parts for folder in _folders(part.masks)]
    where = os.path.commonpath({path.parent for path in drawn.values()} or wanted or [root])
    return Found(cases, by_rater, where=Path(where))


def files_in(spec: Benchmark, root: Path, globs: str) -> Iterator[Path]:
    """Find images or masks; none that are hidden, as archives from a Mac bring along."""
    for place in (root, *(root / folder for folder in spec.around)):
        for path in (path for glob in globs.split("|") if glob for path in place.glob(glob)):
            inner = path.relative_to(place)
            if path.name.lower().endswith(READABLE) and not any(map(is_hidden, (inner, *inner.parents[:-1]))):
                yield path


def _folders(globs: str) -> list[str]:
    """Name the folders that globs stand for, to their first wildcard."""
    return list(dict.fromkeys(re.split(r"/?[^/]*[*?[]", glob, maxsplit=1)[0] for glob in globs.split("|") if glob))
