"""Which data sets and systems `earn.py` lays side by side, and how each is made and trained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from uncertainty import cut_all

from medsegdiff.config.data import DataConfig
from medsegdiff.config.load import load_preset
from medsegdiff.config.run import Config
from medsegdiff.data.phantom import PhantomSource, write_phantom

V2 = "v2-fast-tiny"
"""What ``train`` takes by default on two cores."""
UNLIMITED = 1_000_000_000
"""Steps that no trial reaches."""
RECIPE = (f"train.max_steps={UNLIMITED}", f"train.val_every={UNLIMITED}")
"""Time is the only limit, and validation comes once, at the end, so that no network chooses among its weights."""
PHANTOM_SIZE, PHANTOM_SEED = 64, 2027
PHANTOM_TRAIN, PHANTOM_VAL, PHANTOM_TEST = 400, 40, 400
TILE = 128
"""Side of the tiles that pictures of vessels are cut into."""


def phantom_source(tests: int | None = None) -> PhantomSource:
    """Make lesions that no other benchmark has seen; their law is known."""
    counts = (PHANTOM_TRAIN, PHANTOM_VAL, PHANTOM_TEST if tests is None else tests)
    return PhantomSource(DataConfig(image_size=PHANTOM_SIZE, split_seed=PHANTOM_SEED), counts=counts)


@dataclass(frozen=True)
class DataSet:
    """A data set of the page."""

    name: str
    title: str
    reference: str
    """Who drew, and what it is taken for."""
    image_size: int
    minutes: float
    """Processor time of training steps, for each system."""
    seeds: int
    cases: int
    """Test cases, at most; evenly chosen."""
    settings: tuple[str, ...] = ()
    make: Callable[[Path, Path], None] | None = None
    """Makes the folder out of the real data; ``None``: it is there."""
    remark: str = ""
    displaced: tuple[str, ...] = ()
    """Patients whose reference masks lie beside what they outline."""

    def folder(self, data: Path, runs: Path) -> Path:
        """Find the images, and make them where they have to be made."""
        if self.make is None:
            return data / self.name
        made = runs / f"data_{self.name}"
        if not (made / "split.csv").exists():  # it is written last
            self.make(data, made)
        return made


DATASETS = {
    data.name: data
    for data in (
        DataSet(
            "phantom",
            "Phantom: lesions whose raters' law is known",
            "five raters; the reference is their majority",
            PHANTOM_SIZE,
            5,
            3,
            400,
            make=lambda data, made: write_phantom(phantom_source(), made),
            remark="Expected Dice is exact: over every mask that a rater may draw, or that the majority of five may "
            "be, each with its probability.",
        ),
        DataSet(
            "heart_lv",
            "Left ventricle, cine MRI (Sunnybrook)",
            "one rater",
            128,
            6,
            3,
            101,
            displaced=("SC-N-06",),
            remark="In the published data the contours of one of the six patients, SC-N-06, lie about 10 of 256 pixels "
            "beside his ventricle, as `medsegdiff data check` says: no right mask scores well there. The column "
            "*references in place* leaves him out; all others hold him.",
        ),
        DataSet(
            "drishti_gs_roi",
            "Optic disc and cup (Drishti-GS)",
            "four experts; the reference is what at least two drew",
            128,
            5,
            3,
            51,
            remark="The experts' own masks were not published: what at least 1, 2, 3 and 4 of them drew stands for "
            "them, so these four are nested, and GED² is that of nested regions.",
        ),
        DataSet(
            "chase_db1",
            "Vessels of the retina (CHASE_DB1)",
            "two raters; the reference is their union",
            TILE,
            6,
            3,
            128,
            settings=("data.resize=none",),
            make=lambda data, made: cut_all(data / "chase_db1", made, TILE),
            remark=f"Tiles of {TILE} px of the pictures at 512 px; tiles of a person are averaged before the mean. "
            "With two raters GED² of a perfect sampler is far above 0.",
        ),
        DataSet(
            "curvas_ct",
            "Pancreas, kidney and liver on slices of CT (CURVAS)",
            "one rater for each slice",
            128,
            6,
            3,
            23,
            remark="Slices of a patient are averaged before the mean: few patients, wide intervals.",
        ),
        DataSet(
            "isic2016",
            "Skin lesions (ISIC 2016)",
            "one rater",
            128,
            8,
            1,
            339,
            remark="Differences in Dice under .4 points can't be seen with these 339 images.",
        ),
    )
}


@dataclass(frozen=True)
class System:
    """What is trained, and what of the settings of V2 it shares."""

    name: str
    title: str
    preset: str
    settings: Callable[[Config, DataSet], list[str]]


def condition_alone(v2: Config, data: DataSet) -> list[str]:
    """Take over the Condition Model of V2: its widths, its augmentation, its mirrors and snapshots."""
    model = v2.model
    patch = model.patch if model.condition_patch is None else model.condition_patch
    return [
        f"model.condition_widths={list(model.condition_widths)}",
        f"model.num_blocks={model.num_blocks}",
        f"model.patch={patch}",
        f"model.deep_supervision={json.dumps(model.deep_supervision)}",
        f"data.augmentation={v2.data.augmentation}",
        f"sampling.views={v2.sampling.views}",
        f"train.snapshots={v2.train.snapshots}",
        f"train.batch_size={v2.train.batch_size}",
        f"train.learning_rate={v2.train.learning_rate}",
    ]


def sampled_alike(v2: Config, data: DataSet) -> list[str]:
    """Draw and fuse as V2 does."""
    same = ("sampler", "steps", "spacing", "members", "candidates", "fusion", "views", "batch_size")
    return [
        f"data.augmentation={v2.data.augmentation}",
        f"train.snapshots={v2.train.snapshots}",
        *(f"sampling.{key}={json.dumps(getattr(v2.sampling, key))}" for key in same),
    ]


def filters_of_size(v2: Config, data: DataSet) -> list[str]:
    """Keep the filters of the FF-Parser for the images that there are."""
    return [*sampled_alike(v2, data), f"model.filter_size={data.image_size}"]


SYSTEMS = {
    system.name: system
    for system in (
        System("v2", "MedSegDiff-V2", V2, lambda v2, data: []),
        System("alone", "the network alone", "anchor-tiny", condition_alone),
        System("nnunet", "nnU-Net", "nnunet-tiny", lambda v2, data: ["sampling.views=4"]),
        System("ensdiff", "EnsDiff", "ensdiff-tiny", sampled_alike),
        System("v1", "MedSegDiff", "v1-tiny", filters_of_size),
    )
}


def config_of(system: System, data: DataSet, *, minutes: float, seed: int, steps: int | None = None) -> Config:
    """Configure a training: the same images, the same minutes, or so many steps."""
    limit = (f"train.max_minutes={minutes:g}",) if steps is None else (f"train.max_steps={steps}",)
    shared = [f"data.image_size={data.image_size}", f"train.seed={seed}"]
    settings = [*system.settings(load_preset(V2), data), *shared, *data.settings, *RECIPE, *limit]
    return load_preset(system.preset, settings)
