"""From what a user names to a data set: which layout a folder has, and the source that reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medsegdiff.config.data import DataConfig
from medsegdiff.data.dataset import DATASETS, DataSource, Track, no_progress
from medsegdiff.data.listed import ListedSource, VolumeSource
from medsegdiff.data.listing import Layout, Listing
from medsegdiff.errors import ConfigError, DataError, nearest, some
from medsegdiff.registry import Entry


def open_source(where: str | Path, config: DataConfig, *, track: Track = no_progress) -> DataSource:
    """Open data on disk, whose layout is detected, or a data set that is made, by its name."""
    if Path(where).exists():
        listing = list_cases(Path(where), config)
        return (VolumeSource if listing.volumes else ListedSource)(listing, config, track=track)
    made = [entry.name for entry in DATASETS if kind_of(entry) == "generated"]
    if str(where) in made:
        source: DataSource = DATASETS.build(str(where), config)
        return source
    if str(where) in DATASETS:
        raise DataError(
            f"{where}: there is no such folder; '{where}' is the name of a layout. Give the folder that holds the data "
            f"set: its layout is detected, or set with data.layout={where}."
        )
    raise DataError(
        f"{where}: there is no such folder, and no built-in data set of that name. "
        f"Give a folder with images/ and masks/, or one of: {', '.join(made)}.{nearest(str(where), made)}"
    )


def list_cases(root: Path, config: DataConfig) -> Listing:
    """List the cases of a data set on disk."""
    name = detect(root) if config.layout == "auto" else config.layout
    entry = DATASETS[name or "folder"]
    if kind_of(entry) == "generated":
        raise ConfigError(f"data.layout is '{name}', which is not on disk; allowed are auto, {', '.join(layouts())}.")
    listing: Listing = entry.factory(root, config)
    if not listing.cases:
        raise DataError(f"{root}: the layout '{entry.name}' finds no case here.")
    return listing


def detect(root: Path) -> str | None:
    """Find out which layout a folder has: benchmarks are asked first, the plain folder last."""
    fitting = [name for name in layouts() if matches(name, root)]
    benchmarks = [name for name in fitting if kind_of(DATASETS[name]) == "benchmark"]
    if len(benchmarks) > 1:
        raise DataError(f"{root}: looks like each of {some(benchmarks)}. Say which with data.layout.")
    return next(iter(benchmarks or fitting), None)


def kind_of(entry: Entry[Any, dict[str, Any]]) -> str:
    """Tell what a registered data set is."""
    return str(entry.facts.get("kind", "generated"))


def matches(name: str, root: Path, *, asked: bool = False) -> bool:
    """Tell whether a folder has a layout; ``asked`` for by name, also one that is never detected by itself."""
    if asked:
        return name in layouts() and matches(str(DATASETS[name].facts.get("variant_of", name)), root)
    layout: Layout = DATASETS[name].factory  # type: ignore[assignment]
    return layout.detect(root)


def layouts() -> list[str]:
    """List the layouts: those of benchmarks, then those that tell most of themselves."""
    kinds = ("benchmark", "layout")
    return [entry.name for kind in kinds for entry in DATASETS if kind_of(entry) == kind]
