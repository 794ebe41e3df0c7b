"""Graphs in files (ONNX) as functions of arrays; onnxruntime computes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from medsegdiff.errors import CheckpointError, ConfigError

QUIET = 3
"""Errors are logged, and no warnings: onnxruntime's levels."""


def onnx_library() -> Any:
    """Import onnxruntime."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            f"Graphs need the package 'onnxruntime', which can't be imported ({error}). "
            "Install it: pip install 'medsegdiff[onnx]', or pip install onnxruntime"
        ) from error
    return onnxruntime


class Graph:
    """A graph that is ready to compute: arrays by name in, arrays by name out."""

    def __init__(self, path: Path, *, threads: int | None = None, providers: tuple[str, ...] = ()) -> None:
        """Open a file.

        Args:
            path: An ONNX file.
            threads: That one computation may use; ``None``: as many as there are cores.
            providers: Of onnxruntime, the first that can; none: its processor.
        """
        library = onnx_library()
        options = library.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads or 0, QUIET
        if not path.is_file():
            raise CheckpointError(f"{path}: there is no such file. Export the run anew, with 'medsegdiff export'.")
        wanted = [*providers] or ["CPUExecutionProvider"]
        if missing := [name for name in wanted if name not in library.get_available_providers()]:
            raise ConfigError(
                f"onnxruntime has no provider '{missing[0]}' here; allowed are "
                f"{', '.join(library.get_available_providers())}."
            )
        try:
            self._session = library.InferenceSession(path, options, providers=wanted)
        except Exception as error:
            raise CheckpointError(f"{path}: is no graph that can be opened ({error}). Export the run anew.") from error
        self.inputs = {one.name: tuple(one.shape) for one in self._session.get_inputs()}
        """Shapes by name; an axis with a name instead of a number may have any length."""
        self.outputs = tuple(one.name for one in self._session.get_outputs())

    def __call__(
        self, given: dict[str, Shaped[np.ndarray, "..."]], *, wanted: tuple[str, ...] = ()
    ) -> dict[str, Shaped[np.ndarray, "..."]]:
        """Compute.

        Args:
            given: By name; what the graph does not ask for is left out.
            wanted: Outputs; none named: all.

        Returns:
            By name.
        """
        names = [*(wanted or self.outputs)]
        feeds = {name: np.ascontiguousarray(given[name]) for name in self.inputs}
        return dict(zip(names, self._session.run(names, feeds), strict=True))
