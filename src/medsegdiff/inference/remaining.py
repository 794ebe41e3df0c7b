"""What is left to do of some images: those without a record that is valid for them, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medsegdiff.data.dataset import CaseFiles
from medsegdiff.errors import ConfigError, some
from medsegdiff.inference.attempt import is_whole
from medsegdiff.inference.case_record import CaseRecord, InputFile, read_case_record, record_file, record_files
from medsegdiff.inference.record import Settings

CHANGED, DAMAGED, MISSING = "the image has changed", "the record is damaged", "files are missing or changed"
SHOWN = 3
"""Reasons that are told, the commonest first."""


@dataclass
class Remaining:
    """Which images are to be segmented, and what there is of the others."""

    files: list[CaseFiles] = field(default_factory=list)
    """To be done."""
    done: int = 0
    """Have a result."""
    failed: int = 0
    """Have failed, and are not tried again."""
    others: int = 0
    """Results of other images, made in the same way."""
    replaced: dict[str, str] = field(default_factory=dict)
    """Name of an image whose record goes → why: its earlier result is not that which is asked for, or it has failed."""

    def __str__(self) -> str:
        """Say it in a line."""
        whole = self.done + self.failed + len(self.files)
        failed = f", {self.failed} have failed (--retry-failed does these again)" if self.failed else ""
        reasons = Counter(self.replaced.values()).most_common()
        told = "; ".join(f"{count}: {why}" for why, count in reasons[:SHOWN])
        more = f" and {len(reasons) - SHOWN} reasons more" if len(reasons) > SHOWN else ""
        anew = f"; {len(self.replaced)} of them again ({told}{more})" if self.replaced else ""
        return f"Of {whole} images {self.done} are done{failed}; {len(self.files)} are to do{anew}."


def remaining(
    root: Path,
    files: Sequence[CaseFiles],
    settings: Settings,
    *,
    retry_failed: bool = False,
    known: Collection[str] = (),
) -> Remaining:
    """Find out what is left to do in a folder of results.

    Args:
        root: The folder; `medsegdiff.inference.sweeping` has ended what killed processes have left in it.
        files: Those to be done here.
        settings: How.
        retry_failed: Whether those that failed are done again.
        known: Names of all images, if others do some of them.

    Returns:
        What is left, in the order of the files.

    Raises:
        ConfigError: If there are results of other images and other settings, or of these images by other names.
    """
    found = Remaining(others=_others(root, files, {*known, *(case.name for case in files)}, settings))
    for case in files:
        file = record_file(root, case.name)
        record = read_case_record(file)
        if record is None and not file.exists():
            found.files.append(case)
            continue
        why = DAMAGED if record is None else _invalid(record, case, settings, root)
        if not why and record is not None and record.error is not None and retry_failed:
            why = "it has failed"
        if why:
            found.files.append(case)
            found.replaced[case.name] = why
        elif record is not None and record.error is not None:
            found.failed += 1
        else:
            found.done += 1
    return found


def unrecorded(root: Path, files: Sequence[CaseFiles]) -> list[CaseFiles]:
    """List the files of which there is no record, of a result or of a failure."""
    known = set(record_files(root))
    return [case for case in files if record_file(root, case.name) not in known]


def _invalid(record: CaseRecord, case: CaseFiles, settings: Settings, root: Path) -> str:
    """Say why a record is not that of such a result; nothing if it is."""
    if differences := record.settings.differences(settings):
        return ", ".join(differences)
    paths = case.images
    if len(record.inputs) != len(paths) or not all(map(InputFile.is_still, record.inputs, paths)):
        return CHANGED
    return "" if is_whole(root, record) else MISSING


def _others(root: Path, files: Sequence[CaseFiles], names: set[str], settings: Settings) -> int:
    """Count results of other images; refuse those that were made otherwise: the two would lie mixed.

    Images get longer names where more folders are given, and names repeat in them: then one image would count twice.
    """
    expected, count, mixed, how = {record_file(root, name) for name in names}, 0, list[str](), ""
    called, renamed = {str(path): case.name for case in files for path in case.images}, list[str]()
    for file in record_files(root):
        if file in expected:
            continue
        count += 1
        record = read_case_record(file)
        if record is not None and record.settings != settings:
            mixed.append(record.name)
            how = how or ", ".join(record.settings.differences(settings))
        if record is not None and (now := next((called[of.path] for of in record.inputs if of.path in called), None)):
            renamed.append(f"{record.name} is {now} now")
    if renamed:
        raise ConfigError(
            f"{root} holds results of {len(renamed)} of these images by other names ({some(sorted(renamed))}): names "
            "follow from all folders that are given. Give the same folders as before, choose another --out, or add "
            "--overwrite instead of --resume."
        )
    if mixed:
        raise ConfigError(
            f"{root} holds results of {len(mixed)} other images ({some(sorted(mixed))}) that were made otherwise "
            f"({how}). Choose another --out, or add --overwrite instead of --resume to replace all."
        )
    return count
