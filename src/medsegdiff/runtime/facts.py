"""What an exported run tells of itself: all that segmenting takes beside the graphs, as numbers and words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

from medsegdiff.errors import CheckpointError
from medsegdiff.labels import Labels
from medsegdiff.types import Modality, Plane, Values

CONFIG, SECTION = "config.json", "runtime"
"""The file, and the part of it that this module is about; the rest is that of the run."""
VERSION = 1
"""Of that part; a larger one in a file means that it is newer than this code."""
LOOK, STEP, MEAN = "look", "step", "mean"
"""Graphs: image → condition; noisy masks, time and condition → x_0; image → probability at once."""


@dataclass(frozen=True)
class Row:
    """One step of the sampler: x ← x·x_t + x_0·x̂_0 + previous·(x̂_0 of the step before) + noise·ε."""

    t: float
    """Time at which the network is asked."""
    alpha: float
    """Signal of x_t."""
    sigma: float
    """Noise of x_t."""
    x: float
    x_0: float
    previous: float = 0.0
    noise: float = 0.0
    shared: bool = False
    """Whether the noise tells nothing yet, so that all members of an image share the answer to that of member 0."""


@dataclass(frozen=True)
class Images:
    """How an image comes onto the grid of the network."""

    channels: int
    """Of images, as they are given."""
    neighbours: int
    """Slices above and below that a slice of a volume takes along."""
    image_size: int
    resize: Literal["fit", "stretch", "none"]
    """``fit``: the longer side, in mm where the spacing is known, becomes ``image_size``; ``stretch``: both sides."""
    stride: int
    """The grid is rounded up to multiples of it; the image lies in its middle."""
    grid: tuple[int, int]
    """Height and width of what the graphs take."""
    values: Values
    modalities: tuple[Modality, ...]
    window: tuple[float, float] | None
    """Hounsfield units that become −1 and 1."""
    volumes: bool
    """Whether the run was trained on volumes."""
    plane: Plane | Literal["auto"]
    """How volumes are cut."""

    @property
    def network_channels(self) -> int:
        """Channels that the network sees, those of neighbouring slices included."""
        return self.channels * (1 + 2 * self.neighbours)


@dataclass(frozen=True)
class Sampling:
    """How members are drawn and fused, unless it is asked otherwise."""

    mode: Literal["ensemble", "mean"]
    """``mean``: one step gives the probability, and no members are drawn."""
    members: int
    candidates: int | None
    """Masks that are drawn, if members are chosen among them."""
    fusion: str
    mirrors: tuple[tuple[int, ...], ...]
    """Axes that looks at the image turn around, −1 for left and right; members share them out."""
    antithetic: bool
    """Whether every other member has the opposite noise of the one before; they see the same, one after the other."""
    shared_noise: bool
    batch_size: int
    """Members in one call of the step."""


@dataclass(frozen=True)
class Probability:
    """How the probability follows from anchor and members: see `medsegdiff.fusion.mixture.Mixture`."""

    weight: float
    """Of the anchor."""
    slopes: tuple[float, ...]
    offsets: tuple[float, ...]
    at: float
    """Time of the step whose expectation of x_0 counts."""
    cases: int = 0
    """That it was fitted to; 0: none."""


@dataclass(frozen=True)
class Facts:
    """All of it."""

    network: str
    image: Images
    labels: Labels
    coding: Literal["signed", "unit"]
    """What 0 and 1 of a mask are to x_0: −1 and 1, or 0 and 1."""
    table: tuple[Row, ...]
    """Of the sampler."""
    once: tuple[Row, ...]
    """One step from pure noise, which gives the mean of all masks; none where the network predicts noise."""
    sampling: Sampling
    probability: Probability
    sizes: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    """By structure: what calibrates the interval of its size, below, above and least; as training fitted it."""
    judged: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    """The same as ``medsegdiff calibrate`` has found it, of masks that are fused as by default and not cleaned."""
    judged_volumes: bool = False
    """Whether that was of volumes."""
    raters: int = 1
    """Whose majority the mask of fusion dice shall match."""
    dependence: float = 0.0
    """How far raters draw alike."""
    sha256: Mapping[str, str] = field(default_factory=dict)
    """By graph, of its file."""
    version: int = VERSION

    def told(self) -> dict[str, Any]:
        """Give them as plain values."""
        return asdict(self)

    @classmethod
    def read(cls, folder: Path) -> Facts:
        """Read them.

        Args:
            folder: What ``medsegdiff export --to onnx`` wrote.

        Returns:
            The facts.
        """
        file = folder / CONFIG
        if not file.is_file():
            raise CheckpointError(
                f"{folder}: holds no {CONFIG}. Give a folder that 'medsegdiff export --to onnx' wrote."
            )
        try:
            told = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{file}: can't be read ({error}).") from error
        section = told.get(SECTION) if isinstance(told, dict) else None
        if not isinstance(section, dict):
            raise CheckpointError(
                f"{file}: tells nothing of graphs; it may be that of a run. First: "
                f"'medsegdiff export {folder} OUT --to onnx'."
            )
        if section.get("version", 0) > VERSION:
            raise CheckpointError(
                f"{file}: has version {section['version']}; this program reads up to {VERSION}. Upgrade medsegdiff."
            )
        try:
            facts: Facts = _made(cls, section)
        except (KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{file}: is not as 'medsegdiff export' writes it ({error!r}). Export the run anew."
            ) from error
        return facts


def _made(kind: Any, value: Any) -> Any:
    """Make of plain values what a type says: records of their fields, tuples of lists; numbers and words stay."""
    if isinstance(kind, UnionType):
        return None if value is None else _made(next(of for of in get_args(kind) if of is not type(None)), value)
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        given = {one.name: _made(hints[one.name], value[one.name]) for one in fields(kind) if one.name in value}
        return cast(Any, kind)(**given)
    if get_origin(kind) is Mapping:
        return {name: _made(get_args(kind)[1], of) for name, of in value.items()}
    if get_origin(kind) is tuple:
        inner, *others = get_args(kind)
        kinds = [inner] * len(value) if ... in others else [inner, *others]
        return tuple(_made(of, part) for of, part in zip(kinds, value, strict=True))
    return value
