"""Does the ensemble earn its keep? Against its own anchor, the network alone, nnU-Net and other diffusion ensembles.

python benchmarks/earn.py --data heart_lv --systems v2,nnunet --seeds 3

The same images and the same processor time for all. Trials come in any order and are made once: each leaves a small
file in ``benchmarks/earn/``, and the page is written from those that there are. With ``--paced`` the steps that seed 0
found time for are those of the other seeds too, which may then run beside other work.
"""

from __future__ import annotations

import itertools
import shutil
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from time import process_time

from common import HERE, Trial, parser
from earn_measure import measure
from earn_page import write
from earn_plan import DATASETS, SYSTEMS, DataSet, config_of, phantom_source
from earn_results import Key, Outcome, read_all

from medsegdiff.cli import guard
from medsegdiff.data.phantom import Lesion
from medsegdiff.errors import ConfigError, nearest
from medsegdiff.pictures.cases import case_grid, saved_rows
from medsegdiff.pictures.curves import save

PARTS = ("masks", "probability", "uncertainty", "anchor")


def main() -> None:
    """Make the trials that are missing, then write the page."""
    given = parser(__doc__, runs="runs/earn")
    given.add_argument("--shared", type=Path, default=Path("../shared/data"), help="Folder of the data sets.")
    given.add_argument("--data", default=",".join(DATASETS), help=f"Some of {', '.join(DATASETS)}.")
    given.add_argument("--systems", default=",".join(SYSTEMS), help=f"Some of {', '.join(SYSTEMS)}.")
    given.add_argument("--seeds", type=int, help="Trials of each, with seeds 0, 1, … [default: by data set]")
    given.add_argument(
        "--minutes", type=float, help="Processor time of training steps, for each trial. [default: by data set]"
    )
    given.add_argument("--cases", type=int, help="Test cases at most. [default: by data set]")
    given.add_argument("--out", type=Path, default=HERE, help="Where page, plots and earn/*.json go.")
    given.add_argument("--paced", action="store_true", help="Later seeds make the steps that seed 0 found time for.")
    given.add_argument("--page", action="store_true", help="Write the page alone.")
    asked = given.parse_args()
    chosen, systems = named(asked.data, DATASETS), named(asked.systems, SYSTEMS)
    for name in () if asked.page else chosen:
        data = DATASETS[name]
        for seed, system in itertools.product(range(asked.seeds or data.seeds), systems):
            run(Key(name, system, asked.minutes or data.minutes, seed), data, asked)
    write(read_all(asked.out / "earn"), asked.out)


def named(text: str, known: dict[str, object]) -> list[str]:
    """Read names, and refuse those that are none."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in known:
            raise ConfigError(f"'{name}' is none; there are {', '.join(known)}.{nearest(name, known)}")
    return names


def run(key: Key, data: DataSet, asked: Namespace) -> None:
    """Train, segment and measure, unless that was done; what was interrupted in training begins anew."""
    if (asked.out / "earn" / f"{key}.json").exists():
        return
    print(key, flush=True)
    asked.runs.mkdir(parents=True, exist_ok=True)
    trial = Trial(str(key), data.folder(asked.shared, asked.runs), asked.runs)
    if "train" not in trial.seconds:
        shutil.rmtree(trial.run, ignore_errors=True)
    steps = steps_of(replace(key, seed=0), asked.out) if asked.paced and key.seed else None
    config = config_of(SYSTEMS[key.system], data, minutes=key.minutes, seed=key.seed, steps=steps)
    trial.learn(config, clock=process_time)
    trial.segment(most=asked.cases or data.cases, parts=PARTS, seed=key.seed)
    outcome = measure(trial, key, lesions_of(key.data))
    outcome.save(asked.out / "earn")
    if key.system == "v2" and key.seed == 0:
        dice = outcome.rows["v2"].columns["dice"]
        ranked = sorted(dice, key=lambda case: -dice[case])
        shown = {case: f"Dice {dice[case]:.3f}" for case in (ranked[0], ranked[len(ranked) // 2], ranked[-1])}
        rows = saved_rows(trial.out, trial.data, shown, config=trial.config.data)
        save(case_grid(rows, max_members=5), asked.out / f"earn_{key.data}_{key.minutes:g}min_cases.png")


def steps_of(key: Key, out: Path) -> int:
    """Read how many training steps a trial has made."""
    file = out / "earn" / f"{key}.json"
    if not file.exists():
        raise ConfigError(f"{file} is not there, whose steps are asked for. Make that trial first, without --paced.")
    return Outcome.read(file).steps


def lesions_of(data: str) -> dict[str, Lesion]:
    """Make the lesions of the phantom anew, by case; of other data there is no law."""
    if data != "phantom":
        return {}
    source = phantom_source()
    return {name: source.lesion(name) for name, part in source.info.split.items() if part == "test"}


if __name__ == "__main__":
    guard(main)
