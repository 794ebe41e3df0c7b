"""Folders of results, compared but for what says when and where they were made."""

from __future__ import annotations

import json
from pathlib import Path

from medsegdiff import Segmenter
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.saving import Finished

CHANGING = {"seconds", "ended", "attempt", "modified"}
ASKED = {"members": 2, "steps": 1, "batch_size": 2, "parts": ("masks", "labels", "probability")}
"""One image in a batch: then the same bits come whichever images are segmented together."""


def segmented(segmenter: Segmenter, files: list[Path], out: Path, **options: object) -> tuple[Finished, str]:
    """Segment files; give what was said, too."""
    noted: list[str] = []
    finished = segment_files(segmenter, find_inputs(files), out, **({"noted": noted.append} | ASKED | options))
    return finished, " ".join(noted)


def contents(out: Path) -> dict[str, object]:
    """Read a folder."""
    files = [path for path in out.rglob("*") if path.is_file()]
    return {str(path.relative_to(out)): _content(path) for path in files}


def _content(path: Path) -> object:
    return _steady(json.loads(path.read_text())) if path.suffix == ".json" else path.read_bytes()


def _steady(told: object) -> object:
    if isinstance(told, dict):
        return {key: _steady(value) for key, value in told.items() if key not in CHANGING}
    return [_steady(value) for value in told] if isinstance(told, list) else told
