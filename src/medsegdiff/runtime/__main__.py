"""``python -m medsegdiff.runtime``: segments files with an exported run, without PyTorch."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsegdiff.errors import ConfigError, MedSegDiffError, some
from medsegdiff.io.names import image_name
from medsegdiff.runtime import Exported, Result, load
from medsegdiff.runtime.files import write_files
from medsegdiff.runtime.native import FUSIONS

OK, FAILED, USAGE, SOME_FAILED = 0, 1, 2, 3
"""How the program ends, as `medsegdiff.cli` does."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Segment, and say where the masks are: a line of JSON for each image with ``--json``."""
    asked = _parser().parse_args(arguments)
    try:
        model = load(asked.model, threads=asked.threads)
        if asked.check:
            print(f"Graphs and PyTorch differ by {model.check():.1g} at most.")  # noqa: T201
            return OK
        if not asked.images:
            raise ConfigError("There is no image to segment. Give one at least, or --check.")
        if asked.out is None:
            raise ConfigError("There is no folder for the masks. Give one: --out masks")
        _check_names(asked.images)
        return _segment(model, asked)
    except (MedSegDiffError, OSError) as error:
        return _failed(error)


def _check_names(images: Sequence[Path]) -> None:
    """Refuse images whose results would be files of one name."""
    count = Counter(map(image_name, images))
    if twice := [str(path) for path in images if count[image_name(path)] > 1]:
        raise ConfigError(f"{some(twice)} have one name, and so would their results. Segment them into folders apart.")


def _segment(model: Exported, asked: argparse.Namespace) -> int:
    """Segment image by image; one that can't be segmented is passed over."""
    options: dict[str, Any] = {
        name: getattr(asked, name) for name in ("members", "candidates", "fusion", "mode", "seed")
    }
    failed = 0
    for path in asked.images:
        try:
            result = model.segment(path, **options)
            files = write_files(result, asked.out, members=asked.save_members, overwrite=asked.overwrite)
        except ConfigError:
            raise
        except (MedSegDiffError, OSError) as error:
            failed += bool(_failed(error))
            continue
        print(_told(result, files) if asked.json else files[0])  # noqa: T201
    return OK if not failed else SOME_FAILED if failed < len(asked.images) else FAILED


def _told(result: Result, files: Sequence[Path]) -> str:
    return json.dumps(
        {
            "name": result.name,
            "files": [str(path) for path in files],
            "members": len(result.members),
            "agreement": round(result.agreement(), 6),
            "mean_entropy": round(float(result.uncertainty.entropy.mean()), 6),
            "sizes": {name: vars(size) for name, size in result.sizes().items()},
        }
    )


def _failed(error: Exception) -> int:
    print(f"error: {error}", file=sys.stderr)  # noqa: T201
    return USAGE if isinstance(error, ConfigError) else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m medsegdiff.runtime", description=__doc__)
    parser.add_argument("model", type=Path, help="folder that 'medsegdiff export --to onnx' wrote")
    parser.add_argument("images", type=Path, nargs="*", help="PNG, JPEG, TIFF or NIfTI files")
    parser.add_argument("-o", "--out", type=Path, help="folder for masks, labels, probability and uncertainty")
    parser.add_argument("--members", type=int, help="size of the ensemble; default: the run's")
    parser.add_argument("--candidates", type=int, help="masks that are drawn and decide, more than members")
    parser.add_argument("--fusion", choices=FUSIONS, help="how members become a mask; default: the run's")
    parser.add_argument("--mode", choices=("ensemble", "mean"), help="mean: one step, no members; default: the run's")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same members")
    parser.add_argument("--save-members", action="store_true", help="write the mask of each member too")
    parser.add_argument("--threads", type=int, help="that a graph may use; default: all cores")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument("--check", action="store_true", help="compare the graphs with PyTorch's results, and stop")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each image")
    return parser


if __name__ == "__main__":
    sys.exit(main())
