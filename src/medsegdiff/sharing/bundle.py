"""A run as a MONAI bundle, by which `python -m monai.bundle run` segments a folder of images."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from medsegdiff.data.dataset import CaseFiles
from medsegdiff.errors import ConfigError, some
from medsegdiff.export.sample import Sample, mean_of
from medsegdiff.export.telling import facts_of, grid_of
from medsegdiff.hub.card import FILE as CARD
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.request import Request
from medsegdiff.inference.runs import Trained
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.io.atomic import content_replaced, names_in, write_json
from medsegdiff.models.checkpoint import Weights
from medsegdiff.models.exported import is_exported
from medsegdiff.models.packed import check_packed, name_of, write_packed
from medsegdiff.sharing.pack import LICENSE, write_model

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
"""Names the form of the metadata; nothing is fetched from it here."""
HERE = __name__
CONFIGS, MODELS, DOCS = "configs", "models", "docs"
METADATA = Path(CONFIGS, "metadata.json")


def write_bundle(
    run: Path,
    out: Path,
    *,
    size: tuple[int, int] | None = None,
    weights: Weights = "best",
    overwrite: bool = False,
    noted: Callable[[str], None] = lambda _: None,
) -> dict[str, int]:
    """Write a bundle: ``configs/``, ``models/`` with the run's own files, and its card and licence where it has them.

    Args:
        run: Folder of a run, or of a packed model.
        out: The folder to write.
        size: Of the grid that the network is described for, of a run that takes images as they are.
        weights: Which weights of the run.
        overwrite: Whether a bundle that was there before may go.
        noted: Told what is left out.

    Returns:
        Bytes of each file, by its path within the bundle.

    Raises:
        ConfigError: If the folder is not free, or the run is an exported one.
    """
    check_packed(run)
    if is_exported(run):
        raise ConfigError(f"{run} is an exported run. Give the folder that 'medsegdiff train --out' wrote.")
    _check_room(run, out, overwrite=overwrite)
    trained = Trained.load(run, weights=weights)
    grid = grid_of(trained.config, trained.model.stride, size)
    with content_replaced(out, lambda: [out / part for part in (CONFIGS, MODELS, DOCS, LICENSE)]) as new:
        for part in (CONFIGS, MODELS, DOCS):
            (new / part).mkdir()
        facts, files = write_model(run, new / MODELS, precision="fp32", weights=weights)
        write_packed(new / MODELS, {"name": name_of(run), **facts}, files)
        write_json(new / METADATA, _metadata(trained, grid))
        once = trained.config.diffusion.target != "eps"
        write_json(new / CONFIGS / "inference.json", _inference(once=once, grid=size))
        if not once:
            noted("The bundle names no network of its own: this one predicts noise, and tells no mask in one step.")
        for source, place in ((CARD, new / DOCS), (LICENSE, new)):
            if (run / source).is_file():
                for folder in (place, new / MODELS):  # what begins with these weights finds their licence beside them
                    shutil.copyfile(run / source, folder / source)
            else:
                noted(f"The run has no {source}; 'medsegdiff pack' writes one.")
    paths = (path for part in (CONFIGS, MODELS, DOCS, LICENSE) for path in (out / part, *(out / part).rglob("*")))
    return {str(path.relative_to(out)): path.stat().st_size for path in sorted(paths) if path.is_file()}


def network(folder: str, height: int = 0, width: int = 0) -> nn.Module:
    """Build what the bundle calls its network: an image on the model grid → calibrated probability, in one step."""
    run = Trained.load(folder)
    size = (height, width) if height else None
    facts = facts_of(run, Request.of(run.config).sampling, grid=grid_of(run.config, run.model.stride, size))
    return mean_of(run, facts, Sample.of(facts)).eval()


def images_in(folder: str) -> list[Path]:
    """Name what is segmented: all images in a folder."""
    return [Path(folder)]


@dataclass
class Segmenting:
    """What the bundle runs: images in, a folder of masks, probabilities and uncertainty out."""

    folder: str
    """Of the run."""
    dataset: Sequence[Path]
    output_dir: str
    device: str | None = None
    members: int | None = None
    """``None``: the run's own."""
    seed: int = 0
    overwrite: bool = False

    def files(self, segmenter: Segmenter) -> list[CaseFiles]:
        """Find the images."""
        return find_inputs(list(self.dataset), like=segmenter.config)

    def run(self) -> Path:
        """Segment."""
        segmenter = Segmenter.from_runs([self.folder], device=self.device or None)
        out, files = Path(self.output_dir), self.files(segmenter)
        asked: Any = {} if self.members is None else {"members": self.members}
        done = segment_files(segmenter, files, out, overwrite=self.overwrite, seed=self.seed, **asked)
        if done.failed:
            raise ConfigError(f"{len(done.failed)} images could not be segmented: {some(list(done.failed))}.")
        return out


