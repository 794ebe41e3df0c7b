"""What to train with on these data and this machine: a preset, the size of images and batches."""

from __future__ import annotations

import logging
import shlex
import shutil
import tempfile
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import yaml

from medsegdiff.config.data import next_multiple
from medsegdiff.config.load import load_preset
from medsegdiff.config.run import Config
from medsegdiff.config.spec import DataSpec, ResolvedConfig, resolved
from medsegdiff.data.dataset import DataInfo, Track, no_progress
from medsegdiff.data.fingerprint import Fingerprint, Span, check_neighbours, fingerprint
from medsegdiff.data.modality import shown_modalities
from medsegdiff.data.open import open_source
from medsegdiff.errors import ConfigError, some
from medsegdiff.hardware import Computed, device_memory, pick_device, pick_precision
from medsegdiff.io.atomic import write_text
from medsegdiff.models.base import build_model
from medsegdiff.training.memory import step_memory
from medsegdiff.training.plan import default_preset

log = logging.getLogger(__name__)

RESERVE = 0.6e9
"""Bytes that the libraries, or the context of a GPU, take before anything is trained."""
MADE = "# Made by 'medsegdiff data plan'"
"""How a plan file begins."""
SIZES = (64, 512)
"""Bounds of the side of images, in pixels."""
LARGEST = {"v2-fast-tiny": 128, "v2-tiny": 128, "v2-small": 256, "v2-fast": 512, "v2": 512, "v2-paper": 256}
"""The largest image that a preset is advised for; the affinity of tokens grows with the fourth power of the side."""


@dataclass(frozen=True)
class DataPlan:
    """What is suggested, and what it rests on."""

    data: str
    understood: tuple[str, ...]
    """How files were understood, where names alone tell."""
    fingerprint: Fingerprint
    device: str
    memory: float
    """Bytes that training may take."""
    preset: str
    image_size: int
    batch_size: int
    accumulate: int
    """Micro-batches per step, so that a step sees as many images as the preset asks for."""
    cache_gb: float
    """For prepared cases; a slice that is not kept costs the reading of its volume."""
    needed: float
    """Bytes that a training step is estimated to take."""
    precision: Computed
    changes: dict[str, Any]
    """What the plan file changes in the preset, by section and key."""

    @property
    def fits(self) -> bool:
        """Whether the smallest batch fits into the memory."""
        return self.needed <= self.memory

    def to_dict(self) -> dict[str, Any]:
        """Give everything as plain values."""
        return asdict(self) | {"fits": self.fits}

    def rows(self) -> dict[str, str]:
        """Word what the data are like, and what is suggested."""
        files = {"files": "\n".join(self.understood)} if self.understood else {}
        return files | _described(self.fingerprint) | _suggested(self)


def make_plan(
    data: str,
    *,
    preset: str | None = None,
    memory: float | None = None,
    device: str | None = None,
    overrides: Sequence[str] = (),
    track: Track = no_progress,
) -> DataPlan:
    """Look at data and machine, and choose."""
    where = pick_device(device)
    room = device_memory(where) if memory is None else memory
    name = preset or default_preset(device)
    given = load_preset(name, overrides)
    source = open_source(data, given.data, track=track)
    for line in source.info.passed_over:
        log.warning("%s", line)
    check_neighbours(source.info, given.data)
    found = fingerprint(source, given.data, track=track)
    precision = pick_precision(given.train.precision, where)
    fixed = {override.partition("=")[0].strip() for override in overrides}
    largest = LARGEST.get(name, load_preset(name).data.image_size)
    config = _sized(given, source.info, found, fixed=fixed, largest=largest)
    step = step_memory(_understood(config, source.info, found), precision=precision, device=where.type)
    if not {"train.batch_size", "train.accumulate"} & fixed:
        batch, accumulate = suggest_batch(step.largest_batch(room - RESERVE), config.train.batch_size)
        config = _changed(config, "train", batch_size=batch, accumulate=accumulate)
    return DataPlan(
        data=data,
        understood=source.info.understood,
        fingerprint=found,
        device=str(where),
        memory=room,
        preset=name,
        image_size=config.data.image_size,
        batch_size=config.train.batch_size,
        accumulate=config.train.accumulate,
        cache_gb=config.data.cache_gb,
        needed=RESERVE + step.of(config.train.batch_size),
        precision=precision,
        changes=_differences(config, load_preset(name)),
    )


def _sized(config: Config, info: DataInfo, found: Fingerprint, *, fixed: Collection[str], largest: int) -> Config:
    """Choose what does not depend on the memory of the device; what the user fixed stays."""
    if found.kind == "volumes":
        window = config.data.window or found.window
        config = _changed(config, "data", modalities=found.modalities, window=window, plane=found.plane)
    with torch.device("meta"):
        stride = build_model(_understood(config, info, found)).stride
    if "data.image_size" not in fixed:
        config = _changed(config, "data", image_size=suggest_size(found, largest=largest, stride=stride))
    if "data.cache_gb" not in fixed:
        side = config.data.grid_side(stride)
        pixels = side**2 * (len(info.items("train")) + len(info.items("val")))
        understood = _understood(config, info, found)
        layers = 4 * understood.image_channels + len(info.raters) * understood.mask_channels
        free = shutil.disk_usage(config.data.cache_dir or tempfile.gettempdir()).free
        cache = suggest_cache(float(pixels * layers), usual=config.data.cache_gb, free=float(free))
        config = _changed(config, "data", cache_gb=cache)
    return config


