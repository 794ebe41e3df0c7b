"""The endless, repeatable stream of training samples."""

from __future__ import annotations

import functools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, Sampler

from medsegdiff.config.run import TrainConfig
from medsegdiff.config.spec import Orientation, ResolvedConfig
from medsegdiff.data.cache import CaseFile
from medsegdiff.data.dataset import DataSource
from medsegdiff.data.transforms import Prepared, prepare
from medsegdiff.errors import TrainingError
from medsegdiff.seeding import derive_seed
from medsegdiff.types import Batch

PATIENCE = 600
"""Seconds to wait for a batch from a process that loads."""


class PreparedCases:
    """Cases on the model grid by name, kept in a memory-mapped file up to a limit; in those of other processes too."""

    def __init__(self, source: DataSource, config: ResolvedConfig, *, stride: int, sharing: int = 1) -> None:
        """Keep cases; ``sharing`` processes share the room that there is."""
        self.source, self.config, self.stride = source, config, stride
        self.own = CaseFile(config.data.cache_gb * 1e9 / sharing, folder=config.data.cache_dir)
        self.files = [self.own]

    def __getitem__(self, name: str) -> Prepared:
        return whole(self.kept(name), self.config)

    def kept(self, name: str) -> Prepared:
        """Give a case as it is kept: see `compact`."""
        for file in self.files:
            if name in file:
                return file[name]
        case = compact(prepare(self.source.load(name), self.config, stride=self.stride), self.config)
        self.own.add(case, name)
        return case

    def join(self, files: Iterable[CaseFile]) -> None:
        """See what other processes of this machine keep too; files that are not here are those of other machines."""
        self.files += [file for file in files if file.path.exists()]

    @property
    def num_kept(self) -> int:
        """How many cases are kept."""
        return sum(len(file) for file in self.files)


MOST = 256
"""Classes that a label map of bytes can tell apart."""


def compact(case: Prepared, config: ResolvedConfig) -> Prepared:
    """Keep of masks that exclude each other the label map (r 1 gh gw) alone: of K classes a K-th of the bytes."""
    if case.mask is None or not config.spec.labels.exclusive or case.mask.shape[1] > MOST:
        return case
    return replace(case, mask=case.mask.argmax(dim=1, keepdim=True).to(torch.uint8))


def whole(case: Prepared, config: ResolvedConfig) -> Prepared:
    """Make the masks of a case that `compact` gave."""
    return case if case.mask is None else replace(case, mask=channels_of(case.mask, config))


def channels_of(mask: Num[Tensor, "r #k h w"], config: ResolvedConfig) -> Num[Tensor, "r k h w"]:
    """Make a mask for each channel of what `compact` kept of them, in the same type."""
    count = config.mask_channels
    if mask.shape[1] == count:
        return mask
    return F.one_hot(mask[:, 0].long(), count).movedim(-1, 1).to(mask.dtype)


