"""Reading all that training will see, before its first step: each process of a machine a share, which all see."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.cache import CaseFile
from medsegdiff.data.dataset import CaseFiles, DataInfo, DataSource, Track
from medsegdiff.data.loader import PreparedCases, UnlabelledStream
from medsegdiff.data.vanishing import lost_in_words
from medsegdiff.errors import ConfigError
from medsegdiff.inference.inputs import find_inputs, read_case
from medsegdiff.io.image import is_volume
from medsegdiff.types import Case

log = logging.getLogger(__name__)

MANY = 0.1
"""Share of the slices with a structure from which it is said that they lose it."""


def read_cases(
    source: DataSource, info: DataInfo, config: ResolvedConfig, *, stride: int, state: PartialState, track: Track
) -> PreparedCases:
    """Read and prepare all cases of training and validation."""
    neighbours = on_this_machine(state)
    cases = PreparedCases(source, config, stride=stride, sharing=len(neighbours))
    read_together(cases, info, neighbours, process=state.process_index, track=track)
    read_all(cases, info, config, track=track)
    return cases


def on_this_machine(state: PartialState) -> list[int]:
    """Find the processes of this machine, this one among them."""
    if state.num_processes == 1:
        return [0]
    hosts = gather_object([socket.gethostname()])
    return [number for number, host in enumerate(hosts) if host == hosts[state.process_index]]


def read_together(
    cases: PreparedCases, info: DataInfo, neighbours: Sequence[int], *, process: int, track: Track
) -> None:
    """Read and prepare this process's share of the cases, and see those of its neighbours on the machine."""
    if len(neighbours) == 1:
        return
    names, place = info.items("train") + info.items("val"), neighbours.index(process)
    for name in track(names[place :: len(neighbours)], "Reading images"):
        cases.kept(name)
    files: list[CaseFile] = gather_object([cases.own])
    cases.join(files[number] for number in neighbours if number != process)


def read_all(cases: PreparedCases, info: DataInfo, config: ResolvedConfig, *, track: Track) -> None:
    """Read every case that training will see."""
    names, structures = info.items("train") + info.items("val"), config.spec.labels.foreground
    shapes, lost, left = set(), list[str](), False
    for name in track(names, "Reading images"):
        case = cases[name]
        shapes.add(tuple(case.image.shape[1:]))
        lost += [name] if case.lost is not None and case.lost[structures].any() else []
        left = left or (case.mask is not None and bool(case.mask[:, structures].any()))
    check_stackable(shapes, config)
    held = [name for name in names if name in info.foreground] or names
    say_lost(lost, len(held), config, nothing_left=not left, slices=bool(info.slices))
    if cases.num_kept < len(names):
        log.warning(
            "%d of %d cases fit into data.cache_gb=%g; the others are read anew each time, which is slow. Raise it.",
            cases.num_kept,
            len(names),
            config.data.cache_gb,
        )


def check_stackable(shapes: Set[tuple[int, ...]], config: ResolvedConfig) -> None:
    """Make sure that images can be put into a batch."""
    if len(shapes) > 1 and config.train.batch_size > 1:
        raise ConfigError(
            f"data.resize={config.data.resize} leaves images of {len(shapes)} sizes, which can't be stacked. "
            "Set train.batch_size=1 (and train.accumulate), or data.resize=fit."
        )


@dataclass
class ImagesAlone:
    """Images of a folder; nobody looks at their masks, if there are any."""

    info: DataInfo
    files: Mapping[str, CaseFiles]

    def load(self, name: str) -> Case:
        """Read an image."""
        return read_case(self.files[name])


def read_unlabelled(config: ResolvedConfig, info: DataInfo, *, stride: int, track: Track) -> PreparedCases | None:
    """Read and prepare the images of ``train.unlabelled``, found and read as those that will be segmented."""
    folder = config.train.unlabelled
    if folder is None:
        return None
    found = find_inputs([Path(folder)], like=config) if Path(folder).is_dir() else []
    if not found or info.slices or any(is_volume(path) for case in found for path in case.images):
        what = "and there are volumes" if found else "where there is no folder"
        raise ConfigError(
            f"train.unlabelled is {folder}, {what}. Allowed is a folder of pictures, for a network of pictures. "
            "Name one, or set train.unlabelled=null."
        )
    files = {case.name: case for case in found}
    source = ImagesAlone(replace(info, split=dict.fromkeys(files, "train")), files)
    cases = PreparedCases(source, config, stride=stride)
    shapes = {tuple(cases[name].image.shape[1:]) for name in track(list(files), "Reading images without masks")}
    check_stackable(shapes, config)
    return cases


def unlabelled_stream(cases: PreparedCases | None, config: ResolvedConfig) -> UnlabelledStream | None:
    """Make the stream of images without masks, if there are any: they are augmented as those with masks are."""
    if cases is None:
        return None
    names, orientation = cases.source.info.items("train"), config.spec.orientation
    return UnlabelledStream(cases, names, seed=config.train.seed, augment=config.data.augment, orientation=orientation)


def say_lost(lost: list[str], held: int, config: ResolvedConfig, *, nothing_left: bool, slices: bool) -> None:
    """Say which of the images that hold structures lose some; of slices, those where a structure ends always do."""
    if lost and nothing_left:
        raise ConfigError(f"{lost_in_words(lost, held, config.data)} Here nothing is left to learn.")
    if lost and (not slices or len(lost) > MANY * held):
        log.warning("%s", lost_in_words(lost, held, config.data))