def suggest_size(found: Fingerprint, *, largest: int, stride: int) -> int:
    """Choose the side of images: that of most slices or pictures, as far as the preset goes."""
    lowest, highest = next_multiple(SIZES[0], stride), min(SIZES[1], largest) // stride * stride
    wanted = next_multiple(int(max(found.size.median)), stride)
    return max(lowest, min(highest, wanted))


def suggest_batch(largest: int, wanted: int) -> tuple[int, int]:
    """Divide the images of a step among micro-batches that fit."""
    batch = max((size for size in range(1, wanted + 1) if wanted % size == 0 and size <= largest), default=1)
    return batch, wanted // batch


def suggest_cache(needed: float, *, usual: float, free: float) -> float:
    """Choose the room for prepared cases: more than usual only if they need it, at most half of what is free."""
    return usual if needed <= usual * 1e9 else max(usual, round(min(1.05 * needed, free / 2) / 1e9, 1))


def write_plan(plan: DataPlan, out: Path) -> None:
    """Write a preset that ``medsegdiff train --preset`` takes."""
    found, base = plan.fingerprint, plan.preset
    if out.exists() and not out.read_text(encoding="utf-8", errors="replace").startswith(MADE):
        raise ConfigError(f"{out} is there already and no plan of an earlier time. Choose another --out.")
    if base.endswith((".yaml", ".yml")):
        base = str(Path(base).resolve())
    comment = (
        f"{MADE} from {found.sampled} training {found.kind} of {plan.data}, "
        f"for {plan.memory / 1e9:.1f} GB ({plan.device}).\n"
        f"# Train with: medsegdiff train {shlex.quote(plan.data)} --preset {shlex.quote(str(out))} --out RUN\n"
    )
    write_text(out, comment + yaml.safe_dump({"base": base, **plan.changes}, sort_keys=False, allow_unicode=True))


def _understood(config: Config, info: DataInfo, found: Fingerprint) -> ResolvedConfig:
    """Add what the data tell. The plan file needs not say it: it is told again when training starts."""
    spec = DataSpec(labels=info.labels, channels=info.channels, modalities=found.modalities, window=found.window)
    return resolved(config, spec)


def _changed(config: Config, section: Literal["data", "train"], **values: Any) -> Config:
    return config.model_copy(update={section: getattr(config, section).model_copy(update=values)})


def _differences(config: Config, base: Config) -> dict[str, Any]:
    before, after = base.model_dump(mode="json"), config.model_dump(mode="json")
    sections = {section: values for section, values in after.items() if isinstance(values, dict)}
    changed = {
        section: {key: value for key, value in values.items() if value != before[section][key]}
        for section, values in sections.items()
    }
    return {section: values for section, values in changed.items() if values}


def _described(found: Fingerprint) -> dict[str, str]:
    """Word what the data are like."""
    labels = found.labels
    rows = {
        "modality": f"{shown_modalities(found.modalities, found.window)} ({found.told})",
        "cases": ", ".join(f"{count} {part}" for part, count in found.cases.items()) + f"; {found.sampled} looked at",
        "size, h × w": _spanned(found.size),
        "channels": str(found.channels),
        "classes": f"{labels.task}: {some(labels.classes, most=12)}; {found.foreground:.2%} is inside a structure",
    }
    if found.spacing and found.num_slices:
        rows |= {"spacing in mm": _spanned(found.spacing), "slices": f"{_spanned(found.num_slices)}, {found.plane}"}
    for channel, values in enumerate(found.intensity):
        inside = found.structure_intensity[channel] if found.structure_intensity else ()
        within = f"; in structures {_percentiles(inside)}" if inside else ""
        rows[f"values of channel {channel}"] = f"{_percentiles(values)}{within}"
    return rows


def _suggested(made: DataPlan) -> dict[str, str]:
    """Word what is suggested."""
    accumulated = f" × {made.accumulate} (train.accumulate)" if made.accumulate > 1 else ""
    return {
        "preset": made.preset,
        "image size": f"{made.image_size} px",
        "batch": f"{made.batch_size}{accumulated}: about {made.needed / 1e9:.1f} of {made.memory / 1e9:.1f} GB "
        f"({made.device}, {made.precision})",
        "cache": f"{made.cache_gb:g} GB",
    }


def _spanned(span: Span) -> str:
    """Word a range: the median, and from where to where if it is not always the same."""
    parts = (
        f"{median:g}" if low == high else f"{median:g} ({low:g} … {high:g})"
        for median, low, high in zip(span.median, span.low, span.high, strict=True)
    )
    return " × ".join(parts)


def _percentiles(values: tuple[float, ...]) -> str:
    return " / ".join(f"{value:.4g}" for value in values)
