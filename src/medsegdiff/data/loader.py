"""The endless, repeatable stream of training samples."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from medsegdiff.config import DataConfig, TrainConfig
from medsegdiff.data.augment import Augment
from medsegdiff.data.dataset import DataSource
from medsegdiff.data.transforms import Prepared, prepare
from medsegdiff.seeding import derive_seed
from medsegdiff.types import Batch


class PreparedCases:
    """Cases on the model grid by name, kept in memory up to a limit."""

    def __init__(self, source: DataSource, config: DataConfig, *, channels: int, stride: int) -> None:
        self.source, self.config, self.channels, self.stride = source, config, channels, stride
        self._kept: dict[str, Prepared] = {}
        self._room = config.cache_gb * 1e9

    def __getitem__(self, name: str) -> Prepared:
        if name in self._kept:
            return self._kept[name]
        case = prepare(self.source.load(name), self.config, channels=self.channels, stride=self.stride)
        size = case.image.nbytes + (0 if case.mask is None else case.mask.nbytes)
        if size <= self._room:
            self._kept[name] = case
            self._room -= size
        return case


class TrainingStream(Dataset[dict[str, Tensor]]):
    """Sample number n of training, for any n: which case, which rater and which augmentation follow from (seed, n).

    So training can stop and go on anywhere, with any number of processes and workers, and see the same samples.
    """

    def __init__(self, cases: PreparedCases, names: Sequence[str], *, seed: int, augment: bool) -> None:
        self.cases, self.names, self.seed = cases, list(names), seed
        self.augment = Augment() if augment else None

    def __getitem__(self, position: int) -> dict[str, Tensor]:
        epoch, place = divmod(position, len(self.names))
        case = self.cases[self.names[self._order(epoch)[place]]]
        if case.mask is None:
            raise TypeError(f"'{case.name}' has no mask; a training source must give one with every case.")
        image, masks = case.image, case.mask
        if self.augment is not None:
            image, masks = self.augment(image, masks, seed=derive_seed(self.seed, "augment", position))
        rater = derive_seed(self.seed, "rater", position) % len(masks)
        return {"image": image, "mask": masks[rater], "position": torch.tensor(position)}

    @functools.lru_cache(maxsize=2)  # noqa: B019  (a stream lives as long as its process)
    def _order(self, epoch: int) -> list[int]:
        return np.random.default_rng(derive_seed(self.seed, "order", epoch)).permutation(len(self.names)).tolist()


class Positions(Sampler[list[int]]):
    """Batches of consecutive positions of the stream, from any batch on."""

    def __init__(self, *, batch_size: int, start: int, stop: int) -> None:
        self.batch_size, self.start, self.stop = batch_size, start, stop

    def __iter__(self) -> Iterator[list[int]]:
        for batch in range(self.start, self.stop):
            yield list(range(batch * self.batch_size, (batch + 1) * self.batch_size))

    def __len__(self) -> int:
        return self.stop - self.start


def training_loader(
    stream: TrainingStream, config: TrainConfig, *, first_batch: int, last_batch: int
) -> DataLoader[dict[str, Tensor]]:
    """Load batches of the stream.

    Args:
        stream: The samples.
        config: Batch size and workers.
        first_batch: Number of the first batch; batches are counted over all processes.
        last_batch: Number after the last one.

    Returns:
        The loader; its batches become `Batch` with `as_batch`.
    """
    return DataLoader(
        stream,
        batch_sampler=Positions(batch_size=config.batch_size, start=first_batch, stop=last_batch),
        num_workers=config.num_workers,
        persistent_workers=config.num_workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


def as_batch(loaded: dict[str, Tensor]) -> Batch:
    """Name the parts of a loaded batch.

    Args:
        loaded: From the loader.

    Returns:
        The batch.
    """
    return Batch(image=loaded["image"], mask=loaded["mask"], position=loaded["position"])
