"""The path of a volume: train on one BraTS case, segment another, score it in mm, and see how slices hang together.

python benchmarks/brats.py --data ../shared/data/brats2021
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from common import HERE, Trial, machine, parser, timed, write_page

from medsegdiff.cli import guard
from medsegdiff.cli.console import track
from medsegdiff.config.load import load_preset
from medsegdiff.evaluation import evaluate
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.metrics.overlap import dice

TRAINED, AGAIN, TESTED = "BraTS2021_00000", "BraTS2021_90000", "BraTS2021_01201"
REGIONS = ("WT", "TC", "ET")
SETTINGS = ("train.max_steps=400", "train.val_every=400", "train.val_cases=8", "train.save_every=400")
MEMBERS, STEPS = 5, 10


def main() -> None:
    """Run the stages that have not been run, then write the page."""
    given = parser(__doc__, data="../shared/data/brats2021", runs="runs").parse_args()
    trial = Trial("brats_cpu", link(given.data.resolve(), given.runs / "brats_data"), given.runs)
    trial.learn(load_preset("v2-tiny", SETTINGS))
    outs = {noise: given.runs / f"brats_cpu_{noise}" for noise in ("shared", "own")}
    times = given.runs / "brats_cpu_volumes.json"
    seconds = json.loads(times.read_text()) if times.exists() else {}
    for noise, out in outs.items():
        if not (out / "segment.json").exists():
            seconds[noise] = timed(partial(segment, trial.run, trial.data / TESTED, out, shared=noise == "shared"))
            times.write_text(json.dumps(seconds))
    write_page("brats_cpu", page(trial, outs, seconds))


def link(origin: Path, data: Path) -> Path:
    """Make a data set of links: one case to train on, the same under another name to validate on, one to test on."""
    for case, source in ((TRAINED, TRAINED), (AGAIN, TRAINED), (TESTED, TESTED)):
        (data / case).mkdir(parents=True, exist_ok=True)
        for file in (origin / source).iterdir():
            path = data / case / file.name.replace(source, case)
            if not path.exists():
                path.symlink_to(file)
    (data / "split.csv").write_text(f"id,split\n{TRAINED},train\n{AGAIN},val\n{TESTED},test\n", encoding="utf-8")
    return data


def segment(run: Path, case: Path, out: Path, *, shared: bool) -> None:
    """Segment the test case from its folder, labels and all; those are not looked at."""
    segmenter = Segmenter.from_pretrained(run)
    options = {"members": MEMBERS, "steps": STEPS, "shared_noise": shared}
    files = find_inputs([case], like=segmenter.config)
    finished = segment_files(segmenter, files, out, save_members=True, overwrite=True, track=track, **options)
    if finished.failed:
        raise SystemExit(str(finished.failed))


def page(trial: Trial, outs: dict[str, Path], seconds: dict[str, float]) -> list[str]:
    """Write the page, and the overlay."""
    data = trial.data
    fused = evaluate(outs["shared"], data, split="test", track=track)
    anchor = evaluate(outs["shared"] / "anchor", data, split="test", track=track)
    image = nib.load(data / TESTED / f"{TESTED}_t1.nii.gz")
    mask = nib.load(outs["shared"] / "masks" / "WT" / f"{TESTED}.nii.gz")
    labels = nib.load(outs["shared"] / "labels" / f"{TESTED}.nii.gz")
    same = bool(np.array_equal(image.affine, mask.affine)) and image.shape == mask.shape
    reference = np.asarray(nib.load(data / TESTED / f"{TESTED}_seg.nii.gz").dataobj) > 0
    (HERE / "brats_cpu.png").write_bytes((outs["shared"] / "overlay" / f"{TESTED}.png").read_bytes())
    return [
        "# BraTS 2021: the path of a volume",
        "",
        "Command: `python benchmarks/brats.py`. Trained on one case (validated on the same case, so its Dice says "
        "nothing), tested on another: this shows that four sequences go in and NIfTI comes out, not how good a model "
        "can be.",
        "",
        f"Machine: {machine()}. `v2-tiny`, {', '.join(SETTINGS[:1])}: {trial.seconds['train'] / 60:.1f} minutes with "
        f"reading; {MEMBERS} members × {STEPS} steps of 155 slices: {seconds['shared'] / 60:.1f} minutes with reading "
        "and writing.",
        "",
        f"Out came {mask.shape[0]}×{mask.shape[1]}×{mask.shape[2]} voxels, type {mask.get_data_dtype()}, affine and "
        f"size equal to the input's: {'yes' if same else 'NO'}. Label map with the values "
        f"{', '.join(str(int(v)) for v in np.unique(np.asarray(labels.dataobj)))}.",
        "",
        "| region | Dice fused | Dice anchor | HD95 fused (mm) | HD95 anchor (mm) |",
        "|---|---|---|---|---|",
        *(
            f"| {r} | {fused.mean('dice', r).mean:.3f} | {anchor.mean('dice', r).mean:.3f} | "
            f"{fused.mean('hd95', r).mean:.1f} | {anchor.mean('hd95', r).mean:.1f} |"
            for r in REGIONS
        ),
        "",
        "How well neighbouring slices of the whole tumour agree (mean Dice of neighbours of which one holds it): the "
        "reference, and members whose slices start from the same noise or from noise of their own:",
        "",
        "| | Dice of neighbouring slices | mean Dice of pairs of members |",
        "|---|---|---|",
        f"| reference | {between_slices(reference):.4f} | – |",
        *(f"| members, noise {noise} | {coherence(out):.4f} | {agreement(out):.4f} |" for noise, out in outs.items()),
        "",
        "![slices](brats_cpu.png)",
    ]


def coherence(out: Path) -> float:
    """Average the Dice of neighbouring slices over members."""
    members = sorted((out / "members").glob(f"*/masks/WT/{TESTED}.nii.gz"))
    return float(np.mean([between_slices(np.asarray(nib.load(member).dataobj) > 0) for member in members]))


def between_slices(mask: np.ndarray) -> float:
    """Compute the mean Dice of neighbouring slices of which one at least holds something."""
    pairs = [(mask[..., k], mask[..., k + 1]) for k in range(mask.shape[2] - 1)]
    return float(np.mean([dice(a, b) for a, b in pairs if a.any() or b.any()]))


def agreement(out: Path) -> float:
    """Read how much the members agree."""
    told = json.loads((out / "segment.json").read_text(encoding="utf-8"))
    return float(told["images"][0]["agreement"])


if __name__ == "__main__":
    guard(main)
