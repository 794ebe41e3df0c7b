"""Writing graphs as ONNX."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from medsegdiff.errors import ConfigError
from medsegdiff.io.atomic import atomic_path

TALKATIVE = ("torch.onnx", "onnxscript", "onnx_ir")
"""Libraries that tell of what they leave out, such as operators of packages that are not installed."""


def check_library() -> None:
    """Refuse to begin without the packages that write ONNX."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            f"Writing ONNX needs the packages onnx and onnxscript ({error}). Install them: pip install "
            "'medsegdiff[onnx]'"
        ) from error


def write_onnx(
    program: ExportedProgram, path: Path, *, inputs: Sequence[str], outputs: Sequence[str], axis: str
) -> None:
    """Write a program; inputs that nothing is computed from are left out.

    Args:
        program: From ``torch.export``, with one axis of any length.
        path: The file.
        inputs: Names of its inputs, in order.
        outputs: Names of its outputs.
        axis: Name of that axis.
    """
    with _quiet(), torch.no_grad():
        made: Any = torch.onnx.export(
            program, dynamo=True, input_names=[*inputs], output_names=[*outputs], verbose=False
        )
        graph = made.model.graph
        unused = [value for value in graph.inputs if not value.uses()]
        for value in unused:
            graph.inputs.remove(value)
        _name_axis(graph, axis)
        _strip(made.model)
        with atomic_path(path) as part:
            made.save(str(part))


def _name_axis(graph: Any, name: str) -> None:
    """Call the axis of any length, which has a number of the tracer, by its name."""
    from onnx_ir import Shape, SymbolicDim

    values = [*graph.inputs, *(value for node in graph for value in node.outputs)]
    for value in values:
        if value.shape is not None and any(isinstance(side, SymbolicDim) for side in value.shape):
            value.shape = Shape(
                [SymbolicDim(name) if isinstance(side, SymbolicDim) and _plain(side) else side for side in value.shape]
            )


def _plain(side: Any) -> bool:
    """Tell whether a length is that of the axis itself, not computed from it."""
    return side.value is not None and str(side.value).isidentifier()


def _strip(model: Any) -> None:
    """Leave out where in whose files each operation was written, which is most of a small graph."""
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    ClearMetadataAndDocStringPass()(model)
    model.producer_name, model.producer_version = "medsegdiff", version("medsegdiff")


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
