"""Rates of members: of volumes from their slices, and as a table."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from medsegdiff.fusion.fusers import Fused, staple
from medsegdiff.inference.attempt import held
from medsegdiff.inference.case_record import CaseRecord
from medsegdiff.inference.collect import collect
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.inference.pasting import VolumeRates
from medsegdiff.inference.record import ImageRecord, Record, Settings
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.uncertainty import uncertainty_of
from medsegdiff.inference.writer import rates_of
from medsegdiff.labels import Labels, one_hot
from medsegdiff.types import Geometry, Task


def segmentation(members: torch.Tensor, fused: Fused, task: Task, classes: tuple[str, ...]) -> Segmentation:
    """The result of an image (m, k, h, w)."""
    labels, size = Labels(task, classes), (members.shape[2], members.shape[3])
    return Segmentation(
        name="scan",
        mask=labels.decide(fused.probability[0]),
        probability=fused.probability[0].numpy(),
        uncertainty=uncertainty_of(members, exclusive=task == "exclusive"),
        members=np.stack([labels.decide(member) for member in members]),
        anchor=labels.decide(members[0]),
        anchor_probability=None,
        sensitivity=None if fused.sensitivity is None else fused.sensitivity[:, 0].numpy(),
        specificity=None if fused.specificity is None else fused.specificity[:, 0].numpy(),
        held=None if fused.specificity is None else fused.probability[0].double().sum(dim=(1, 2)).numpy(),
        image=np.zeros((1, *size), np.float32),
        geometry=Geometry(size, (1.0, 1.0)),
        labels=labels,
    )


def write_rates(out: Path, result: Segmentation) -> None:
    settings, rates = Settings(), tuple(rates_of(result.name, result, result.labels))
    record = Record(task=result.labels.task, classes=result.labels.classes, settings=settings)
    with held(out) as attempt:
        SegmentationFolder(out).begin(record, None, attempt)
        image = ImageRecord(name=result.name)
        attempt.commit(CaseRecord(name=result.name, settings=settings, image=image, rates=rates))
    collect(out)


def slices(task: Task, classes: tuple[str, ...], m: int = 4) -> list[tuple[torch.Tensor, Segmentation]]:
    """Noisy members of slices of which some hold much, some little and one nothing (m, k, h, w)."""
    generator, found = torch.Generator().manual_seed(0), []
    num_labels = len(classes) if task == "exclusive" else len(classes) + 1
    for size in (20, 9, 4, 0):
        labels = torch.zeros(32, 32).long()
        labels[:size, : size + 2], labels[31 - size : 31, 20:25] = 1, num_labels - 1
        wrong = torch.rand(m, 32, 32, generator=generator) < 0.1
        drawn = torch.where(wrong & (size > 0), torch.randint(0, num_labels, (m, 32, 32), generator=generator), labels)
        members = one_hot(drawn, num_labels)[:, 0 if task == "exclusive" else 1 :]
        fused = staple(members[:, None], exclusive=task == "exclusive", tolerance=1e-10)
        found.append((members, segmentation(members, fused, task, classes)))
    return found


TASKS: list[tuple[Task, tuple[str, ...]]] = [
    ("binary", ("lesion",)),
    ("exclusive", ("background", "a", "b")),
    ("regions", ("disc", "cup")),
]


@pytest.mark.parametrize(("task", "classes"), TASKS)
def test_rates_of_a_volume_are_shares_of_all_its_voxels(task: Task, classes: tuple[str, ...]) -> None:
    rates, parts = VolumeRates(), slices(task, classes)
    for _, part in parts:
        rates.add(part)
    votes = torch.stack([members for members, _ in parts], dim=2).double().flatten(2)  # (m, k, voxels)
    truth = torch.stack([torch.from_numpy(part.probability) for _, part in parts], dim=1).double().flatten(1)
    sensitivity, specificity = rates.result()
    assert sensitivity is not None
    assert specificity is not None
    found = (votes * truth).sum(dim=2) / truth.sum(dim=1)
    left_out = ((1 - votes) * (1 - truth)).sum(dim=2) / (1 - truth).sum(dim=1)
    assert sensitivity == pytest.approx(found.numpy(), abs=1e-4)
    assert specificity == pytest.approx(left_out.numpy(), abs=1e-4)


def test_a_volume_of_nothing_has_finite_rates_and_one_of_another_fusion_none() -> None:
    rates, empty = VolumeRates(), torch.zeros(3, 1, 8, 8)
    assert rates.result() == (None, None)
    rates.add(segmentation(empty, Fused(empty[:1]), "binary", ("lesion",)))
    assert rates.result() == (None, None)
    fused = replace(staple(empty[:, None]), probability=torch.zeros(1, 1, 8, 8))
    rates.add(segmentation(empty, fused, "binary", ("lesion",)))
    sensitivity, specificity = rates.result()
    assert np.isfinite(sensitivity).all()
    assert specificity == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(("task", "classes"), TASKS)
def test_a_row_per_structure_and_member(task: Task, classes: tuple[str, ...], tmp_path: Path) -> None:
    _, part = slices(task, classes)[0]
    write_rates(tmp_path, part)
    with (tmp_path / "staple.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    structures = {"binary": ["lesion"], "exclusive": ["a", "b"], "regions": ["disc", "cup"]}[task]
    assert [(row["name"], row["structure"], row["member"]) for row in rows] == [
        ("scan", structure, f"{member:02d}") for structure in structures for member in range(4)
    ]
    channel = classes.index(structures[-1])
    assert part.sensitivity is not None
    assert part.specificity is not None
    assert float(rows[-1]["sensitivity"]) == pytest.approx(part.sensitivity[3, channel], abs=1e-6)
    assert float(rows[-1]["specificity"]) == pytest.approx(part.specificity[3, channel], abs=1e-6)


def test_other_fusions_leave_no_file(tmp_path: Path) -> None:
    members = torch.zeros(3, 1, 8, 8)
    write_rates(tmp_path, segmentation(members, Fused(members[:1]), "binary", ("lesion",)))
    assert {path.name for path in tmp_path.iterdir()} == {"segment.json", "cases"}
