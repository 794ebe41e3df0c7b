"""The authors' command lines (`scripts/segmentation_*.py`): their flags, read as settings of this package.

A flag that means nothing here is accepted and says so.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medsegdiff.cli.console import err, give, say, track
from medsegdiff.cli.evaluate import show
from medsegdiff.config import Config, load_preset

BASE_WIDTH = 128
"""Their --num_channels for which the widths of `v2-paper` are taken as they are."""


def truth(text: str) -> bool:
    """Read True and False as their scripts do.

    Args:
        text: What was given.

    Returns:
        The value.

    Raises:
        argparse.ArgumentTypeError: If it is neither.
    """
    if text.lower() in ("true", "1", "yes", "y", "t"):
        return True
    if text.lower() in ("false", "0", "no", "n", "f"):
        return False
    raise argparse.ArgumentTypeError(f"'{text}' is neither True nor False")


def _widths(num_channels: int) -> list[str]:
    widths = [
        max(16, round(w * num_channels / BASE_WIDTH / 16) * 16) for w in load_preset("v2-paper").model.condition_widths
    ]
    return [f"model.condition_widths={widths}", f"model.diffusion_widths={widths}"]


SETTINGS: dict[str, Callable[[Any], list[str]]] = {
    "image_size": lambda v: [f"data.image_size={int(v)}"],
    "num_channels": lambda v: _widths(int(v)),
    "num_res_blocks": lambda v: [f"model.num_blocks={int(v)}"],
    "diffusion_steps": lambda v: [f"diffusion.num_train_timesteps={int(v)}"],
    "noise_schedule": lambda v: [f"diffusion.schedule={v}"],
    "predict_xstart": lambda v: ["diffusion.target=x0"] if truth(v) else [],
    "lr": lambda v: [f"train.learning_rate={float(v)}"],
    "weight_decay": lambda v: [f"train.weight_decay={float(v)}"],
    "batch_size": lambda v: [f"train.batch_size={int(v)}"],
    "ema_rate": lambda v: [f"train.ema_decay={float(v)}"],
    "lr_anneal_steps": lambda v: [f"train.max_steps={int(v)}"] if int(v) else [],
    "save_interval": lambda v: [f"train.save_every={int(v)}"],
    "use_fp16": lambda v: ["train.precision=bf16"] if truth(v) else [],
}
"""Flags of segmentation_train.py that are settings here."""

NO_MEANING = {
    "data_name": "the layout of the data is detected",
    "class_cond": "there is no class label to condition on",
    "num_heads": "the SS-Former has one affinity map, as in the paper",
    "num_heads_upsample": "the SS-Former has one affinity map, as in the paper",
    "num_head_channels": "the SS-Former has one affinity map, as in the paper",
    "learn_sigma": "the variance is that of the posterior, which is exact",
    "use_scale_shift_norm": "the time always scales and shifts",
    "attention_resolutions": "attention is the SS-Former, at the bottleneck",
    "rescale_learned_sigmas": "no variance is learned",
    "rescale_timesteps": "any number of steps is respaced exactly",
    "use_kl": "the loss is equation 3",
    "schedule_sampler": "steps are drawn uniformly",
    "microbatch": "set train.accumulate instead",
    "log_interval": "every 10 steps are logged",
    "gpu_dev": "set CUDA_VISIBLE_DEVICES, or use accelerate launch",
    "multi_gpu": "use accelerate launch or torchrun",
    "in_ch": "the channels are those of the data",
    "version": "this is MedSegDiff-V2",
    "dropout": "there is none",
    "channel_mult": "set model.condition_widths and model.diffusion_widths",
    "use_checkpoint": "not needed at this size",
    "resblock_updown": "the network is that of the paper",
    "use_new_attention_order": "the network is that of the paper",
    "fp16_scale_growth": "bf16 needs no loss scale",
}
"""Flags that are accepted and ignored, and why."""


def _parser(description: str, flags: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    for flag in (*flags, *NO_MEANING):
        parser.add_argument(f"--{flag}", default=None, help=NO_MEANING.get(flag, argparse.SUPPRESS))
    return parser


def _warn(given: dict[str, Any]) -> None:
    for flag, reason in NO_MEANING.items():
        if given.get(flag) is not None:
            say(f"Warning: --{flag} has no meaning here: {reason}.")


def read_training(argv: Sequence[str] | None) -> tuple[str, Path, Config, bool]:
    """Read the flags of ``segmentation_train.py``.

    Args:
        argv: Flags; ``None`` takes those of the program.

    Returns:
        Data, folder of the run, configuration (`v2-paper`, changed as the flags say), and whether to resume.
    """
    parser = _parser("Train MedSegDiff-V2.", list(SETTINGS))
    parser.add_argument("--data_dir", required=True, help="Folder with images/ and masks/.")
    parser.add_argument("--out_dir", default="./results", help="Folder of the run.")
    parser.add_argument("--resume_checkpoint", default=None, help="Any value goes on with the run in --out_dir.")
    given = vars(parser.parse_args(argv))
    _warn(given)
    overrides = [o for flag, to in SETTINGS.items() if given[flag] is not None for o in to(given[flag])]
    return (
        given["data_dir"],
        Path(given["out_dir"]),
        load_preset("v2-paper", overrides),
        bool(given["resume_checkpoint"]),
    )


def train(argv: Sequence[str] | None = None) -> None:
    """Run ``segmentation_train.py``.

    Args:
        argv: Flags; ``None`` takes those of the program.
    """
    from medsegdiff.training.train import train as run

    data, out, config, resume = read_training(argv)
    outcome = run(data, out, config, resume=resume, console=err, track=track)
    say(f"Training {outcome.reason} at step {outcome.step}; best validation Dice {outcome.best_dice:.4f}.")
    give(str(outcome.folder))


def read_sampling(argv: Sequence[str] | None) -> tuple[list[Path], Path, Path, dict[str, Any]]:
    """Read the flags of ``segmentation_sample.py``.

    Args:
        argv: Flags; ``None`` takes those of the program.

    Returns:
        Images, folder of the run, folder for the results, and options of sampling.
    """
    known = [flag for flag in SETTINGS if flag != "diffusion_steps"]
    parser = _parser("Segment images with an ensemble.", known)
    parser.add_argument("--data_dir", default="./data", help="Folder of images, or data folder.")
    parser.add_argument("--model_path", required=True, help="Folder of a run, or a file in it.")
    parser.add_argument("--out_dir", default="./results", help="Folder for the results.")
    parser.add_argument("--num_ensemble", type=int, default=5, help="Members.")
    parser.add_argument("--diffusion_steps", type=int, default=None, help="Steps of the sampler.")
    parser.add_argument("--timestep_respacing", default="", help="Steps of the sampler, as 100 or ddim100.")
    parser.add_argument("--dpm_solver", type=truth, default=False, help="DPM-Solver++(2M) instead of DDPM.")
    parser.add_argument("--seed", type=int, default=0, help="Of the noise.")
    given = vars(parser.parse_args(argv))
    _warn(given)
    for flag in known:
        if given[flag] is not None:
            say(f"Warning: --{flag} has no meaning here: the checkpoint carries its configuration.")
    model = Path(given["model_path"])
    respaced = given["timestep_respacing"].removeprefix("ddim")
    options = {
        "members": given["num_ensemble"],
        "steps": int(respaced) if respaced else given["diffusion_steps"] or (20 if given["dpm_solver"] else None),
        "sampler": "dpmpp-2m" if given["dpm_solver"] else "ddim" if "ddim" in given["timestep_respacing"] else None,
        "spacing": "logsnr" if given["dpm_solver"] else None,
        "fusion": "staple",
        "seed": given["seed"],
    }
    return [Path(given["data_dir"])], model if model.is_dir() else model.parent, Path(given["out_dir"]), options


def sample(argv: Sequence[str] | None = None) -> None:
    """Run ``segmentation_sample.py``.

    Args:
        argv: Flags; ``None`` takes those of the program.
    """
    from medsegdiff.inference.files import find_inputs, segment_files
    from medsegdiff.inference.segmenter import Segmenter

    inputs, model, out, options = read_sampling(argv)
    finished = segment_files(Segmenter.from_pretrained(model), find_inputs(inputs), out, options=options, track=track)
    for reason in finished.failed.values():
        say(f"Failed: {reason}")
    say(f"Segmented {len(finished.done)} images in {finished.seconds:.1f} s.")
    give(str(out))


def env(argv: Sequence[str] | None = None) -> None:
    """Run ``segmentation_env.py``.

    Args:
        argv: Flags; ``None`` takes those of the program.
    """
    from medsegdiff.evaluation import evaluate

    parser = argparse.ArgumentParser(description="Score masks against references.")
    parser.add_argument("--inp_pth", required=True, type=Path, help="Predicted masks.")
    parser.add_argument("--out_pth", required=True, type=Path, help="Reference masks.")
    given = parser.parse_args(argv)
    show(evaluate(given.inp_pth, given.out_pth, track=track))
