"""Encoders that begin with weights which others have trained, from the user's own files; nothing is downloaded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from medsegdiff.errors import CheckpointError, size, some
from medsegdiff.models.foreign import read_weights
from medsegdiff.models.renaming import Keys, renamed

COUNTS = "num_batches_tracked"
"""At the end of a name: a number that nothing rests on, and older files lack."""


def as_they_are(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Take weights as a file has them."""
    return dict(given)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How a kind of file is laid out, and what it fills of a network."""

    what: str
    """Which weights these are, in words."""
    mark: str
    """Name that a file of this kind has and others do not, as a pattern."""
    fills: str
    """Names in the network that it fills, all of them, as a pattern."""
    keys: Keys
    """Its names → those in the network."""
    spare: tuple[str, ...] = ()
    """Names in the file that have no place here, such as a classifier's, as patterns."""
    fit: Callable[[Mapping[str, Tensor], Mapping[str, Tensor]], dict[str, Tensor]] = as_they_are
    """What else is to be done so that renamed weights fit the network's."""


@dataclass(frozen=True)
class Taken:
    """What was taken over from a file."""

    file: str
    sha256: str
    what: str
    weights: dict[str, Tensor]
    """By the names of the network."""
    made_anew: tuple[str, ...]
    """Weights of the encoder that the file can't give, for it was trained on images of other channels."""

    @property
    def facts(self) -> dict[str, object]:
        """What a run remembers: the file need not stay."""
        return {
            "file": self.file,
            "sha256": self.sha256,
            "what": self.what,
            "tensors": len(self.weights),
            "made_anew": self.made_anew,
        }

    def told(self, whole: int) -> str:
        """Say in a line what was taken over, of how many tensors."""
        anew = f"; begun anew, for other image channels: {some(self.made_anew)}" if self.made_anew else ""
        return f"{self.file}: {self.what}; {len(self.weights)} of {whole} tensors are taken over{anew}."


def take(files: Sequence[str], model: nn.Module, layouts: Sequence[Layout]) -> list[Taken]:
    """Read files of weights for a network, which may be on the meta device: its shapes count.

    Args:
        files: Each of another layout.
        model: The network.
        layouts: What it can begin with.

    Returns:
        What each file gives.

    Raises:
        CheckpointError: If a file is none of plain weights, or its weights are not those that the network has.
    """
    wanted = model.state_dict()
    found = [_taken(Path(file), wanted, layouts) for file in files]
    filled = [name for taken in found for name in taken.weights]
    if twice := sorted({name for name in filled if filled.count(name) > 1}):
        raise CheckpointError(f"{' and '.join(files)} give the same weights, {some(twice)}. Give one of them.")
    return found


def _taken(file: Path, wanted: Mapping[str, Tensor], layouts: Sequence[Layout]) -> Taken:
    state = read_weights(file)
    layout = next((each for each in layouts if any(re.search(each.mark, name) for name in state)), None)
    if layout is None:
        known = " or ".join(each.what for each in layouts)
        raise CheckpointError(
            f"{file}: holds no weights that this network can begin with, but {some(list(state), most=3)}. It takes "
            f"{known}."
        )
    place = {name: value for name, value in wanted.items() if re.search(layout.fills, name)}
    given, anew = _for_channels(layout.fit(renamed(state, layout.keys, unused=layout.spare), place), place)
    if problems := _problems(given, place, anew):
        raise CheckpointError(
            f"{file}: does not fit the network as {layout.what}: {some(problems, most=4)}. Give a file of these "
            "weights, or set the widths of the network to the file's."
        )
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    return Taken(file.name, digest, layout.what, {name: given[name] for name in place if name in given}, anew)


def _for_channels(given: dict[str, Tensor], wanted: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Fit kernels that look at colours to grey images, exactly as if these were given thrice; leave out other ones."""
    fitted, anew = dict(given), list[str]()
    for name, value in given.items():
        there = wanted.get(name)
        if there is None or value.ndim != 4 or value.shape[1] != 3 or there.shape[1] == 3:
            continue
        if there.shape[1] == 1 and there.shape[::2] == value.shape[::2]:
            fitted[name] = value.sum(dim=1, keepdim=True)
        elif there.shape[0] == value.shape[0] and there.shape[2:] == value.shape[2:]:
            del fitted[name]
            anew.append(name)
    return fitted, tuple(anew)


def _problems(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], anew: Sequence[str]) -> list[str]:
    """List missing, unexpected and misshapen weights."""
    missing = [name for name in wanted if name not in given and name not in anew and not name.endswith(COUNTS)]
    return [
        *(f"{name} is missing" for name in missing),
        *(f"{name} is unexpected" for name in given if name not in wanted),
        *(
            f"{name} is {size(value.shape)} instead of {size(wanted[name].shape)}"
            for name, value in given.items()
            if name in wanted and value.shape != wanted[name].shape
        ),
    ]


def resnet(what: str, part: str, *, spare: Sequence[str] = ()) -> Layout:
    """Describe a ResNet as torchvision saves it, which fills a part of a network that has the same names.

    Args:
        what: Which one.
        part: Where it is in the network.
        spare: Stages that the network does not have, as patterns.

    Returns:
        The layout.
    """
    return Layout(
        what=f"{what} as torchvision saves it",
        mark=r"^layer1\.0\.conv1\.weight$",
        fills=rf"^{re.escape(part)}\.",
        keys=((r"^", f"{part}."),),
        spare=(r"^fc\.", *spare),
    )


def mobilenet(part: str) -> Layout:
    """Describe MobileNetV2 as torchvision saves it, which fills a part that has a plain list of layers in each block.

    There a convolution, its norm and its ReLU6 are one entry of a block, but for the last convolution of a block.

    Args:
        part: Where it is in the network.

    Returns:
        The layout; the classifier and the convolution before it have no place.
    """
    first, others = r"^(features\.1\.conv)", r"^(features\.(?!1\.)\d+\.conv)"
    moved = [(first, {"2": "4", "1": "3", r"0\.1": "1", r"0\.0": "0"})]
    moved += [(others, {"3": "7", "2": "6", r"1\.1": "4", r"1\.0": "3", r"0\.1": "1", r"0\.0": "0"})]
    return Layout(
        what="MobileNetV2 as torchvision saves it",
        mark=r"^features\.1\.conv\.0\.0\.weight$",
        fills=rf"^{re.escape(part)}\.",
        keys=(
            *((rf"{block}\.{old}\.(?=[a-z])", rf"\1.{new}.") for block, places in moved for old, new in places.items()),
            (r"^", f"{part}."),
        ),
        spare=(r"^features\.18\.", r"^classifier\."),
    )
