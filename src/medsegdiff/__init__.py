"""MedSegDiff-V2: diffusion-based medical image segmentation with a transformer, with uncertainty.

The names below are imported when they are first used, so that ``import medsegdiff`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from medsegdiff.config.load import load_preset as load_preset
    from medsegdiff.config.run import Config as Config
    from medsegdiff.evaluation import evaluate as evaluate
    from medsegdiff.inference.segmentation import Segmentation as Segmentation
    from medsegdiff.inference.segmenter import Segmenter as Segmenter
    from medsegdiff.training.train import train as train

_PUBLIC = {
    "Config": "medsegdiff.config",
    "Segmentation": "medsegdiff.inference.segmentation",
    "Segmenter": "medsegdiff.inference.segmenter",
    "evaluate": "medsegdiff.evaluation",
    "load_preset": "medsegdiff.config",
    "train": "medsegdiff.training.train",
}

__all__ = sorted(_PUBLIC)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("medsegdiff")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'medsegdiff' has no attribute '{name}'")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
