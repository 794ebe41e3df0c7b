"""The folder of a training run: what is where, and who wrote it."""

from __future__ import annotations

import csv
import dataclasses
import json
import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from medsegdiff.config.run import Precision
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.dataset import DataInfo
from medsegdiff.data.split import names_in, read_split, write_split
from medsegdiff.errors import CheckpointError, ConfigError, DataError, some
from medsegdiff.io.atomic import full_worded, to_json, write_json, write_text
from medsegdiff.io.hashes import sha256_of
from medsegdiff.io.names import composed
from medsegdiff.models.checkpoint import BEST, CONFIG, STATE, facts_of, load_config, save_config
from medsegdiff.training.origin import ORIGIN, RECORD, beginning_with, read_told, told_of

log = logging.getLogger(__name__)

SEEN = "seen.csv"


@dataclass(frozen=True)
class Run:
    """Paths of a run."""

    folder: Path

    @property
    def state(self) -> Path:
        """The checkpoint to resume from."""
        return self.folder / STATE

    @property
    def split(self) -> Path:
        """Which cases train, validate and test."""
        return self.folder / "split.csv"

    @property
    def seen(self) -> Path:
        """What the run that this one started with had been trained on; not there where it started with none."""
        return self.folder / SEEN

    @property
    def log(self) -> Path:
        """One JSON object per line: losses and validations."""
        return self.folder / "log.jsonl"

    @property
    def record(self) -> Path:
        """How the run was made: by which commands, on which data, beginning with what."""
        return self.folder / RECORD

    @property
    def imported(self) -> bool:
        """Whether its weights come from elsewhere, and no training has saved any since: those tell their step."""
        return not self.state.exists() and "imported" in self._origin() and not self._trained()

    def _trained(self) -> bool:
        with suppress(CheckpointError):
            return "step" in facts_of(self.folder / BEST)
        return False

    @property
    def curves(self) -> Path:
        """Plot of the log."""
        return self.folder / "curves.png"

    def pictures(self, step: int) -> Path:
        """Name the picture of a validation."""
        return self.folder / "validation" / f"step-{step:08d}.png"

    def check_new(self) -> None:
        """Refuse to write over another run, or over data. A run that never came to a checkpoint is none."""
        data = [name for name in ("images", "masks") if (self.folder / name).exists()]
        if self.split.exists() and not (self.folder / CONFIG).exists():
            data.append(self.split.name)
        if data:
            raise ConfigError(f"{self.folder} holds {some(data)}, perhaps your data. Choose another --out.")
        if self.state.exists() or (self.folder / BEST).exists():
            way_out = "Add --resume to go on with it, or choose" if self.resumable else "Choose"
            raise ConfigError(f"{self.folder} holds a run already. {way_out} another --out.")

    def check_writable(self) -> None:
        """Make sure, while nothing is lost yet, that files can be made in this folder, or in the one it will lie in."""
        try:
            with tempfile.TemporaryFile(dir=self._place()):
                pass
        except OSError as error:
            raise CheckpointError(
                f"{self.folder}: can't be written to ({os.strerror(error.errno or 0)}). Choose another --out."
            ) from error

    def check_room(self, num_bytes: int) -> None:
        """Make sure that checkpoints of so many bytes will fit, those that are there already among them."""
        there = sum(file.stat().st_size for file in self.folder.glob("*.safetensors"))
        free = shutil.disk_usage(self._place()).free
        if num_bytes - there > free:
            raise CheckpointError(
                f"{self.folder}: checkpoints take {(num_bytes - there) / 1e6:,.0f} MB, the one that is written beside "
                f"the one before it among them; {free / 1e6:,.0f} MB are free. Free some space, or choose an --out on "
                "another disk."
            )

    def _place(self) -> Path:
        return next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())

    @property
    def resumable(self) -> bool:
        """Whether there is something to go on with."""
        return self.state.exists() or self.imported

    def check_resumable(self) -> None:
        """Make sure that there is."""
        if not self.resumable:
            way_out = "Train without --resume."
            if (self.folder / BEST).exists():
                way_out = f"Begin another run with its weights: --start {self.folder} and another --out."
            raise CheckpointError(f"{self.folder}: there is no checkpoint to resume from. {way_out}")

    def check_same(self, config: ResolvedConfig) -> None:
        """Make sure that a configuration goes on with this run: what shapes the model must be equal."""
        before, now = (_fixed(c) for c in (load_config(self.folder), config))
        changed = [key for key in now if now[key] != before.get(key)]
        if changed:
            raise CheckpointError(
                f"{self.folder} was trained with other values of {some(changed)}. "
                "Resume with the same configuration, or start a new run in another --out."
            )

    def keep_split(self, info: DataInfo) -> DataInfo:
        """Go on with the split that the run began with, whatever has been added to the data since."""
        with self.split.open(newline="", encoding="utf-8") as file:
            split = {composed(row["id"]): row["split"] for row in csv.DictReader(file)}
        gone = sorted(set(split) - set(info.split))
        if needed := [name for name in gone if split[name] != "test"]:
            raise CheckpointError(f"{self.folder} was trained on cases that are gone: {some(needed)}. Bring them back.")
        if gone:
            log.warning("%d test cases are gone: %s. Training does not need them; scores will.", len(gone), some(gone))
        return dataclasses.replace(info, split=split)

    @property
    def trained(self) -> set[str]:
        """Names of the cases that training has seen, in this run and in those that it started with, that are known."""
        files = (self.split, self.seen)
        return set[str]().union(*(names_in(file, "train") for file in files if file.is_file()))

    @property
    def tells_trained(self) -> bool:
        """Whether ``trained`` has all that training has seen, that of what the run began with too."""
        try:
            told = told_of(self.folder)
        except DataError:
            return False
        began = told.get("started_from")
        return self.split.is_file() and "imported" not in told and (began is None or self._inherits(began))

    def _inherits(self, began: Mapping[str, Any]) -> bool:
        """Whether all is known that the model had seen that this run began with; earlier versions did not say."""
        if "trained_known" in began:
            return bool(began["trained_known"])
        parent = Run(Path(began.get("folder", "")))
        there = self.seen.is_file() and "folder" in began and (parent.folder / BEST).is_file()
        return there and sha256_of(parent.folder / BEST) == began.get("sha256") and parent.tells_trained

    def parts(self) -> dict[str, str]:
        """Read the parts that cases have had: what training has ever seen is for training."""
        entries = read_split(self.split) if self.split.is_file() else []
        return {entry.name: entry.part for entry in entries} | dict.fromkeys(self.trained, "train")

    def lines(self, *, up_to: int | None = None) -> list[dict[str, Any]]:
        """Read the log; a line that a crash has cut is left out."""
        if not self.log.is_file():
            return []
        try:
            whole = [text for text in self.log.read_text(encoding="utf-8").splitlines() if text.endswith("}")]
            lines = [json.loads(text) for text in whole]
            return [line for line in lines if up_to is None or line["step"] <= up_to]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{self.log}: can't be read ({error}). The file is damaged; remove it.") from error

    def start_log(self, *, up_to: int, validated: int) -> None:
        """Cut the log to the step and the validation that a checkpoint knows of, so that none is there twice."""
        known = [line for line in self.lines(up_to=up_to) if "dice" not in line or line["step"] <= validated]
        write_text(self.log, "".join(json.dumps(line) + "\n" for line in known))

    def append(self, record: dict[str, Any]) -> None:
        """Add a line to the log."""
        with full_worded(self.log), self.log.open("a", encoding="utf-8") as file:
            file.write(to_json(record, indent=None) + "\n")

    def describe(
        self,
        config: ResolvedConfig,
        info: DataInfo,
        data: str,
        *,
        step: int = 0,
        precision: Precision | None = None,
        parent: Run | None = None,
        pretrained: Sequence[Mapping[str, object]] | None = None,
    ) -> None:
        """Write down what is needed to repeat the run: configuration, split with its hash, versions, commands.

        Of a run that goes on, ``pretrained`` is ``None``: what it began with stays written down, its ``parent`` too.
        Each command is told with the ``step`` from which on it trained, and the ``precision`` that it computed in.
        """
        origin, commands = self._origin(), self._commands()
        if pretrained is not None:
            commands = []
            origin = {key: value for key, value in origin.items() if key not in ("pretrained", "started_from")}
            origin |= {"pretrained": list(pretrained)} if pretrained else {}
            origin |= self._started_from(parent)
        save_config(self.folder, config, data=data)
        split_hash = write_split(self.split, info.split)
        counts = {part: list(info.split.values()).count(part) for part in ("train", "val", "test")}
        now = datetime.now(UTC).isoformat(timespec="seconds")
        here = {
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
            "versions": {name: version(name) for name in ("medsegdiff", "torch", "monai", "accelerate", "numpy")},
        }
        made = {"command": sys.argv, "time": now, "first_step": step, "precision": precision, **here}
        told = {"commands": [*commands, made], "data": data, "cases": counts, "split_sha256": split_hash}
        write_json(self.record, {**told, **here, **origin})

    def _started_from(self, parent: Run | None) -> dict[str, Any]:
        """Name the run that this one starts with, and keep what that has been trained on: it may be gone one day."""
        self.seen.unlink(missing_ok=True)
        if parent is None:
            return {}
        if trained := parent.trained:
            write_split(self.seen, dict.fromkeys(trained, "train"))
        return {"started_from": {**beginning_with(parent.folder), "trained_known": parent.tells_trained}}

    def told(self) -> dict[str, Any]:
        """Read how the run was made. Of weights that were imported little is known; without the file, nothing."""
        return read_told(self.record)

    def _origin(self) -> dict[str, Any]:
        """Read where imported weights come from; nothing of weights that were trained from the start."""
        told = self._told()
        return {key: told[key] for key in ORIGIN if key in told}

    def _commands(self) -> list[dict[str, Any]]:
        """Read the commands that the run was made with; earlier versions told of the last one alone."""
        told = self._told()
        if isinstance(told.get("commands"), list):
            return list(told["commands"])
        last: dict[str, Any] = {key: told[key] for key in ("command", "python", "machine", "versions") if key in told}
        return [last] if "command" in told else []

    def _told(self) -> dict[str, Any]:
        try:
            return self.told()
        except DataError:
            return {}


