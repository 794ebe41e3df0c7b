"""What a run costs: the columns of table 5 that are not scores."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from medsegdiff.checkpoint import CONFIG, load_config
from medsegdiff.config.earlier import with_keys_of_today
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.errors import DataError
from medsegdiff.models.budget import budget
from medsegdiff.paper.results import Score

MADE = "segment.json"
"""Written by ``medsegdiff segment``."""


def costs(folders: Sequence[Path]) -> dict[str, Score]:
    """Tell what a run and its segmentations cost, as far as the folders know it.

    Parameters and operations are those of the run's configuration; members and steps those of ``segment.json``, or
    without it the configuration's own. The run is one of the folders, or the one that ``segment.json`` names.
    """
    made = next((_made(folder) for folder in folders if (folder / MADE).is_file()), {})
    run = next((folder for folder in (*folders, *_named(made)) if (folder / CONFIG).is_file()), None)
    config = None if run is None else load_config(run)
    return _ensemble(made, config) | _network(made, config) | _measured(made)


def costs_of(config: ResolvedConfig) -> dict[str, Score]:
    """Tell what a configuration costs, with its own members and steps."""
    return _ensemble({}, config) | _network({}, config)


def _made(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / MADE).read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{folder / MADE}: expected what 'medsegdiff segment' writes; found {error}.") from None
    if not isinstance(told, dict):
        raise DataError(f"{folder / MADE}: expected what 'medsegdiff segment' writes; found {type(told).__name__}.")
    return told


def _named(made: dict[str, Any]) -> list[Path]:
    """Find the run that segmented, which is written as ``runs/isic, best weights``."""
    origin = str(made.get("model", ""))
    return [Path(origin.rpartition(", ")[0])] if ", " in origin else []


def _sampling(made: dict[str, Any], config: ResolvedConfig | None) -> dict[str, Any]:
    own = {} if config is None else config.sampling.model_dump(mode="json")
    return {**own, **with_keys_of_today({"sampling": made.get("sampling", {})})["sampling"]}


def _ensemble(made: dict[str, Any], config: ResolvedConfig | None) -> dict[str, Score]:
    """Count members, on average over the images, and calls of the denoiser: one per step of each."""
    sampling = _sampling(made, config)
    if not {"members", "steps"} <= set(sampling):
        return {}
    own = [image["members"] for image in made.get("images", []) if "members" in image]
    members, steps = sum(own) / len(own) if own else float(sampling["members"]), float(sampling["steps"])
    return {"members": Score(members), "calls": Score(members * steps)}


def _network(made: dict[str, Any], config: ResolvedConfig | None) -> dict[str, Score]:
    if config is None:
        return {}
    price, calls = budget(config), _ensemble(made, config)["calls"].mean
    return {
        "parameters": Score(float(price.parameters)),
        "gmac_forward": Score(price.condition_gmac + price.denoiser_gmac),
        "gmac_all": Score(price.condition_gmac + calls * price.denoiser_gmac),
    }


def _measured(made: dict[str, Any]) -> dict[str, Score]:
    """Average over the images: the time, and how much the members agree, if there are two at least."""
    images = made.get("images", [])
    alone = _sampling(made, None).get("members") == 1
    agreements = [] if alone else [image["agreement"] for image in images if image.get("agreement") is not None]
    found = {"agreement": Score(sum(agreements) / len(agreements))} if agreements else {}
    return found | ({"seconds": Score(made["seconds"] / len(images))} if images and "seconds" in made else {})
