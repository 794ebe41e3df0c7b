"""How results were made: the content of ``segment.json``, of today and of earlier versions."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import PydanticSerializationError

from medsegdiff.config.cleaning import Cleaning
from medsegdiff.config.diffusion import SamplingConfig
from medsegdiff.config.load import with_keys_of_today
from medsegdiff.errors import DataError
from medsegdiff.fusion.mixture import Mixture
from medsegdiff.inference.review import Quality, Review
from medsegdiff.inference.sizes import Size
from medsegdiff.io.atomic import to_json
from medsegdiff.labels import Labels
from medsegdiff.models.checkpoint import Origin
from medsegdiff.types import Task

FORMAT = 3
"""Of ``segment.json``. Format 1 had no number, and named the model in a sentence: ``runs/isic, best weights``; format 2
had no settings, and beside it lay no records of cases."""


class Told(BaseModel):
    """Written into a file, and read back; what a later version adds is passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


def json_of(told: BaseModel) -> str:
    """Write on a line what is told; what is not a finite number becomes ``null``."""
    try:
        return told.model_dump_json(exclude_none=True)
    except PydanticSerializationError:  # of names that are no UTF-8
        return to_json(told.model_dump(mode="json", exclude_none=True), indent=None)


class ImageRecord(Told):
    """What is told of an image."""

    name: str = ""
    foreground: Mapping[str, float] = {}
    """Share of the pixels, by structure."""
    members: int | None = None
    chosen_of: int | None = None
    """Candidates among which the members were chosen, so that they stand for all; ``None``: all drawn are members."""
    mean_entropy: float | None = None
    agreement: float | None = None
    """Mean Dice of pairs of members, as they were kept."""
    confidence: float | None = None
    """Soft Dice of the probability with its own mask."""
    anchor_confidence: float | None = None
    """The same of the Condition Model alone."""
    anchor_entropy: float | None = None
    """Its mean entropy."""
    sizes: Mapping[str, Size] = {}
    """Area or volume, by structure: of all candidates, where there are some."""
    incomplete: tuple[str, ...] = ()
    """Structures that reach the border of the image: part of them may lie beyond."""
    scores: Mapping[str, Mapping[str, float]] = {}
    """How good the mask of each structure seems without a reference: see `medsegdiff.inference.scores`."""
    quality: Mapping[str, Quality] = {}
    """What that means, by structure, where the run was calibrated by ``medsegdiff calibrate``."""


class RunRecord(Told):
    """A run that results come from, alone or beside others, and what it costs for each picture or slice."""

    folder: str = ""
    name: str = ""
    """As it was packed, or of its folder; empty from earlier versions."""
    weights: str = ""
    """Which of the run: ``best`` or ``last``."""
    sha256: tuple[str, ...] = ()
    """Of the file of the weights, and of those of its snapshots: as ``sha256sum`` computes it."""
    network: str
    members: int
    """That it adds to the ensemble, candidates included; at most, where images decide how many there are."""
    steps: int
    """Of the sampler."""
    looks: int
    """Forwards of what sees the image alone: of each set of weights through each mirror."""
    calls: int
    """Forwards of what sees the noise too: one for each step of each member; at most."""
    probability: Mixture
    """How its probability follows from anchor and members; that of several runs is the mean of theirs."""
    calibrated_on: int
    """Validation cases that it was fitted on; 0: it is not calibrated, or has slopes that were fitted for other
    ensembles."""


PARTS = ("weights", "calibration", "configuration")
"""Of the settings, that are told by hashes."""


class Settings(Told):
    """What results follow from, beside the image: equal settings make equal results, but for rounding."""

    weights: tuple[str, ...] = ()
    """SHA-256 of all files of weights, run by run."""
    calibration: str = ""
    """Hash of what validation cases have taught."""
    configuration: str = ""
    """Hash of how the runs read images and what their networks are."""
    options: Mapping[str, Any] = {}
    """What was asked, completed with the defaults of the runs, and which parts are written."""

    @classmethod
    def of(cls, weights: Sequence[str], learned: Any, configured: Any, options: Mapping[str, Any]) -> Settings:
        """Take settings as a file will tell them."""
        told = json.loads(to_json(dict(options), indent=None))
        calibration, configuration = (
            hashlib.sha256(to_json(values, indent=None).encode()).hexdigest()[:16] for values in (learned, configured)
        )
        return cls(weights=tuple(weights), calibration=calibration, configuration=configuration, options=told)

    @property
    def key(self) -> str:
        """Hash all of them."""
        return hashlib.sha256(to_json(self.model_dump(mode="json"), indent=None).encode()).hexdigest()

    def differences(self, other: Settings) -> list[str]:
        """Name what is not the same in others, with their values."""
        found = [name for name in PARTS if getattr(self, name) != getattr(other, name)]
        for name in {**self.options, **other.options}:
            before, now = self.options.get(name), other.options.get(name)
            if before != now:
                found.append(f"{name} {_shown(before)}, now {_shown(now)}")
        return found


