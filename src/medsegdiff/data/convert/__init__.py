"""From any layout on disk to another: ``nnunet``, ``msd``, ``folder``, or ``slices`` of volumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from medsegdiff.config.data import DataConfig
from medsegdiff.data.convert.files import (
    CaseOutput,
    Survey,
    Target,
    check_names,
    check_out,
    safe,
    survey,
    unfinished,
    write_parts,
)
from medsegdiff.data.convert.folder import to_folder, to_slices
from medsegdiff.data.convert.nnunet import check_name, to_msd, to_nnunet
from medsegdiff.data.dataset import Track, no_progress
from medsegdiff.data.open import list_cases
from medsegdiff.data.scan import passed_over
from medsegdiff.data.split import Entry
from medsegdiff.errors import ConfigError, DataError, MedSegDiffError, nearest

TARGETS: dict[str, Callable[[Survey, Path], Target]] = {
    "nnunet": to_nnunet,
    "msd": to_msd,
    "folder": to_folder,
    "slices": to_slices,
}
"""Layouts that are written. Each looks at what was found and gives what writes one case, and what comes last."""


@dataclass
class Conversion:
    """What was converted."""

    out: Path
    done: list[str] = field(default_factory=list)
    """Cases of the source."""
    failed: dict[str, str] = field(default_factory=dict)
    """Case → why it is not there."""
    passed_over: list[str] = field(default_factory=list)
    """What of the files of the source is not used and why, in sentences."""
    notes: list[str] = field(default_factory=list)
    """What the new layout can't hold, or holds otherwise."""


def convert(
    source: Path,
    out: Path,
    *,
    to: str,
    config: DataConfig | None = None,
    only_foreground: bool = False,
    track: Track = no_progress,
) -> Conversion:
    """Write a data set in another layout. Broken cases are left out and listed."""
    if to not in TARGETS:
        raise ConfigError(f"--to is '{to}'; allowed are {', '.join(TARGETS)}.{nearest(to, TARGETS)}")
    check_out(out)
    if to == "nnunet":
        check_name(out, source)
    listing = list_cases(source, config or DataConfig())
    check_names(listing.cases)
    found = survey(listing, config or DataConfig(), only_foreground=only_foreground, track=track)
    notes = [*found.listing.understood, *_notes(found)]
    result = Conversion(out, failed=dict(found.broken), notes=notes, passed_over=passed_over(listing))
    with unfinished(out) as folder:
        target = TARGETS[to](found, folder)
        rows = []
        for case in track(found.cases, "Converting"):
            output = CaseOutput(folder)
            try:
                names = target.write(case, output)
            except MedSegDiffError as error:
                output.remove()
                result.failed[case.name] = str(error)
                continue
            rows += [Entry(name, case.part, case.group or target.group(case)) for name in names]
            result.done.append(case.name)
        if not result.done:
            first = next(iter(result.failed.items()), ("", ""))
            raise DataError(
                f"{source}: none of the {len(result.failed)} cases could be converted. {first[0]}: {first[1]}"
            )
        write_parts(folder / "split.csv", rows, always=target.describes_parts)
        target.finish([case for case in found.cases if case.name in set(result.done)])
    result.notes += target.notes
    return result


def _notes(found: Survey) -> Iterator[str]:
    """Say what whoever looks into the new folder would miss."""
    if not found.listing.masks.names:
        yield "No masks were found: images alone are written."
    if renamed := [case.name for case in found.cases if safe(case.name) != case.name]:
        yield f"{len(renamed)} names are written with _ for blanks and signs: '{renamed[0]}' as {safe(renamed[0])}."
