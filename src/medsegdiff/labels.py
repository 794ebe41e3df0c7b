"""The label space of a data set: what stored values, channels, probabilities and label maps have to do with each other.

Values of a file → channels of 0 and 1 (`Labels.read`) → logits → probabilities (`Labels.activate`) → label map
(`Labels.decide`) → one mask per structure (`Labels.masks`) → values of a file (`Labels.write`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Integer, UInt8

from medsegdiff.errors import DataError
from medsegdiff.types import Array, Task, Tensor, namespace, on_cpu


@dataclass(frozen=True)
class Labels:
    """The label space: which channels a mask has, how they relate, and how files code them.

    Label maps are ``(*s)`` with class indices for ``binary`` (0 and 1) and ``exclusive``, and ``(k, *s)`` with 0 and 1
    for ``regions``. Channels are ``(k, *s)``; k = 1 for ``binary``; channel 0 of ``exclusive`` classes is background.
    """

    task: Task = "binary"
    classes: tuple[str, ...] = ("foreground",)
    """Name of each channel."""
    values: tuple[tuple[int, ...], ...] = ()
    """Stored values that make each channel, which may share them. Where none are given, a pixel is foreground if it
    is above 0, and of the class whose index it holds if the classes exclude each other."""
    ignore: int | None = None
    """The stored value of pixels that nobody labelled: they are neither trained on nor scored."""
    order: tuple[int, ...] = ()
    """The value that each structure gets in a written label map, each over those before it; empty: what ``values``
    say, else 1, 2, 3 …"""

    @property
    def exclusive(self) -> bool:
        """Whether each pixel has exactly one of the classes."""
        return self.task == "exclusive"

    @property
    def foreground(self) -> slice:
        """The channels that are structures: all but the background of exclusive classes."""
        return slice(int(self.exclusive), None)

    @property
    def structures(self) -> tuple[str, ...]:
        """Names of the structures, one per mask of `masks`."""
        return self.classes[self.foreground]

    @property
    def label_values(self) -> tuple[int, ...]:
        """Value of each structure in a written label map; none for regions that have files of their own."""
        if self.order:
            return self.order
        if self.task == "regions":
            return ()
        return tuple(values[0] for values in self.values[self.foreground]) or self._counted

    def read(self, stored: UInt8[np.ndarray, "*s"], path: object) -> UInt8[np.ndarray, "k *s"]:
        """Turn the values of a file into 0 and 1 by channel.

        Args:
            stored: As the file holds them.
            path: The file, for errors.

        Returns:
            One channel where a file is a structure of its own.

        Raises:
            DataError: If a value has no meaning.
        """
        self._check(stored, path)
        return self.table[:, stored]

    def read_channel(self, stored: UInt8[np.ndarray, "*s"], path: object, index: int) -> UInt8[np.ndarray, "*s"]:
        """Turn the values of a file into 0 and 1 of one channel, where all would not fit into memory."""
        self._check(stored, path)
        return self.table[index][stored]

    def ignored(self, stored: UInt8[np.ndarray, "*s"]) -> Bool[np.ndarray, "*s"]:
        """Find the pixels that nobody labelled."""
        return np.zeros(stored.shape, bool) if self.ignore is None else stored == self.ignore

    @property
    def table(self) -> UInt8[np.ndarray, "k 256"]:
        """What each stored value is in each channel of a file, 0 or 1; one channel where a file is a structure."""
        table = np.zeros((len(self.classes) if self._split else 1, 256), dtype=np.uint8)
        if not self._split:
            table[0, 1:] = 1
        for channel, values in enumerate(self._values):
            table[channel, list(values)] = 1
        if self.ignore is not None:
            table[:, self.ignore] = table[:, 0]
        return table

    def activate(self, logits: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
        """Turn logits into probabilities: softmax over exclusive classes, else a sigmoid for each channel.

        Args:
            logits: By channel.

        Returns:
            Values in [0, 1].
        """
        return logits.softmax(dim=1) if self.exclusive else logits.sigmoid()

    def decide(self, probability: Float[Array, "k *s"]) -> UInt8[np.ndarray, " *shape"]:
        """Decide what each pixel is: the most probable class, or every channel that is at least as likely as not.

        Args:
            probability: By channel, 0 … 1.

        Returns:
            A label map.
        """
        return self.decide_each(probability[None])[0]

    def decide_each(self, members: Float[Array, "m k *s"]) -> UInt8[np.ndarray, "m *shape"]:
        """Decide what each pixel is, for each of several members.

        Args:
            members: Probabilities by member and channel, 0 … 1.

        Returns:
            Label maps.
        """
        if not self.exclusive:
            labels = (members >= 0.5) if self.task == "regions" else (members[:, 0] >= 0.5)
        elif str(getattr(members, "device", "cpu")) == "cpu":
            return first_largest(on_cpu(members))
        else:
            labels = argmax_channels(members, dim=1)
        return on_cpu(namespace(labels).asarray(labels, dtype=namespace(labels).uint8))

    def masks(self, labels: Integer[np.ndarray, " *shape"]) -> UInt8[np.ndarray, "n *s"]:
        """Take a label map apart into one mask per structure; the background is none.

        Args:
            labels: As `decide` gives it.

        Returns:
            0 and 1 by structure.
        """
        if self.task == "regions":
            return labels
        indices = np.arange(1, 1 + len(self.structures)).reshape(-1, *(1,) * labels.ndim)
        return (labels == indices).astype(np.uint8)

    def mask(self, labels: Integer[np.ndarray, " *shape"], index: int) -> UInt8[np.ndarray, " *s"]:
        """Take the mask of one structure out of a label map."""
        mask: np.ndarray = labels[index] if self.task == "regions" else (labels == index + 1).astype(np.uint8)
        return mask

    def write(self, labels: UInt8[np.ndarray, " *shape"]) -> UInt8[np.ndarray, " *s"] | None:
        """Turn a label map into the values that the data set's own label maps have.

        Args:
            labels: As `decide` gives it.

        Returns:
            One value per pixel; ``None`` for regions that have files of their own.
        """
        values = self.label_values
        if self.task != "regions":
            return labels if values == self._counted else np.array([0, *values], np.uint8)[labels]
        return _painted(labels, values) if values else None

    @property
    def _counted(self) -> tuple[int, ...]:
        return tuple(range(1, 1 + len(self.structures)))

    @property
    def _split(self) -> bool:
        """Whether one file holds several channels, or says which of its values count."""
        return bool(self.values) or self.exclusive

    @property
    def _values(self) -> tuple[tuple[int, ...], ...]:
        if self.exclusive and not self.values:
            return tuple((index,) for index in range(len(self.classes)))
        return self.values

    def _check(self, stored: np.ndarray, path: object) -> None:
        if not self._split:
            return
        known = {0, *(value for values in self._values for value in values), *({self.ignore} - {None})}
        strange = np.setdiff1d(np.unique(stored), list(known))
        if len(strange) and not self.values:
            raise DataError(
                f"{path}: mask value {strange[-1]} is out of range; allowed are 0 … {len(self.classes) - 1} "
                f"({', '.join(self.classes)}). Correct the mask, or name all classes with data.classes."
            )
        if len(strange):
            told = ", ".join(
                f"{name} {'/'.join(map(str, v))}" for name, v in zip(self.classes, self._values, strict=True)
            )
            raise DataError(
                f"{path}: mask value {strange[-1]} has no meaning; the data set tells of {told}. "
                "Correct the mask, or what tells of the labels."
            )


def argmax_channels(values: Float[Array, "..."], dim: int) -> Int[Array, "..."]:
    """Find the first largest value, as argmax does, but channel by channel: ten times as fast on a CPU.

    Args:
        values: Any.
        dim: The axis of channels.

    Returns:
        Index of the channel, int64, without that axis.
    """
    xp = namespace(values)
    best, *others = xp.moveaxis(values, dim, 0)
    label = xp.zeros_like(best, dtype=xp.int64)
    for index, other in enumerate(others, start=1):
        label = xp.where(other > best, index, label)
        best = xp.maximum(best, other)
    return label


def first_largest(
    values: Float[np.ndarray, "m k *s"], channels: Sequence[int] | None = None
) -> UInt8[np.ndarray, "m *s"]:
    """Do the same with channels of arrays, whose numbers of 8 bits take a third of the time.

    Args:
        values: Any.
        channels: Which of at most 256 channels they are, rising; ``None``: all.

    Returns:
        Number of the channel.
    """
    numbers = range(values.shape[1]) if channels is None else channels
    best = values[:, 0].copy()
    label = np.full(best.shape, numbers[0], np.uint8)
    for index, number in enumerate(numbers[1:], start=1):
        larger = np.greater(values[:, index], best).view(np.uint8)
        np.maximum(best, values[:, index], out=best)
        np.maximum(label, np.multiply(larger, np.uint8(number), out=larger), out=label)
    return label


def one_hot(labels: Int[Array, "*n h w"], num_classes: int) -> Float[Array, "*n k h w"]:
    """Write class indices as one channel per class.

    Args:
        labels: From 0 to ``num_classes`` − 1.
        num_classes: K.

    Returns:
        0 and 1.
    """
    xp = namespace(labels)
    return xp.asarray(xp.stack([labels == index for index in range(num_classes)], -3), dtype=xp.float32)


def _painted(regions: UInt8[np.ndarray, "k *s"], values: tuple[int, ...]) -> UInt8[np.ndarray, " *s"]:
    """Paint each region over those before it."""
    painted: np.ndarray[Any, np.dtype[np.uint8]] = np.zeros(regions.shape[1:], dtype=np.uint8)
    for region, value in zip(regions, values, strict=True):
        painted[region > 0] = value
    return painted
