"""Segmenting with an exported run: onnxruntime and NumPy do all of it, PyTorch is neither needed nor loaded.

>>> from medsegdiff import runtime
>>> runtime.load("exported").segment("lesion.png").mask  # doctest: +SKIP

``python -m medsegdiff.runtime exported lesion.png --out masks`` does the same on the command line.
"""

from __future__ import annotations

from pathlib import Path

from medsegdiff.runtime.result import Result as Result
from medsegdiff.runtime.segmenting import Exported as Exported


def load(folder: str | Path, *, threads: int | None = None, providers: tuple[str, ...] = ()) -> Exported:
    """Open an exported run.

    Args:
        folder: What ``medsegdiff export RUN --to onnx`` wrote.
        threads: That a graph may use; ``None``: as many as there are cores.
        providers: Of onnxruntime, in order; none: its processor. Others may round differently.

    Returns:
        The run, ready to segment.

    Raises:
        CheckpointError: If it is no exported run, or not whole.
        ConfigError: If onnxruntime is missing, or a provider is.

    Example:
        >>> result = load("exported").segment("lesion.png", members=10, seed=0)  # doctest: +SKIP
        >>> result.mask.shape, result.sizes()  # doctest: +SKIP
    """
    return Exported(Path(folder), threads=threads, providers=providers)
