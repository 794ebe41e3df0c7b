"""What the values of references and predictions mean, and which structures are scored: those that the data set has."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import Track
from medsegdiff.data.mask_folder import mask_folder
from medsegdiff.data.mask_values import MAX_CLASSES, TWO_VALUES, strange_values
from medsegdiff.data.masks import Masks
from medsegdiff.errors import DataError, some
from medsegdiff.evaluation.files import inner
from medsegdiff.inference.folder import SegmentationFolder
from medsegdiff.labels import Labels


@dataclass(frozen=True)
class Structures:
    """The label space, and which of its channels are scored.

    Two empty masks have a Dice of 1, so what no reference holds would lift every mean: it is scored only where
    somebody declares that the data set has it.
    """

    labels: Labels
    scored: tuple[int, ...]
    """Channels; the background is none of them."""

    @classmethod
    def declared(cls, labels: Labels) -> Structures:
        """Score all that there are."""
        return cls(labels, tuple(range(len(labels.classes))[labels.foreground]))

    @classmethod
    def occurring(cls, labels: Labels, values: Collection[int]) -> Structures:
        """Score what references hold with such values; if that is nothing, all: then every prediction is too much."""
        every = cls.declared(labels)
        held = tuple(index for index in every.scored if labels.table[index][list(values)].any())
        return cls(labels, held) if held else every

    @property
    def names(self) -> tuple[str, ...]:
        """Names of those that are scored."""
        return tuple(self.labels.classes[index] for index in self.scored)

    def doubts(self, held: Collection[str]) -> list[str]:
        """Say what is not scored, and what is though no reference that was scored holds it; others are ``held``."""
        unscored = [name for name in self.labels.structures if name not in self.names]
        absent = [name for name in self.names if name not in held]
        found = []
        if unscored:
            found.append(f"No reference holds {some(unscored)}: not scored, and where predicted counted as nothing.")
        if absent:
            found.append(f"No scored reference holds {some(absent)}: scores are perfect wherever nothing is predicted.")
        return found


def scored_structures(
    reference: Masks, predictions: Path, data: DataConfig, track: Track, *, indices: bool
) -> Structures:
    """Find out what is scored, from all references, not from those scored alone; ``indices``: predictions are masks."""
    task, classes = data.task, data.classes
    if reference.declared is not None:
        return Structures.declared(reference.labels((), task=task, classes=classes))
    values = reference.values(track(reference.names, "Reading references"))
    if reference.kind == "structures" or task in ("binary", "regions"):
        return Structures.declared(reference.labels(values, task=task, classes=classes))
    made = SegmentationFolder.around(predictions).read()
    if made is not None and made.labels.task != "regions" and task is None:
        return _of_the_model(made.labels, values, reference, classes)
    asked = indices and (made is None or task is not None) and values not in TWO_VALUES
    predicted = _predicted(predictions, classes) if asked else set()
    labels = reference.labels(values | predicted, task=task, classes=classes)
    return Structures.declared(labels) if classes else Structures.occurring(labels, values)


def _of_the_model(labels: Labels, values: set[int], reference: Masks, classes: tuple[str, ...] | None) -> Structures:
    """Take the label space of the model that made the predictions, if the references fit into it."""
    if max(values, default=0) >= MAX_CLASSES and values not in TWO_VALUES and labels.task == "binary":
        raise DataError(strange_values(sorted(values), reference.root))  # grey, whatever the model was trained on
    if labels.task == "binary" or classes is not None:
        return Structures.declared(reference.labels(values, task=labels.task, classes=classes or labels.classes))
    if strange := sorted(value for value in values if not labels.table[:, value].any()):
        told = [f"{name} {value}" for name, value in zip(labels.structures, labels.label_values, strict=True)]
        raise DataError(
            f"{reference.root}: mask value {strange[-1]} is out of range; the model that made the predictions knows "
            f"{some(told, most=20)}. Score against references that hold its classes alone."
        )
    return Structures.occurring(labels, values)


def _predicted(predictions: Path, classes: tuple[str, ...] | None) -> set[int]:
    """List the values of predicted class indices; what no reference holds may be among them."""
    found = mask_folder(inner(predictions, "labels", "masks"))
    values = found.values()
    if classes is not None and (beyond := sorted(values - set(range(len(classes))))):
        raise DataError(
            f"{found.root}: predicted value {beyond[-1]} is out of range; data.classes names {len(classes)}: "
            f"{some(classes, most=20)}."
        )
    return values
