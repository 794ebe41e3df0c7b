"""What ``medsegdiff calibrate`` has taught of a run's masks, or of those that several runs draw together."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BeforeValidator, Field, PlainSerializer, ValidationError

from medsegdiff.config.base import Component
from medsegdiff.config.cleaning import Cleaning
from medsegdiff.config.data import Modality
from medsegdiff.config.diffusion import SamplingConfig
from medsegdiff.errors import CheckpointError
from medsegdiff.inference.calibration import shaping
from medsegdiff.io.atomic import write_json
from medsegdiff.metrics.acceptance import Acceptance
from medsegdiff.metrics.intervals import Stretch
from medsegdiff.metrics.likeness import Likeness
from medsegdiff.metrics.predicted_dice import DiceMap
from medsegdiff.metrics.tails import Tail
from medsegdiff.models.packed import repacked
from medsegdiff.types import Plane

log = logging.getLogger(__name__)

FILE = "quality.json"
"""In the folder of a run; of several that segment together see `file_of`."""


PROMISING = 4
"""Version of the file from which on promises are kept."""
TURNED = 5
"""The same for what volumes look like: before, that depended on the order in which their axes are stored."""


def file_of(weights: Sequence[str]) -> str:
    """Name the file of a run, or of several that segment together in this order, by SHA-256 of the weights of each."""
    if len(weights) < 2:
        return FILE
    return f"quality-{hashlib.sha256(' '.join(weights).encode()).hexdigest()[:12]}.json"


def _packed(likeness: Mapping[str, Likeness]) -> dict[str, Any]:
    """Write arrays as text: base64 of float32, row by row."""
    return {kind: _text_of(of) for kind, of in likeness.items()}


def _text_of(likeness: Likeness) -> dict[str, Any]:
    arrays = {name: np.array(of, "<f4") for name, of in likeness._asdict().items() if name in ARRAYS}
    return likeness._asdict() | {
        name: {"shape": of.shape, "float32": base64.b64encode(of.tobytes()).decode()} for name, of in arrays.items()
    }


def _unpacked(stored: Any) -> Any:
    if not isinstance(stored, dict):
        return stored
    return {kind: _of_text(of) if isinstance(of, dict) else of for kind, of in stored.items()}


def _of_text(stored: dict[str, Any]) -> dict[str, Any]:
    arrays = {name: np.frombuffer(base64.b64decode(stored[name]["float32"]), "<f4") for name in ARRAYS}
    return stored | {name: of.reshape(stored[name]["shape"]).tolist() for name, of in arrays.items()}


ARRAYS = ("mean", "std", "axes")
"""Of `Likeness`; they are long."""


class Range(Component):
    """From the least to the most that calibration cases had."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


class StructureQuality(Component):
    """What the score of a structure says."""

    patients: int = 0
    """Of whom there are references of it."""
    score: str
    """Entry of `SCORES` that ranks best on the calibration cases, or, where something is promised, on those that chose
    it: see `medsegdiff.metrics.acceptance.choose`."""
    dice: DiceMap | None = None
    """Score → Dice; ``None`` where there were too few patients for numbers."""
    margin: float = 0.0
    """Of the lower bound: see `medsegdiff.metrics.predicted_dice.fit_margin`."""
    acceptance: Acceptance | None = None
    """Which cases may pass unseen; ``None`` where nothing can be promised."""
    usual: Range
    """Of the score: 5 % and 95 % of the calibration cases."""
    doubts: Tail
    """1 − score of the calibration cases."""
    size: Range
    """Pixels or voxels, as a share of the image."""
    border: bool = False
    """Whether it reached the border of its image in a calibration case."""
    aurc: Mapping[str, float] = {}
    """Of each score on the calibration cases, and of ``random`` and ``oracle``; lower is better."""


class QualityModel(Component):
    """Learned by ``medsegdiff calibrate``."""

    cases: int
    patients: int
    trained: int | None = 0
    """Cases that have names of cases or patients that training has seen; ``None`` where the runs do not tell."""
    good: float = Field(ge=0, le=1)
    """Dice from which a mask is good."""
    risk: float = Field(gt=0, lt=1)
    """Share of accepted patients with a bad mask that is promised."""
    confidence: float = Field(gt=0, lt=1)
    """With which bounds and promises hold."""
    structures: Mapping[str, StructureQuality]
    spacing: tuple[Range, ...] = ()
    """By axis, in mm; of volumes, of which axes run right, to the front and up."""
    shape: tuple[Range, ...] = ()
    """Pixels or voxels by axis, the same."""
    values: Range | None = None
    """From the least to the most grey, as `values_of` reads it."""
    modalities: tuple[Modality, ...] = ()
    """What the values of the runs' images are."""
    likeness: Annotated[Mapping[str, Likeness], PlainSerializer(_packed), BeforeValidator(_unpacked)] = {}
    """What images looked like, by kind (`medsegdiff.inference.judging.SEEN`): those of training, where they were at
    hand, else those cases."""
    volumes: bool = False
    """Whether those cases were volumes: pictures are judged by pictures, and volumes by volumes."""
    plane: Plane | Literal["auto"] = "auto"
    """Along which volumes are cut to be looked at."""
    sampling: SamplingConfig
    """How those cases were segmented."""
    cleaning: Mapping[str, Cleaning] = {}
    """What was cleaned of their masks, by structure, because it raised their Dice; it is done by default."""
    stretch: Mapping[str, Stretch] = {}
    """Of the intervals of sizes of these masks, by structure."""
    weights: tuple[str, ...] = ()
    """SHA-256 of the weights of each run that segmented them, in their order."""
    version: int = TURNED

    @classmethod
    def read(cls, file: Path) -> QualityModel | None:
        """Read what a run has; nothing where it was not calibrated."""
        if not file.is_file():
            return None
        try:
            known = cls.model_validate(json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
            raise CheckpointError(
                f"{file}: can't be read ({error}). Write it anew with 'medsegdiff calibrate', or remove it."
            ) from error
        known = known if known.version >= PROMISING else known._without_promises(file)
        return known if known.version >= TURNED or not known.volumes else known._without_looks(file)

    def _without_promises(self, file: Path) -> QualityModel:
        """Leave out what was promised by the same cases that had chosen the score."""
        if not any(of.acceptance for of in self.structures.values()):
            return self
        log.warning(
            "%s is of an earlier version, which promised more than holds: no mask passes unseen by it. Run 'medsegdiff "
            "calibrate' again.",
            file,
        )
        kept = {name: of.model_copy(update={"acceptance": None}) for name, of in self.structures.items()}
        return self.model_copy(update={"structures": kept})

    def _without_looks(self, file: Path) -> QualityModel:
        """Leave out what volumes looked like, which a volume whose axes are stored in another order does not."""
        log.warning(
            "%s is of an earlier version: whether spacing, size and grey values of a volume are usual is not said by "
            "it, as that depended on how the file is stored. Run 'medsegdiff calibrate' again.",
            file,
        )
        return self.model_copy(update={"spacing": (), "shape": (), "likeness": {}})

    def fits(self, sampling: SamplingConfig, cleaning: Mapping[str, Cleaning]) -> bool:
        """Tell whether masks are made as those of the calibration were: fusion counts too, as masks are judged."""
        same = self.sampling.fusion == sampling.fusion and self.cleaning == cleaning
        return same and shaping(self.sampling, volumes=True) == shaping(sampling, volumes=True)

    def save(self, folder: Path) -> Path:
        """Write it into a run."""
        file = folder / file_of(self.weights)
        write_json(file, self.model_dump(mode="json"))
        repacked(folder, file.name)
        return file
