"""Writing data as nnU-Net and the Medical Segmentation Decathlon have them: label maps and a description."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from medsegdiff.data.convert.files import (
    PICTURE,
    VOLUME,
    CaseOutput,
    Survey,
    Target,
    copy,
    is_plain_picture,
    is_plain_volume,
    safe,
    source_name,
    write_picture,
)
from medsegdiff.data.convert.labels import LabelScheme, fuse_raters, scheme_of
from medsegdiff.data.dataset import CaseFiles
from medsegdiff.data.layouts.msd import UNNAMED
from medsegdiff.data.layouts.nnunet import NAMED
from medsegdiff.errors import ConfigError, DataError
from medsegdiff.io.atomic import write_json
from medsegdiff.io.image import read_channels, read_image, write_labels
from medsegdiff.io.nifti import write_map

COLOURS = {1: ("grey",), 3: ("R", "G", "B")}
"""Names of the channels of pictures, by their number."""


def check_name(out: Path, source: Path) -> None:
    """Refuse a folder that nnU-Net would not find."""
    if not NAMED.fullmatch(out.resolve().name):
        name = re.sub(r"\W+|_+", "", source_name(source).title()) or "Name"
        raise ConfigError(
            f"{out}: nnU-Net knows data sets by a number of three digits and a name, Dataset012_Name. "
            f"Write to {out.parent / f'Dataset001_{name}'}, say."
        )


def to_nnunet(found: Survey, out: Path) -> Target:
    """Write a file per channel, labels from 0 on, and ``dataset.json``.

    Cases of the part ``test`` go to ``imagesTs``, all others to ``imagesTr``: nnU-Net makes folds of its own.
    """
    scheme = scheme_of(found.labels, found.combinations, found.listing.root)
    write_images = _write_volume if found.volumes else _write_pictures
    labelled = labels_writer(found, scheme)

    def write(case: CaseFiles, output: CaseOutput) -> list[str]:
        short = "Ts" if case.part == "test" else "Tr"
        write_images(case, output, f"images{short}", found.channels)
        labelled(case, output, f"labels{short}")
        return [safe(case.name)]

    def finish(done: Sequence[CaseFiles]) -> None:
        (out / "labelsTr").mkdir(parents=True, exist_ok=True)
        (out / "imagesTr").mkdir(parents=True, exist_ok=True)
        order = {"regions_class_order": list(scheme.order)} if scheme.order else {}
        described = {
            "channel_names": {str(number): name for number, name in enumerate(channel_names(found))},
            "labels": scheme.named,
            **order,
            "numTraining": sum(case.part != "test" for case in done),
            "file_ending": VOLUME if found.volumes else PICTURE,
        }
        write_json(out / "dataset.json", described)

    return Target(write, finish, describes_parts=True, notes=notes_on(found, scheme))


def notes_on(found: Survey, scheme: LabelScheme) -> list[str]:
    """Say what label maps hold otherwise than the source."""
    notes = []
    if found.listing.masks.kind == "raters":
        raters = ", ".join(found.listing.masks.folders)
        notes.append(f"Labels are the majority of the raters {raters}; a tie is foreground.")
    if scheme.crossing:
        notes.append(
            "Some regions overlap without one holding the other: the labels keep this exactly, but nnU-Net's own "
            "predictions can't, for it paints one region over the other (regions_class_order)."
        )
    return notes


def channel_names(found: Survey) -> list[str]:
    """Name the image channels: ``CT`` where Hounsfield units are known, for by this word they are normalised."""
    names = found.listing.channels if len(found.listing.channels) == found.channels else ()
    if not found.volumes:
        return list(names or COLOURS.get(found.channels) or _unnamed(found.channels))
    kinds = found.modalities if len(found.modalities) == found.channels else ()
    named = list(names or (["MR"] * found.channels if kinds else _unnamed(found.channels)))
    return ["CT" if kinds and kinds[number] == "ct" else name for number, name in enumerate(named)]


def _unnamed(count: int) -> list[str]:
    return [f"{UNNAMED}{number}" for number in range(count)]


def labels_writer(found: Survey, scheme: LabelScheme) -> Callable[[CaseFiles, CaseOutput, str], None]:
    """Give what writes the label map of a case, on the grid of its image."""

    def write(case: CaseFiles, output: CaseOutput, folder: str) -> None:
        masks = found.masks_of(case)
        if masks is None or found.labels is None:
            return
        labels = scheme.encode(*fuse_raters(*masks, exclusive=found.labels.exclusive))
        geometry = found.scan.grids[case.name]
        path = output.path(folder, safe(case.name) + (VOLUME if found.volumes else PICTURE))
        write_labels(path.parent, safe(case.name), labels, geometry)

    return write


def _write_volume(case: CaseFiles, output: CaseOutput, folder: str, channels: int) -> None:
    """Write each channel as a volume of its own; a file that is one already is copied."""
    _, geometry = read_channels(case.images)
    number = 0
    for path in case.images:
        voxels, own = read_image(path)
        for channel in voxels:
            where = output.path(folder, f"{safe(case.name)}_{number:04d}{VOLUME}")
            if is_plain_volume(path, own, axes=(3,)):
                copy(path, where)
            else:
                write_map(where, channel, geometry)
            number += 1


def _write_pictures(case: CaseFiles, output: CaseOutput, folder: str, channels: int) -> None:
    """Write each picture, grey or coloured; grey among coloured ones gets three equal channels."""
    for number, path in enumerate(case.images):
        image, _ = read_image(path)
        if len(case.images) == 1 and len(image) < channels:
            image = _in_colour(image, channels)
        where = output.path(folder, f"{safe(case.name)}_{number:04d}{PICTURE}")
        if is_plain_picture(path, len(image)):
            copy(path, where)
        else:
            write_picture(where, image)


def _in_colour(grey: Float[np.ndarray, "1 h w"], channels: int) -> Float[np.ndarray, "c h w"]:
    return np.repeat(grey, channels, axis=0)


def to_msd(found: Survey, out: Path) -> Target:
    """Write a NIfTI file per case, its channels along the fourth axis, labels from 0 on, and ``dataset.json``."""
    root = found.listing.root
    if not found.volumes:
        raise DataError(f"{root}: holds pictures; the Decathlon's layout holds volumes. Write 'nnunet' or 'folder'.")
    scheme = scheme_of(found.labels, found.combinations, root)
    if scheme.order or found.ignores:
        what = "regions that may overlap" if scheme.order else "pixels that nobody labelled"
        raise DataError(f"{root}: has {what}; the Decathlon's layout has no words for them. Write 'nnunet'.")
    labelled = labels_writer(found, scheme)

    def write(case: CaseFiles, output: CaseOutput) -> list[str]:
        short = "Ts" if case.part == "test" else "Tr"
        write_volume(case, output, f"images{short}")
        labelled(case, output, f"labels{short}")
        return [safe(case.name)]

    def finish(done: Sequence[CaseFiles]) -> None:
        training = [case for case in done if case.part not in ("val", "test")]
        validation = [case for case in done if case.part == "val"]
        test = [f"./imagesTs/{safe(case.name)}{VOLUME}" for case in done if case.part == "test"]
        names = {value: name for name, value in scheme.named.items() if isinstance(value, int) and name != "ignore"}
        described = {
            "name": source_name(root),
            "tensorImageSize": "3D" if found.channels == 1 else "4D",
            "modality": {str(number): name for number, name in enumerate(channel_names(found))},
            "labels": {str(value): name for value, name in sorted(names.items())},
            "numTraining": len(training),
            "numTest": len(test),
            "training": [_pair(case) for case in training],
            **({"validation": [_pair(case) for case in validation]} if validation else {}),
            "test": test,
        }
        write_json(out / "dataset.json", described)

    return Target(write, finish, describes_parts=True, notes=notes_on(found, scheme))


def _pair(case: CaseFiles) -> dict[str, Any]:
    name = f"{safe(case.name)}{VOLUME}"
    return {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"}


def write_volume(case: CaseFiles, output: CaseOutput, folder: str) -> None:
    """Write a volume with all its channels into one file; one that is so already is copied."""
    voxels, geometry = read_channels(case.images)
    where = output.path(folder, f"{safe(case.name)}{VOLUME}")
    if len(case.images) == 1 and is_plain_volume(case.images[0], geometry, axes=(3, 4)):
        copy(case.images[0], where)
    else:
        write_map(where, voxels if len(voxels) > 1 else voxels[0], geometry)