def _inference(*, once: bool, grid: tuple[int, int] | None) -> dict[str, Any]:
    """Write the file that is run; what a user changes stands first."""
    folder = f"$@bundle_root + '/{MODELS}'"
    size = dict(zip(("height", "width"), grid or (), strict=False))
    named = {"network_def": {"_target_": f"{HERE}.network", "folder": folder, **size}} if once else {}
    return {
        "bundle_root": ".",
        "dataset_dir": "$@bundle_root + '/images'",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "",
        "members": None,
        "seed": 0,
        "overwrite": False,
        **named,
        "inferer": {"_target_": "monai.inferers.SimpleInferer"},
        "dataset": {"_target_": f"{HERE}.images_in", "folder": "@dataset_dir"},
        "evaluator": {
            "_target_": f"{HERE}.Segmenting",
            "folder": folder,
            "dataset": "@dataset",
            "output_dir": "@output_dir",
            "device": "@device",
            "members": "@members",
            "seed": "@seed",
            "overwrite": "@overwrite",
        },
        "initialize": [],
        "run": ["$@evaluator.run()"],
    }


def _metadata(run: Trained, grid: tuple[int, int]) -> dict[str, Any]:
    """Describe the bundle as MONAI does."""
    spec, config = run.config.spec, run.config
    channels = spec.channels * (2 * config.data.neighbours + 1)
    structures = list(spec.labels.structures)
    plane = {"spatial_shape": list(grid), "is_patch_data": False, "dtype": "float32"}
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": "Written by medsegdiff export."},
        "monai_version": version("monai"),
        "pytorch_version": version("torch").split("+")[0],
        "numpy_version": version("numpy"),
        "required_packages_version": {"medsegdiff": version("medsegdiff")},
        "name": f"Segmentation of {', '.join(structures)} with uncertainty",
        "task": "Segmentation by a diffusion ensemble",
        "description": "Draws several masks of an image, fuses them, and says where they differ.",
        "authors": "Who trained the run.",
        "copyright": "See LICENSE.",
        "intended_use": "Research; not a medical device.",
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": ", ".join(spec.modalities),
                    "num_channels": channels,
                    "value_range": [],
                    "channel_def": {str(number): name for number, name in enumerate(_channels(run, channels))},
                    **plane,
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": config.mask_channels,
                    "value_range": [0, 1],
                    "channel_def": {str(number): name for number, name in enumerate(spec.labels.classes)},
                    **plane,
                }
            },
        },
    }


def _channels(run: Trained, count: int) -> Iterator[str]:
    names = run.config.spec.modalities or ("image",)
    return (names[number % len(names)] for number in range(count))


def _check_room(run: Path, out: Path, *, overwrite: bool) -> None:
    """Refuse a folder with anything else than a bundle of ours, and that too unless it may go."""
    there = names_in(out)
    strange = [name for name in there if name not in (CONFIGS, MODELS, DOCS, LICENSE, "eval")]
    if out.is_file() or strange or (there and not _is_bundle(out)):
        raise ConfigError(f"{out} holds something that is no bundle of medsegdiff's. Choose another folder.")
    if there and not overwrite:
        raise ConfigError(f"{out} holds a bundle already. Add --overwrite to replace it, or choose another folder.")
    if there and run.resolve().is_relative_to(out.resolve()):
        raise ConfigError(f"{run} lies in {out}, which would be replaced. Choose another folder.")


def _is_bundle(folder: Path) -> bool:
    """Tell whether we have written it, by its metadata."""
    try:
        told = json.loads((folder / METADATA).read_text(encoding="utf-8"))
        return "medsegdiff" in told["required_packages_version"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
