"""Folders of results: what they hold, how they were made (``segment.json``: written and read here alone)."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from medsegdiff.config.diffusion import SamplingConfig
from medsegdiff.config.load import with_keys_of_today
from medsegdiff.errors import ConfigError, DataError, some
from medsegdiff.fusion.mixture import Mixture
from medsegdiff.inference import RECORD
from medsegdiff.inference.sizes import Size
from medsegdiff.io.atomic import write_json, write_text
from medsegdiff.labels import Labels
from medsegdiff.models.checkpoint import CONFIG, Origin
from medsegdiff.registry import require
from medsegdiff.types import Task

FORMAT = 2
"""Of ``segment.json``. Format 1 had no number, and named the model in a sentence: ``runs/isic, best weights``."""
RATES, SPLIT = "staple.csv", "split.csv"
PARTS = ("masks", "labels", "probability", "uncertainty", "anchor", "overlay", "members", "dicom-seg")
"""What may be written of a result: folders of the folder."""


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class ImageRecord(_Told):
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


class Record(_Told):
    """How the results of a folder were made: the content of ``segment.json``."""

    format: int = FORMAT
    task: Task
    classes: tuple[str, ...]
    model: Origin | None = None
    """Where the weights lay."""
    layout: str = ""
    """Of the data that the model was trained on; empty where it is not told."""
    members: int | Literal["auto"] | None = None
    """As asked, of each image; ``sampling.candidates`` tells among how many they were chosen."""
    sampling: SamplingConfig | None = None
    seed: int = 0
    probability: Mixture | None = None
    """How that in ``probability/`` follows from anchor and members; ``None`` from earlier versions: by fusion."""
    calibrated_on: int = 0
    """Validation cases that it was fitted on, and the intervals of sizes too, unless these are of volumes that are too
    thick to segment some at the end of training; 0: nothing is calibrated."""
    seconds: float | None = None
    """For all images; ``None`` if it did not come to an end."""
    images: tuple[ImageRecord, ...] = ()
    failed: Mapping[str, str] = {}
    """Path → why."""
    plugins: tuple[Mapping[str, str], ...] = ()
    """Those that the model rests on."""

    @property
    def labels(self) -> Labels:
        """What the masks hold."""
        return Labels(self.task, self.classes)


@dataclass(frozen=True)
class SegmentationFolder:
    """A folder that ``medsegdiff segment`` writes."""

    root: Path

    @classmethod
    def around(cls, part: Path) -> SegmentationFolder:
        """Find the folder of which this may be a part: ``anchor``, ``members/00``."""
        upwards = (part, *part.resolve().parents[:2])
        return next((folder for place in upwards if (folder := cls(place)).exists), cls(part))

    @property
    def exists(self) -> bool:
        """Whether there are results, or there will be soon."""
        return (self.root / RECORD).is_file()

    def read(self) -> Record | None:
        """Read how the results were made; nothing where ``segment`` did not make them."""
        file = self.root / RECORD
        if not self.exists:
            return None
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
            if isinstance(told, dict) and told.get("format", 1) > FORMAT:
                raise DataError(f"{file}: has format {told['format']}; this version reads up to {FORMAT}. Upgrade.")
            record = Record.model_validate(_of_today(told) if isinstance(told, dict) else told)
        except (ValueError, TypeError, AttributeError) as error:
            if isinstance(error, DataError):
                raise
            found = _worded(error) if isinstance(error, ValidationError) else f"{type(error).__name__}: {error}"
            raise DataError(
                f"{file}: expected what 'medsegdiff segment' writes; found {found}. Remove the file to have the masks "
                "taken as they are."
            ) from error
        require(record.plugins, where=self.root)
        return record

    def check_room(self, *, overwrite: bool) -> None:
        """Make sure that results overwrite nothing but results, and those only when told to."""
        guarded = ("images", *PARTS, RATES) if self._is_run else ("images", *PARTS, RATES, SPLIT)
        taken = [part for part in guarded if (self.root / part).exists()]
        if taken and not self.exists:
            raise ConfigError(
                f"{self.root} holds {some(taken)} that 'medsegdiff segment' did not write, perhaps your data. "
                "Choose another --out."
            )
        if taken and not overwrite:
            raise ConfigError(
                f"{self.root} holds results already. Add --overwrite to replace them, or choose another --out."
            )

    def begin(self, record: Record, split_file: Path | None) -> None:
        """Remove the results of an earlier time, and nothing else; mark the folder as ours."""
        if self.exists:
            for part in PARTS:
                shutil.rmtree(self.root / part, ignore_errors=True)
            for file in (RATES,) if self._is_run else (RATES, SPLIT):
                (self.root / file).unlink(missing_ok=True)
        self._tell(record)
        if split_file is not None and not self._is_run:
            shutil.copyfile(split_file, self.root / SPLIT)

    def finish(self, record: Record, rates: Sequence[Mapping[str, str]]) -> None:
        """Tell what became of the images; rates of members, if there are any, get a table."""
        if rates:
            text = io.StringIO()
            writer = csv.DictWriter(text, fieldnames=tuple(rates[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rates)
            write_text(self.root / RATES, text.getvalue())
        self._tell(record)

    def _tell(self, record: Record) -> None:
        write_json(self.root / RECORD, record.model_dump(mode="json", exclude_none=True))

    @property
    def _is_run(self) -> bool:
        """Whether a training run lives here, whose split is its own; results may lie beside it."""
        return (self.root / CONFIG).is_file()


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
