"""What a run costs: the columns of table 5 that are not scores."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medsegdiff.checkpoint import CONFIG, load_config
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.evaluation.segmented import SEGMENT_FILE, Segmented, read_segmented
from medsegdiff.models.budget import budget
from medsegdiff.paper.results import Score


def costs(folders: Sequence[Path]) -> dict[str, Score]:
    """Tell what a run and its segmentations cost, as far as the folders know it.

    Parameters and operations are those of the run's configuration; members and steps those of ``segment.json``, or
    without it the configuration's own. The run is one of the folders, or the one that ``segment.json`` names.
    """
    made = next((read_segmented(folder) for folder in folders if (folder / SEGMENT_FILE).is_file()), None)
    named = [] if made is None or made.run is None else [made.run]
    run = next((folder for folder in (*folders, *named) if (folder / CONFIG).is_file()), None)
    config = None if run is None else load_config(run)
    return _ensemble(made, config) | _network(made, config) | ({} if made is None else _measured(made))


def costs_of(config: ResolvedConfig) -> dict[str, Score]:
    """Tell what a configuration costs, with its own members and steps."""
    return _ensemble(None, config) | _network(None, config)


def _ensemble(made: Segmented | None, config: ResolvedConfig | None) -> dict[str, Score]:
    """Count members, on average over the images, and calls of the denoiser: one per step of each."""
    members, steps = (made.members, made.steps) if made is not None else (None, None)
    if config is not None:
        members, steps = members or config.sampling.members, steps or config.sampling.steps
    if members is None or steps is None:
        return {}
    own = [image.members for image in made.images if image.members is not None] if made is not None else []
    mean = sum(own) / len(own) if own else float(members)
    return {"members": Score(mean), "calls": Score(mean * steps)}


def _network(made: Segmented | None, config: ResolvedConfig | None) -> dict[str, Score]:
    if config is None:
        return {}
    price, calls = budget(config), _ensemble(made, config)["calls"].mean
    return {
        "parameters": Score(float(price.parameters)),
        "gmac_forward": Score(price.condition_gmac + price.denoiser_gmac),
        "gmac_all": Score(price.condition_gmac + calls * price.denoiser_gmac),
    }


def _measured(made: Segmented) -> dict[str, Score]:
    """Average over the images: the time, and how much the members agree, if there are two at least."""
    found = {}
    agreements = [image.agreement for image in made.images if image.agreement is not None and made.members != 1]
    if agreements:
        found["agreement"] = Score(sum(agreements) / len(agreements))
    if made.images and made.seconds is not None:
        found["seconds"] = Score(made.seconds / len(made.images))
    return found
