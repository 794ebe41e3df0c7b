"""The configuration: one frozen model per component. `presets` reads it from YAML and changes single values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from medsegdiff.config.networks import Component, NetworkConfig
from medsegdiff.config.networks.base import settings_of
from medsegdiff.config.networks.medsegdiff_v2 import V2Config

Precision = Literal["auto", "fp32", "bf16"]
Modality = Literal["ct", "mr", "natural"]
"""Hounsfield units; arbitrary units, of MR or ultrasound, say; light."""
Coding = Literal["signed", "unit"]
"""Masks as −1 and +1, or as 0 and 1."""
Values = Literal["standard", "unit", "raw"]
"""Mean 0 and standard deviation 1; 8-bit values divided by 255; as in the file."""


class DiffusionConfig(Component):
    """The forward process and what the network predicts."""

    target: Literal["eps", "x0", "v"] = "x0"
    """What the network predicts; noise (eps) in the paper."""
    schedule: Literal["linear", "cosine"] = "cosine"
    """Noise schedule."""
    num_train_timesteps: int = Field(default=1000, ge=2)
    """T."""
    signal_scale: float = Field(default=0.1, gt=0, le=2)
    """b: masks are coded −b and +b; below 1, less of the mask can be read from x_t alone."""
    coding: Coding = "signed"
    """What 0 and 1 of a mask are to the process: −1 and +1, or (``unit``, in the authors' code) 0 and 1."""
    zero_terminal_snr: bool = False
    """Whether x_T holds no trace of the mask."""
    clip: bool = True
    """Whether predictions of x_0 are clipped to [−1, 1] while sampling (targets eps and v)."""

    @model_validator(mode="after")
    def _solvable(self) -> DiffusionConfig:
        if self.zero_terminal_snr and self.target == "eps":
            raise ValueError("zero_terminal_snr needs target v or x0: from noise alone, eps tells nothing of x_0")
        return self


class LossConfig(Component):
    """Equation 3: L = L_n + [t ≡ 0 mod α] (L_dice + β L_ce)."""

    alpha: int = Field(default=5, ge=1)
    """α = 5 in the paper: how rarely the anchor is supervised."""
    beta: float = Field(default=10.0, ge=0)
    """β = 10 in the paper: weight of the cross-entropy of the anchor."""
    anchor_weighting: Literal["indicator", "expected"] = "expected"
    """``indicator`` as in equation 3; ``expected`` weighs every sample 1/α: the same on average, with less variance."""
    x_0_dice: float = Field(default=1.0, ge=0)
    """Weight of soft Dice beside cross-entropy in L_n when the target is x0."""


class SamplingConfig(Component):
    """How masks are drawn and fused."""

    mode: Literal["ensemble", "mean"] = "ensemble"
    """``mean`` asks the network once, from pure noise, for the mean of all masks; it draws none of them."""
    sampler: str = "dpmpp-2m"
    """Entry of the registry of samplers."""
    num_steps: int = Field(default=20, ge=1)
    """Steps of the sampler; 100 in the paper."""
    spacing: Literal["trailing", "linspace", "logsnr", "regions"] = "logsnr"
    """How the steps are spaced."""
    eta: float = Field(default=0.0, ge=0, le=1)
    """DDIM's share of ancestral noise."""
    num_samples: int = Field(default=10, ge=1)
    """Members of the ensemble; 10 in the paper."""
    fusion: str = "staple"
    """Entry of the registry of fusions; STAPLE in the paper."""
    antithetic: bool = False
    """Whether members come in pairs with opposite noise: a steadier mean, but pairs that disagree too much."""
    shared_noise: bool = True
    """Whether a member starts from the same noise in all slices of a volume, so that neighbours agree."""
    batch_size: int = Field(default=16, ge=1)
    """Masks denoised at once; changes memory and speed, never the result."""


class DataConfig(Component):
    """What the model sees. What a data set tells of itself fills the first three."""

    channels: int | None = Field(default=None, ge=1)
    """Image channels; ``null`` takes those of the data."""
    task: Literal["binary", "exclusive", "regions"] | None = None
    """One foreground, classes that exclude each other, or regions that may overlap; ``null`` asks the data."""
    classes: tuple[str, ...] | None = None
    """Names of the mask channels (for ``exclusive`` the background is the first); ``null`` asks the data."""
    layout: str = "auto"
    """Entry of the registry of data sets that lists the files; ``auto`` goes by their names."""
    mask_dir: str = "masks"
    """Folder of the masks beside ``images/``."""
    mask_folders: Literal["auto", "raters", "structures"] = "auto"
    """What sub-folders of ``masks/`` are; ``auto`` goes by their names."""
    image_size: int = Field(default=256, ge=8)
    """Side in pixels of the model grid; 256 in the paper."""
    resize: Literal["fit", "stretch", "none"] = "fit"
    """``fit`` scales the longer side to ``image_size``, ``stretch`` both sides (the paper), ``none`` neither."""
    plane: Literal["auto", "sagittal", "coronal", "axial"] = "auto"
    """How volumes are cut into slices; ``auto``: axially, or across clearly thicker voxels."""
    neighbours: int = Field(default=0, ge=0, le=8)
    """Slices above and below that a slice of a volume takes along as channels (2.5-D)."""
    modalities: tuple[Modality, ...] | None = None
    """Of the image channels: decides how they are normalised; ``null`` asks the data."""
    values: Values = "standard"
    """How channels other than CT enter the network; in the authors' code ``unit`` (pictures) or ``raw`` (volumes)."""
    window: tuple[float, float] | None = None
    """Hounsfield units that become −1 and 1, what is beyond is cut off; ``null`` takes those of the structures."""
    channel_files: int = Field(default=1, ge=1)
    """Files per image, one per channel; the data say."""
    label_values: tuple[int, ...] = ()
    """Value of each structure in label maps, each over those before it; the data say, else 1, 2, 3 …"""
    augment: bool = True
    """Random flips, rotation, scale, shift and intensity while training."""
    val_fraction: float = Field(default=0.1, gt=0, lt=1)
    """Share of the training cases kept for validation where the data name none."""
    test_fraction: float = Field(default=0.2, ge=0, lt=1)
    """Share of all cases kept for testing where there is no split."""
    split_seed: int = 0
    """Seed of that split."""
    cache_gb: float = Field(default=32.0, ge=0)
    """Room for prepared cases in a temporary, memory-mapped file, in GB; beyond it they are read anew each time."""
    cache_dir: str | None = None
    """Folder of that file, on a local disk; ``null`` takes the system's for temporary files."""


class TrainConfig(Component):
    """Training."""

    max_steps: int = Field(default=100_000, ge=1)
    """Optimizer steps."""
    max_minutes: float | None = Field(default=None, gt=0)
    """Time for the steps alone, in minutes: from the pace of the first, their number is settled, ``max_steps`` at most;
    validations and checkpoints come on top. ``null`` goes by ``max_steps``."""
    batch_size: int = Field(default=32, ge=1)
    """Images per process and micro-batch; 32 in the paper."""
    accumulate: int = Field(default=1, ge=1)
    """Micro-batches per optimizer step."""
    gradient_checkpointing: bool = False
    """Whether the backward pass computes residual blocks anew instead of keeping them: less memory, more time."""
    sharding: bool = False
    """Whether each process keeps only a share of weights, gradients, moments and averaged weights (FSDP), for a network
    that no single device holds; needs several processes."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Of AdamW; 1e-4 in the paper."""
    lr_schedule: Literal["constant", "cosine"] = "cosine"
    """``cosine`` falls to 1 % at the last step."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps over which the learning rate rises."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Of AdamW."""
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Gradients longer than this are scaled down to it; ``null`` leaves them."""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Of the exponential moving average of the weights, which is what samples are drawn with."""
    precision: Precision = "auto"
    """``auto`` takes bf16 where the device computes faster in it."""
    max_nonfinite: int = Field(default=20, ge=1)
    """Steps in a row that may be skipped for a non-finite loss or gradient before training stops."""
    val_every: int = Field(default=500, ge=1)
    """Steps between validations, which draw samples."""
    val_cases: int = Field(default=32, ge=1)
    """Validation cases that are segmented each time."""
    val_samples: int = Field(default=4, ge=1)
    """Members drawn for each of them."""
    val_steps: int = Field(default=10, ge=1)
    """Steps of the sampler in validation."""
    patience: int | None = Field(default=None, ge=1)
    """Validations without a better Dice after which training stops; ``null`` never stops early."""
    save_every: int = Field(default=500, ge=1)
    """Steps between checkpoints to resume from."""
    teacher: str | None = None
    """Run whose few steps this network learns to make at once (distillation); ``null`` trains on the masks alone."""
    teacher_steps: int = Field(default=2, ge=2)
    """Steps of the teacher."""
    num_workers: int = Field(default=0, ge=0)
    """Processes that read and augment; 0 does it in the training process."""
    seed: int = 0
    """All randomness of training follows from it."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Also log to these."""


class Config(Component):
    """All that makes a run; a checkpoint carries it."""

    description: str = ""
    """What this preset is for."""
    reproduces: str = ""
    """The table or figure of the paper that it stands for, if any."""
    model: SerializeAsAny[NetworkConfig] = V2Config()
    """The network; which settings there are, its name decides."""
    diffusion: DiffusionConfig = DiffusionConfig()
    """The forward process."""
    loss: LossConfig = LossConfig()
    """The loss."""
    sampling: SamplingConfig = SamplingConfig()
    """Sampling and fusion."""
    data: DataConfig = DataConfig()
    """The data."""
    train: TrainConfig = TrainConfig()
    """Training."""

    @field_validator("model", mode="before")
    @classmethod
    def _settings_by_name(cls, values: Any) -> Any:
        """Read the settings as those of the network that they name."""
        if not isinstance(values, Mapping):
            return values
        return settings_of(values.get("name")).model_validate(values)

    @model_validator(mode="after")
    def _target_fits(self) -> Config:
        network, target = self.model, self.diffusion.target
        if target not in network.targets:
            able = " or ".join(network.targets)
            raise ValueError(f"the network '{network.name}' predicts {able}, not {target}: set diffusion.target={able}")
        return self

    @property
    def image_channels(self) -> int:
        """Channels that the network sees, those of neighbouring slices included; 3 while no data have been seen."""
        return (self.data.channels or 3) * (1 + 2 * self.data.neighbours)

    @property
    def mask_channels(self) -> int:
        """K, channels of the mask; 1 while no data have been seen."""
        return len(self.data.classes) if self.data.classes else 1
