"""What the shell offers when Tab is pressed; torch is not imported for it, and the configuration when it is asked."""

from __future__ import annotations

from typing import Any, Literal, get_args

SAMPLERS = ("ddim", "ddpm", "dpmpp-1", "dpmpp-2m", "dpmpp-sde-2m")
FUSIONS = ("dice", "majority", "mean", "staple")
LAYOUTS = ("folder", "manifest", "msd", "nnunet")
PARTS = (
    "anchor", "dicom-fractional", "dicom-pm", "dicom-seg", "dicom-sr", "geojson", "labels", "masks", "members",
    "overlay", "probability", "rtstruct", "uncertainty",
)  # fmt: skip
CONVERSIONS = ("folder", "msd", "nnunet", "slices")
"""The registries that know these import torch; a test compares."""


def presets(incomplete: str) -> list[str]:
    """Name presets."""
    from medsegdiff.config.load import preset_names

    return _beginning(incomplete, preset_names())


def devices(incomplete: str) -> list[str]:
    """Name devices."""
    return _beginning(incomplete, ["cpu", "cuda", "mps"])


def samplers(incomplete: str) -> list[str]:
    """Name samplers."""
    return _beginning(incomplete, SAMPLERS)


def fusions(incomplete: str) -> list[str]:
    """Name fusions."""
    return _beginning(incomplete, FUSIONS)


def spacings(incomplete: str) -> list[str]:
    """Name spacings of steps."""
    from medsegdiff.config.diffusion import SamplingConfig

    return _beginning(incomplete, get_args(SamplingConfig.model_fields["spacing"].annotation))


def conversions(incomplete: str) -> list[str]:
    """Name layouts that data are converted to."""
    return _beginning(incomplete, CONVERSIONS)


def parts(incomplete: str) -> list[str]:
    """Name what is written of a result, after those that are named already."""
    before, comma, last = incomplete.rpartition(",")
    return [f"{before}{comma}{part}" for part in _beginning(last, ("all", *PARTS))]


def settings(incomplete: str) -> list[str]:
    """Name keys of the configuration; after ``=``, the values of a key that has few."""
    from medsegdiff.config.load import known_keys

    key, equals, _ = incomplete.partition("=")
    if not equals:
        return _beginning(incomplete, [f"{known}=" for known in known_keys()])
    return _beginning(incomplete, [f"{key}={value}" for value in _values(key)])


def readings(incomplete: str) -> list[str]:
    """Name keys of the section ``data``."""
    return [offered for offered in settings(incomplete) if offered.startswith("data.")]


def _values(key: str) -> list[Any]:
    """List what a key may be, as far as that is a short list."""
    from medsegdiff.config.networks import NETWORKS
    from medsegdiff.config.run import Config

    named = {
        "model.name": [entry.name for entry in NETWORKS],
        "sampling.sampler": SAMPLERS,
        "sampling.fusion": FUSIONS,
        "data.layout": ("auto", *LAYOUTS),
    }
    if key in named:
        return list(named[key])
    section, _, name = key.partition(".")
    part = Config.model_fields[section].annotation if section in Config.model_fields else None
    field = getattr(part, "model_fields", {}).get(name)
    kind = None if field is None else field.annotation
    if kind is bool:
        return ["true", "false"]
    return list(get_args(kind)) if getattr(kind, "__origin__", None) is Literal else []


def _beginning(incomplete: str, offered: Any) -> list[str]:
    return [one for one in offered if one.startswith(incomplete)]
