"""The authors' command lines (`scripts/segmentation_*.py`): their flags, read as settings of this package.

A flag that means nothing here is accepted and says so.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from medsegdiff.cli.command import Exit
from medsegdiff.cli.console import info, people, result, track, warn
from medsegdiff.cli.evaluate import show
from medsegdiff.config.diffusion import SamplingOptions
from medsegdiff.config.load import load_preset
from medsegdiff.config.networks.v2 import V2Config
from medsegdiff.config.run import Config
from medsegdiff.errors import CheckpointError, DataError

BASE_WIDTH = 128
"""Their --num_channels for which the widths of `v2-paper` are taken as they are."""


def truth(text: str) -> bool:
    """Read True and False as their scripts do."""
    if text.lower() in ("true", "1", "yes", "y", "t"):
        return True
    if text.lower() in ("false", "0", "no", "n", "f"):
        return False
    raise argparse.ArgumentTypeError(f"'{text}' is neither True nor False")


def _widths(num_channels: int) -> list[str]:
    base = V2Config().condition_widths
    widths = [max(16, round(width * num_channels / BASE_WIDTH / 16) * 16) for width in base]
    return [f"model.condition_widths={widths}", f"model.diffusion_widths={widths}"]


@dataclass(frozen=True)
class Flag:
    """A flag of theirs that is a setting here."""

    type: Callable[[str], Any]
    help: str
    settings: Callable[[Any], list[str]]
    """Value → overrides."""


FLAGS = {
    "image_size": Flag(int, "Side of the model grid in pixels.", lambda v: [f"data.image_size={v}"]),
    "num_channels": Flag(int, "128 is the paper's width; others scale it.", _widths),
    "num_res_blocks": Flag(int, "Residual blocks per level.", lambda v: [f"model.num_blocks={v}"]),
    "diffusion_steps": Flag(int, "T, steps of the process.", lambda v: [f"diffusion.num_train_timesteps={v}"]),
    "noise_schedule": Flag(str, "linear or cosine.", lambda v: [f"diffusion.schedule={v}"]),
    "predict_xstart": Flag(truth, "Predict x_0.", lambda v: ["diffusion.target=x0"] if v else []),
    "lr": Flag(float, "Learning rate.", lambda v: [f"train.learning_rate={v}"]),
    "weight_decay": Flag(float, "Of AdamW.", lambda v: [f"train.weight_decay={v}"]),
    "batch_size": Flag(int, "Images per step and process.", lambda v: [f"train.batch_size={v}"]),
    "ema_rate": Flag(float, "Decay of the averaged weights.", lambda v: [f"train.ema_decay={v}"]),
    "lr_anneal_steps": Flag(int, "Steps to train; 0: the default.", lambda v: [f"train.max_steps={v}"] if v else []),
    "save_interval": Flag(int, "Steps between checkpoints.", lambda v: [f"train.save_every={v}"]),
    "use_checkpoint": Flag(
        truth, "Compute activations anew.", lambda v: [f"train.gradient_checkpointing={str(v).lower()}"]
    ),
    "use_fp16": Flag(
        truth,
        "Compute in fp16 with a scaled loss, or in fp32; default: what the device is best at.",
        lambda v: [f"train.precision={'fp16' if v else 'fp32'}"],
    ),
}
"""Flags of segmentation_train.py that are settings here."""

NO_MEANING = {
    "data_name": "a data set is a folder with images/ and masks/, whatever its name",
    "class_cond": "there is no class label to condition on",
    "num_heads": "the SS-Former has one affinity map, as in the paper",
    "num_heads_upsample": "the SS-Former has one affinity map, as in the paper",
    "num_head_channels": "the SS-Former has one affinity map, as in the paper",
    "learn_sigma": "the paper's network has the posterior's variance; those of the presets v1 and release learn it",
    "use_scale_shift_norm": "the time always scales and shifts",
    "attention_resolutions": "attention is the SS-Former, at the bottleneck",
    "rescale_learned_sigmas": "the paper's network learns no variance; those of the presets v1 and release do",
    "rescale_timesteps": "any number of steps is respaced exactly",
    "use_kl": "the loss is equation 3",
    "schedule_sampler": "steps are drawn uniformly",
    "microbatch": "set train.accumulate instead",
    "log_interval": "every 10 steps are logged",
    "gpu_dev": "set CUDA_VISIBLE_DEVICES, or use accelerate launch",
    "multi_gpu": "use accelerate launch or torchrun",
    "in_ch": "the channels are those of the data",
    "version": "the network is that of the paper on V2; 'medsegdiff train --preset v1' or release trains theirs",
    "dropout": "there is none",
    "channel_mult": "set model.condition_widths and model.diffusion_widths",
    "resblock_updown": "the network is that of the paper",
    "use_new_attention_order": "the network is that of the paper",
    "fp16_scale_growth": "the scale of the loss grows as PyTorch's GradScaler has it",
}
"""Flags that are accepted and ignored, and why."""


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    for flag, reason in NO_MEANING.items():
        parser.add_argument(f"--{flag}", default=None, help=f"No meaning here: {reason}.")
    return parser


def _warn(given: dict[str, Any]) -> None:
    for flag, reason in NO_MEANING.items():
        if given.get(flag) is not None:
            warn(f"--{flag} has no meaning here: {reason}.")


def read_training(argv: Sequence[str] | None) -> tuple[str, Path, Config, bool]:
    """Read the flags of ``segmentation_train.py``."""
    parser = _parser("Train MedSegDiff-V2.")
    parser.add_argument("--data_dir", required=True, help="Folder with images/ and masks/.")
    parser.add_argument("--out_dir", default="./results", help="Folder of the run.")
    parser.add_argument("--resume_checkpoint", default=None, help="Any value goes on with the run in --out_dir.")
    for name, flag in FLAGS.items():
        parser.add_argument(f"--{name}", type=flag.type, default=None, help=flag.help)
    given = vars(parser.parse_args(argv))
    _warn(given)
    overrides = [o for name, flag in FLAGS.items() if given[name] is not None for o in flag.settings(given[name])]
    resume = bool(given["resume_checkpoint"])
    return given["data_dir"], Path(given["out_dir"]), load_preset("v2-paper", overrides), resume


def train(argv: Sequence[str] | None = None) -> None:
    """Run ``segmentation_train.py``."""
    from medsegdiff.training.train import train as run

    data, out, config, resume = read_training(argv)
    outcome = run(data, out, config, resume=resume, console=people, track=track)
    info(f"Training {outcome.reason} at step {outcome.step}; best validation Dice {outcome.best_dice:.4f}.")
    result(str(outcome.folder))


@dataclass(frozen=True)
class SamplingFlags:
    """What ``segmentation_sample.py`` was asked to do."""

    data: Path
    run: Path
    weights: Literal["best", "last"]
    out: Path
    options: SamplingOptions


def read_sampling(argv: Sequence[str] | None) -> SamplingFlags:
    """Read the flags of ``segmentation_sample.py``."""
    parser = _parser("Segment the test images of a data folder with an ensemble.")
    parser.add_argument("--data_dir", default=None, help="Data folder or folder of images; default: the run's data.")
    parser.add_argument("--model_path", required=True, type=Path, help="Folder of a run, or a file in it.")
    parser.add_argument("--out_dir", default="./results", type=Path, help="Folder for the results.")
    parser.add_argument("--num_ensemble", type=int, default=5, help="Members.")
    parser.add_argument("--diffusion_steps", type=int, default=None, help="Steps of the sampler.")
    parser.add_argument("--timestep_respacing", default="", help="Steps of the sampler, as 100 or ddim100.")
    parser.add_argument("--dpm_solver", type=truth, default=False, help="DPM-Solver++(2M) instead of DDPM.")
    parser.add_argument("--seed", type=int, default=0, help="Of the noise.")
    carried = [name for name in FLAGS if name != "diffusion_steps"]
    for name in carried:
        parser.add_argument(f"--{name}", default=None, help="No meaning here: the checkpoint carries it.")
    given = vars(parser.parse_args(argv))
    _warn(given)
    for name in carried:
        if given[name] is not None:
            warn(f"--{name} has no meaning here: the checkpoint carries its configuration.")
    respaced = given["timestep_respacing"].removeprefix("ddim")
    if respaced and not respaced.isdigit():
        parser.error(f"--timestep_respacing {given['timestep_respacing']}: allowed are a number, or ddim and a number")
    run, weights = _run_of(given["model_path"])
    options: SamplingOptions = {
        "members": given["num_ensemble"],
        "steps": int(respaced) if respaced else given["diffusion_steps"] or (20 if given["dpm_solver"] else None),
        "sampler": "dpmpp-2m" if given["dpm_solver"] else "ddim" if "ddim" in given["timestep_respacing"] else None,
        "spacing": "logsnr" if given["dpm_solver"] else None,
        "fusion": "staple",
        "seed": given["seed"],
    }
    data = Path(given["data_dir"]) if given["data_dir"] else _data_of(run)
    if data is None:
        raise DataError(f"{run}: does not tell what it was trained on. Give --data_dir.")
    return SamplingFlags(data, run, weights, given["out_dir"], options)


def _run_of(path: Path) -> tuple[Path, Literal["best", "last"]]:
    """Find the run that --model_path means; their ``model.pt`` stands for the best weights of its folder."""
    if path.is_dir():
        return path, "best"
    if path.name == "last.safetensors" and path.is_file():
        return path.parent, "last"
    if not path.is_file() and path.suffix != ".pt":
        raise CheckpointError(f"{path}: there is no such file or folder. Give the folder of a run.")
    if path.suffix == ".pt":
        info(f"{path.name}: taking the run in {path.parent}.")
    return path.parent, "best"


def _data_of(run: Path) -> Path | None:
    """Find out what a run was trained on; ``None`` where it does not tell, as imported weights don't."""
    from medsegdiff.training.run import Run

    data = Run(run).told().get("data")
    return None if data is None else Path(data)