def _shown(value: Any) -> str:
    """Write a value of an option for people, in few letters."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


class Record(Told):
    """How the results of a folder were made: the content of ``segment.json``."""

    format: int = FORMAT
    task: Task
    classes: tuple[str, ...]
    values: tuple[tuple[int, ...], ...] = ()
    """What label maps hold for each class, as in `Labels`; empty: its index."""
    model: Origin | None = None
    """Where the weights lay; ``None`` where several runs segmented together."""
    runs: tuple[RunRecord, ...] = ()
    """All that segmented together; empty from earlier versions."""
    layout: str = ""
    """Of the data that the model was trained on; empty where it is not told."""
    members: int | Literal["auto"] | None = None
    """As asked, of each image; ``sampling.candidates`` tells among how many they were chosen."""
    sampling: SamplingConfig | None = None
    seed: int = 0
    raters: int | None = None
    """Whose majority the masks are to match; ``None`` from earlier versions."""
    dependence: float = 0.0
    """How far these were taken to draw alike, 0 … 1: see `medsegdiff.fusion.protocol.Raters`."""
    probability: Mixture | None = None
    """How that in ``probability/`` follows from anchor and members; ``None`` from earlier versions: by fusion. Of
    several runs see ``runs``."""
    cleaning: Mapping[str, Cleaning] = {}
    """What was cleaned, by structure, of masks, anchor and members, and so of what is measured of them. Probability,
    uncertainty and the rates of STAPLE are those of what was drawn."""
    cleaning_learned: bool = False
    """Whether ``medsegdiff calibrate`` has found it to help, and nobody asked for it."""
    quality_learned_on: int = 0
    """Cases that predicted Dice, bounds and intervals of sizes rest on, by ``medsegdiff calibrate``; 0: none."""
    calibrated_on: int = 0
    """Validation cases that it was fitted on, and the intervals of sizes too, unless ``quality_learned_on`` tells of
    others, or these are of volumes that are too thick to segment some at the end of training, or that a model of
    pictures segments; 0: nothing is calibrated, or ``probability`` has slopes that were fitted for other ensembles.
    Of several runs the fewest, and no intervals; see each of ``runs``."""
    seconds: float | None = None
    """For all images; ``None`` if it did not come to an end."""
    images: tuple[ImageRecord, ...] = ()
    failed: Mapping[str, str] = {}
    """Path → why."""
    plugins: tuple[Mapping[str, str], ...] = ()
    """Those that the model rests on."""
    asked: int | None = None
    """Images, of all parts; ``None`` from earlier versions."""
    review: Review = Review()
    """Which masks a human shall see, beside those that calibration flags."""
    version: str = ""
    """Of this package."""
    settings: Settings | None = None
    """Those that the records of cases are of; ``None`` from earlier versions."""

    @property
    def labels(self) -> Labels:
        """What the masks hold."""
        return Labels(self.task, self.classes, values=self.values)

    @property
    def mixtures(self) -> tuple[Mixture, ...]:
        """How ``probability/`` came about, run by run; nothing where it is a fusion's, from earlier versions."""
        return (self.probability,) if self.probability is not None else tuple(run.probability for run in self.runs)

    @property
    def folders(self) -> tuple[Path, ...]:
        """Of the runs, where they are known."""
        told = [run.folder for run in self.runs] or ([] if self.model is None else [self.model.folder])
        return tuple(Path(folder) for folder in told if folder)

    @property
    def models(self) -> tuple[str, ...]:
        """What the runs are called, where it is known."""
        named = tuple(run.name or Path(run.folder).name for run in self.runs if run.folder)
        return named or tuple(folder.name for folder in self.folders)


def read_record(file: Path) -> Record:
    """Read a record."""
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(told, dict) and told.get("format", 1) > FORMAT:
            raise DataError(f"{file}: has format {told['format']}; this version reads up to {FORMAT}. Upgrade.")
        return Record.model_validate(_of_today(told) if isinstance(told, dict) else told)
    except (ValueError, TypeError, AttributeError) as error:
        if isinstance(error, DataError):
            raise
        found = _worded(error) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
        raise DataError(
            f"{file}: expected what 'medsegdiff segment' writes; found {found}. Remove the file to have the masks "
            "taken as they are."
        ) from error


def _of_today(told: dict[str, Any]) -> dict[str, Any]:
    """Translate what earlier versions wrote."""
    if "sampling" in told:
        told = {**told, "sampling": with_keys_of_today({"sampling": told["sampling"]})["sampling"]}
    if isinstance(told.get("model"), str):  # format 1
        folder, comma, weights = told["model"].rpartition(", ")
        told = {**told, "model": {"folder": folder, "weights": weights.split()[0]} if comma else None}
    return told


def _worded(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first["loc"] else str(first["msg"])
