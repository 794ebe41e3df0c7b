"""Results as `medsegdiff segment` leaves them, of images whose members are known: no network is needed."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from medsegdiff.config.diffusion import SamplingConfig
from medsegdiff.inference import RECORD
from medsegdiff.inference.record import ImageRecord, Record
from medsegdiff.inference.review import Quality
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.uncertainty import Uncertainty, entropy_of
from medsegdiff.io.atomic import write_json
from medsegdiff.labels import Labels
from medsegdiff.models.checkpoint import Origin
from medsegdiff.types import Geometry

EYE = Labels("exclusive", ("background", "disc", "cup"))
LESION = Labels("binary", ("lesion",))
PARTS = ("masks", "labels", "probability", "uncertainty", "anchor", "overlay", "members")


def distances(shape: tuple[int, ...]) -> np.ndarray:
    """Distance from the middle, as a share of the shorter side, flattened a little."""
    axes = np.meshgrid(*((np.arange(n) - (n - 1) / 2) / min(shape) for n in shape), indexing="ij")
    return np.sqrt(sum((1 + 0.25 * place) * axis**2 for place, axis in enumerate(axes)))


def segmentation(
    name: str, shape: tuple[int, ...], labels: Labels = LESION, *, members: int = 5, empty: bool = False
) -> Segmentation:
    """Members are discs that grow from one to the next; the image is bright where they are."""
    away = distances(shape)
    tilt = np.indices(shape)[-1] / shape[-1] - 0.5
    radii = np.linspace(0.2, 0.34, members) * (0 if empty else 1)
    bound = [away + 0.15 * tilt * (place / members - 0.5) for place in range(members)]
    maps = np.zeros((members, *shape), np.uint8)
    for part in range(len(labels.structures)):
        for member, radius in enumerate(radii):
            maps[member][bound[member] < radius * (1 - 0.5 * part)] = part + 1
    classes = range(len(labels.structures) + 1)
    shares = np.stack([(maps == c).mean(axis=0) for c in classes]).astype(np.float32)
    probability = shares if labels.exclusive else shares[1:]
    entropy = entropy_of(probability, exclusive=labels.exclusive)
    noise = np.random.default_rng(0).normal(0, 0.03, shape)
    image = np.clip(0.72 - 0.9 * np.clip(away, 0, 0.5) + 0.25 * (away < 0.12) + noise, 0, 1).astype(np.float32)
    volume = len(shape) == 3
    affine = np.diag([-1.5, 1.5, 3.0, 1.0]) if volume else None
    spacing = (1.5, 1.5, 3.0) if volume else (1.0, 1.0)
    return Segmentation(
        name=name,
        image=(np.rint(image * 1000 - 500) if volume else image)[None].astype(np.float32),
        geometry=Geometry(shape=shape, spacing=spacing, affine=affine),
        labels=labels,
        mask=maps[members // 2],
        probability=probability,
        uncertainty=Uncertainty(std=entropy / 2, entropy=entropy, disagreement=entropy / 2),
        members=maps,
        anchor=maps[0],
        anchor_probability=None,
        sensitivity=None,
        specificity=None,
    )


def shown(root: Path, *results: Segmentation, parts: tuple[str, ...] = PARTS, judged: bool = True) -> tuple[Path, Path]:
    """Write images and results: the folders of both."""
    images, out = root / "images", root / "results"
    images.mkdir(parents=True)
    told = []
    for result in results:
        result.save(out, parts=parts)
        _write_image(images, result)
        told.append(_told(result, judged=judged))
    record = Record(
        task=results[0].labels.task,
        classes=results[0].labels.classes,
        model=Origin("runs/eyes", "best"),
        members=len(results[0].members),
        sampling=SamplingConfig(members=len(results[0].members)),
        images=tuple(told),
    )
    write_json(out / RECORD, record.model_dump(mode="json", exclude_none=True))
    return out, images


def _told(result: Segmentation, *, judged: bool) -> ImageRecord:
    quality = {
        name: Quality(
            score=0.8,
            predicted_dice=0.91 - 0.2 * place,
            dice_at_least=0.84 - 0.2 * place,
            trust=0.7 - 0.3 * place,
            review=place > 0,
            reasons=("members disagree at its border",) if place else (),
        )
        for place, name in enumerate(result.labels.structures)
    }
    return ImageRecord(
        name=result.name,
        members=len(result.members),
        agreement=result.agreement(),
        sizes=result.sizes(),
        quality=quality if judged else {},
    )


def _write_image(folder: Path, result: Segmentation) -> None:
    if result.geometry.affine is None:
        Image.fromarray(np.round(result.image[0] * 255).astype(np.uint8)).save(folder / f"{result.name}.png")
    else:
        volume = nib.Nifti1Image(result.image[0].astype(np.int16), result.geometry.affine)
        nib.save(volume, folder / f"{result.name}.nii.gz")