def sample(argv: Sequence[str] | None = None) -> None:
    """Run ``segmentation_sample.py``: the test images, where the data folder is the one of the run."""
    flags = read_sampling(argv)

    from medsegdiff.inference.files import segment_files
    from medsegdiff.inference.inputs import find_inputs
    from medsegdiff.inference.segmenter import Segmenter

    trained_on = _data_of(flags.run)
    own = trained_on is not None and flags.data.resolve() == trained_on.resolve()
    split_file = flags.run / "split.csv" if own else None
    segmenter = Segmenter.from_pretrained(flags.run, weights=flags.weights)
    part = "test" if split_file else None
    files = find_inputs([flags.data], like=segmenter.config, split_file=split_file, split=part)
    info(f"Segmenting {len(files)} {'test ' if split_file else ''}images of {flags.data}.")
    finished = segment_files(
        segmenter, files, flags.out, split_file=split_file, overwrite=True, track=track, **flags.options
    )
    info(f"Segmented {finished.made} images in {finished.seconds:.1f} s.")
    if finished.made:
        result(str(flags.out))
    if finished.failed:
        warn(f"{len(finished.failed)} of {len(files)} images could not be segmented; the reasons are above.")
        sys.exit(Exit.SOME_FAILED if finished.made else Exit.FAILED)


def env(argv: Sequence[str] | None = None) -> None:
    """Run ``segmentation_env.py``: score what there is among the references."""
    parser = argparse.ArgumentParser(description="Score masks against references.")
    parser.add_argument("--inp_pth", required=True, type=Path, help="Predicted masks.")
    parser.add_argument("--out_pth", required=True, type=Path, help="Reference masks.")
    given = parser.parse_args(argv)

    from medsegdiff.evaluation import evaluate

    split = "test" if (given.inp_pth / "split.csv").is_file() else None
    show(evaluate(given.inp_pth, given.out_pth, split=split, present_only=True, track=track))