def seen_among(groups: Mapping[str, str], trained: Set[str]) -> list[str]:
    """Name those of some cases that training has seen, or whose groups (patients, say) it has, as far as names tell."""
    names = trained & set(groups)
    patients = {groups[name] for name in names} - {""}
    return sorted(name for name, patient in groups.items() if name in names or patient in patients)


def _fixed(config: ResolvedConfig) -> dict[str, Any]:
    """List what must not change when a run is resumed."""
    free = {"max_steps", "max_minutes", "patience", "num_workers", "save_every", "val_every", "trackers", "precision"}
    free |= {"batch_size", "accumulate", "gradient_checkpointing", "sharding"}  # another machine may need other values
    told = {"channels", "task", "classes", "modalities", "window", "plane", "layout"}  # compared as ``spec``
    told |= {"cache_gb", "cache_dir"}
    kept = {"orientation", "raters"}  # those that the run began with, or an earlier version did not ask for
    values = config.model_dump(mode="json", exclude={"description", "reproduces", "sampling"})
    for folder in ("unlabelled", "teacher"):  # it may have been moved
        values["train"][folder] = values["train"][folder] is not None
    return {
        f"{'data' if section == 'spec' else section}.{key}": value
        for section, part in values.items()
        for key, value in part.items()
        if key not in {"train": free, "data": told, "spec": kept}.get(section, set())
    }
