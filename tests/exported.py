"""A run that was exported once, by `python -m tests.exported`: its graphs lie in `golden/exported`.

Exporting takes longer than most tests together. The run itself is made anew: its weights follow from their names.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import torch

from medsegdiff.config.load import load_preset
from medsegdiff.config.spec import ResolvedConfig, assumed
from medsegdiff.diffusion.noise import randn
from medsegdiff.inference.calibration import Calibration
from medsegdiff.models.base import DiffusionModel, build_model
from medsegdiff.models.checkpoint import BEST, save_config, save_weights
from medsegdiff.seeding import derive_seed

GOLDEN = Path(__file__).parent / "golden" / "exported"
TINY = (
    "model.condition_widths=[8, 8, 8]",
    "model.diffusion_widths=[8, 8]",
    "model.condition_patch=1",
    "model.diffusion_patch=2",
    "model.anchor_levels=[0]",
    "model.num_blocks=1",
    "model.mlp_ratio=1",
    "model.ss_former_dim=8",
    "model.ss_former_blocks=1",
    "model.filter_channels=4",
    "model.filter_blocks=1",
    "model.time_dim=8",
    "model.detail_channels=4",
    "data.image_size=24",
    "data.channels=1",
    "sampling.steps=4",
    "sampling.members=4",
    "sampling.batch_size=3",
)
"""Overrides that make a V2 of a few thousand parameters, of which nothing is left out."""
SETTINGS = (
    *TINY,
    "model.anchor_add=true",
    "model.see_image=true",
    "data.task=exclusive",
    "data.classes=[background, left, right]",
    "diffusion.residual=true",
    "sampling.spacing=regions",
    "sampling.views=2",
    "sampling.raters=3",
    "sampling.fusion=dice",
)


def config_of(*overrides: str) -> ResolvedConfig:
    return assumed(load_preset("v2-tiny", overrides))


def filled(model: DiffusionModel) -> DiffusionModel:
    """Give each weight a value that follows from its name; what begins as a constant stays near it."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            drawn = randn([(derive_seed(0, "weights", name), 0)], weight.shape, device=weight.device)[0]
            if weight.ndim > 1:
                weight.copy_(drawn * (1 / weight[0].numel()) ** 0.5)
            elif len(weight) > 1 and bool((weight == weight[0]).all()):
                weight.add_(drawn * 0.2)
            else:
                weight.copy_(drawn * 0.2)
    return model.eval()


def write_run(folder: Path, config: ResolvedConfig) -> Path:
    """Write a run, as training does; with a calibration, as there would be of enough cases."""
    folder.mkdir(parents=True, exist_ok=True)
    save_config(folder, config)
    save_weights(folder / BEST, filled(build_model(config)).state_dict())
    channels = config.mask_channels
    mixture = {
        "weight": 0.3,
        "slopes": [1.2, 0.9, 1.1][:channels],
        "offsets": [0.2, -0.1, 0.1][:channels],
        "time": 700.0,
    }
    fitted = {"cases": 40, "mixture": mixture, "stretch": {config.spec.labels.structures[0]: [0.2, 0.3, 0.01]}}
    told = {**fitted, "dependence": 0.3, "sampling": json.loads(config.sampling.model_dump_json())}
    Calibration.model_validate(told).save(folder)
    return folder


def main() -> None:
    """Export the run into the golden folder."""
    from medsegdiff.export.folder import export_run

    with tempfile.TemporaryDirectory() as place:
        run = write_run(Path(place) / "run", config_of(*SETTINGS))
        shutil.rmtree(GOLDEN, ignore_errors=True)
        print(export_run(run, GOLDEN, noted=print).bytes)
        (GOLDEN / "mean.onnx").unlink()


if __name__ == "__main__":
    main()
