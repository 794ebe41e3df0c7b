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
        return _version()
    if name not in _PUBLIC:
        raise AttributeError(f"module 'medsegdiff' has no attribute '{name}'")
    try:
        return getattr(import_module(_PUBLIC[name]), name)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("medsegdiff"):
            raise
        raise ImportError(
            f"'{name}' is not among what medsegdiff-runtime holds, which segments without PyTorch: see "
            "medsegdiff.runtime. For the rest: pip uninstall medsegdiff-runtime; pip install medsegdiff"
        ) from error


def _version() -> str:
    """Tell the version of the distribution that is installed: the whole, or what segments without PyTorch."""
    metadata = import_module("importlib.metadata")
    try:
        found: str = metadata.version("medsegdiff")
    except metadata.PackageNotFoundError:
        found = metadata.version("medsegdiff-runtime")
    return found


def __dir__() -> list[str]:
    return __all__
