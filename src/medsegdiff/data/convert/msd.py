"""Writing folders of the Medical Segmentation Decathlon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsegdiff.data.convert.files import VOLUME, CaseOutput, copy, is_plain_volume, safe
from medsegdiff.data.convert.labels import scheme_of
from medsegdiff.data.convert.nnunet import channel_names, labels_writer, notes_on
from medsegdiff.data.convert.survey import Survey, Target, source_name
from medsegdiff.data.listing import CaseFiles
from medsegdiff.errors import DataError
from medsegdiff.io.atomic import write_json
from medsegdiff.io.image import read_channels
from medsegdiff.io.nifti import write_map


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