class TrainingStream(Dataset[dict[str, Any]]):
    """Sample number n of training, for any n: which case, which rater and which augmentation follow from (seed, n).

    So training can stop and go on anywhere, with any number of processes and workers, and see the same samples.
    """

    def __init__(
        self,
        cases: PreparedCases,
        names: Sequence[str],
        *,
        seed: int,
        augment: bool,
        foreground: Sequence[str] = (),
        raters: int = 1,
        orientation: Orientation = Orientation(),  # noqa: B008 - it can't be changed
        unlabelled: Dataset[Tensor] | None = None,
    ) -> None:
        self.cases, self.names, self.seed, self.raters = cases, list(names), seed, raters
        self.unlabelled = unlabelled
        self.foreground = list(foreground)
        self.augment = augment_for(cases.config, orientation) if augment else None

    def __getitem__(self, position: int) -> dict[str, Any]:
        case = self.cases.kept(self._name(position))
        if case.mask is None:
            raise TypeError(f"'{case.name}' has no mask; a training source must give one with every case.")
        first, count = derive_seed(self.seed, "rater", position) % len(case.mask), len(case.mask)
        chosen = [(first + further) % count for further in range(min(self.raters, count))]
        image, mask = case.image, case.mask[chosen].float()
        if case.ignored is not None:  # moves with the mask, as one channel more
            mask = torch.cat([mask, 1.0 - case.ignored[chosen, None]], dim=1)
        if self.augment is not None:
            image, mask = self.augment(image, mask, seed=derive_seed(self.seed, "augment", position))
        sample = {"image": image, "position": position}
        if case.ignored is not None:
            mask, sample["labelled"] = mask[:, :-1], mask[:, -1:].amin(dim=0)
        mask = channels_of(mask, self.cases.config)  # nearest neighbours move labels as they move each mask
        if self.raters > 1:  # so that images with fewer raters stack: each in turn
            sample["others"] = mask[[further % len(mask) for further in range(1, self.raters)]]
        if self.unlabelled is not None:
            sample["unlabelled"] = self.unlabelled[position]
        return sample | {"mask": mask[0]}

    def _name(self, position: int) -> str:
        """Choose a case: from a shuffled list; of volumes, every other time a slice with a structure instead."""
        chosen = derive_seed(self.seed, "foreground", position)
        if self.foreground and chosen % 2:
            return self.foreground[chosen // 2 % len(self.foreground)]
        epoch, place = divmod(position, len(self.names))
        return self.names[shuffled(len(self.names), derive_seed(self.seed, "order", epoch))[place]]


def augment_for(config: ResolvedConfig, orientation: Orientation) -> Callable[..., tuple[Tensor, Tensor]]:
    """Make what changes samples at random; its library takes two seconds to import, and only then is needed."""
    from medsegdiff.data.augment import Augment

    return Augment(config.data.image_size, config.data.augmentation, orientation)


class UnlabelledStream(Dataset[Tensor]):
    """Image number n of those without masks, for any n, as `TrainingStream` gives those with masks."""

    def __init__(
        self, cases: PreparedCases, names: Sequence[str], *, seed: int, augment: bool, orientation: Orientation
    ) -> None:
        self.cases, self.names, self.seed = cases, list(names), derive_seed(seed, "unlabelled")
        self.augment = augment_for(cases.config, orientation) if augment else None

    def __getitem__(self, position: int) -> Tensor:
        epoch, place = divmod(position, len(self.names))
        order = shuffled(len(self.names), derive_seed(self.seed, "order", epoch))
        image = self.cases.kept(self.names[order[place]]).image
        if self.augment is None:
            return image
        nothing = torch.zeros_like(image[None, :1])  # a mask has to come along
        return self.augment(image, nothing, seed=derive_seed(self.seed, "augment", position))[0]


@functools.lru_cache(maxsize=4)
def shuffled(count: int, seed: int) -> list[int]:
    """Give the places of so many, in random order."""
    return np.random.default_rng(seed).permutation(count).tolist()


class Positions(Sampler[list[int]]):
    """Batches of consecutive positions of the stream, from any position on."""

    def __init__(self, *, start: int, batch_size: int, num_batches: int) -> None:
        self.start, self.batch_size, self.num_batches = start, batch_size, num_batches

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(self.num_batches):
            first = self.start + batch * self.batch_size
            yield list(range(first, first + self.batch_size))

    def __len__(self) -> int:
        return self.num_batches


def training_loader(
    stream: TrainingStream, config: TrainConfig, *, start: int, num_batches: int, pin_memory: bool = False
) -> DataLoader[dict[str, Any]]:
    """Load batches of the stream."""
    return DataLoader(
        stream,
        batch_sampler=Positions(start=start, batch_size=config.batch_size, num_batches=num_batches),
        num_workers=config.num_workers,
        persistent_workers=config.num_workers > 0,
        pin_memory=pin_memory,
        timeout=PATIENCE if config.num_workers else 0,
        collate_fn=collate,
    )


ENDED = ("exited unexpectedly", "killed by signal", "timed out after")
"""What PyTorch says of processes that load."""


@contextmanager
def loading_worded(num_workers: int) -> Iterator[None]:
    """Turn the end of a process that loads, or its silence, into an error that says what to do."""
    try:
        yield
    except RuntimeError as error:
        if "DataLoader" not in str(error) or not any(words in str(error) for words in ENDED):
            raise
        for process in multiprocessing.active_children():
            with suppress(RuntimeError):  # PyTorch raises one more where such a process is killed
                if process.daemon:  # one that hangs would not let this one end
                    process.kill()
                    process.join()
        raise TrainingError(
            f"A process that loads data has died, or has not answered for {PATIENCE} s ({str(error).splitlines()[0]}). "
            "Was it killed for its memory, or do the data lie on a disk that is gone? Lower train.num_workers "
            f"({num_workers}; 0 loads in this process), and go on with --resume."
        ) from error


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack samples; positions stay numbers, so that they need not come back from a GPU."""
    keys = [key for key in ("image", "mask", "labelled", "others", "unlabelled") if key in samples[0]]
    stacked: dict[str, Any] = {key: torch.stack([sample[key] for sample in samples]) for key in keys}
    return {**stacked, "positions": tuple(sample["position"] for sample in samples)}


def as_batch(loaded: dict[str, Any]) -> Batch:
    """Name the parts of a loaded batch."""
    more = {key: loaded.get(key) for key in ("labelled", "others", "unlabelled")}
    return Batch(loaded["image"], loaded["mask"], loaded["positions"], **more)
