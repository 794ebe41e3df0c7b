"""All that a user asks of a run, training among it. `load` reads it from YAML and changes single values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from medsegdiff.config.base import Component
from medsegdiff.config.data import DataConfig
from medsegdiff.config.diffusion import DiffusionConfig, LossConfig, SamplingConfig
from medsegdiff.config.networks import NetworkConfig, V2Config, settings_of

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class TrainConfig(Component):
    """Training."""

    snapshots: int = Field(default=0, ge=0)
    """Further sets of weights, short averages each, that are kept between the half and 85 % of training, while the
    learning rate is held: members share them out."""
    draws: int = Field(default=1, ge=1)
    """Noise levels, noises and (where there are several) raters that the Diffusion Model learns from at each look of
    the Condition Model at an image."""
    anchor_alone: float = Field(default=0.0, ge=0, lt=1)
    """Share of the steps, the first ones, in which the Condition Model learns alone: they cost less, so that more fit
    into the time."""
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
    optimizer: Literal["adamw", "adam", "amsgrad", "sgd"] = "adamw"
    """``adam``, its variant ``amsgrad`` and ``sgd`` add ``weight_decay`` to the gradient, of biases and norms too."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of the moments of AdamW and Adam."""
    momentum: float = Field(default=0.99, gt=0, lt=1)
    """Of SGD; 0.99 in nnU-Net."""
    nesterov: bool = True
    """Whether the momentum of SGD is Nesterov's, as in nnU-Net."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """Of the optimizer; 1e-4 in the paper."""
    lr_schedule: Literal["constant", "cosine", "poly", "waves", "drop"] = "cosine"
    """``cosine`` falls to 1 % at the last step; ``poly`` to 0, as (1 − step / steps)^0.9, as in nnU-Net; ``waves``
    falls along a cosine to 0 and rises again, five times; ``drop`` goes on with a fifth from the middle on."""
    warmup_steps: int = Field(default=100, ge=0)
    """Steps over which the learning rate rises."""
    weight_decay: float = Field(default=1e-2, ge=0)
    """Of the optimizer."""
    max_grad_norm: float | None = Field(default=1.0, gt=0)
    """Gradients longer than this are scaled down to it; ``null`` leaves them."""
    ema_decay: float = Field(default=0.999, ge=0, lt=1)
    """Of the exponential moving average of the weights, which is what samples are drawn with."""
    precision: Precision = "auto"
    """``auto`` takes bf16, or on older GPUs fp16 with a scaled loss, where the device computes faster in it."""
    max_nonfinite: int = Field(default=20, ge=1)
    """Steps in a row that may be skipped for a non-finite loss or gradient before training stops."""
    val_every: int = Field(default=500, ge=1)
    """Steps between validations, which draw samples."""
    val_cases: int = Field(default=32, ge=1)
    """Validation cases that are segmented each time."""
    val_members: int = Field(default=4, ge=1)
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
    score_members: int = Field(default=0, ge=0)
    """Samples of each image, drawn in one step, by whose energy score against all raters the network learns (GED²); 0:
    it learns by equation 3, or from a teacher."""
    unlabelled: str | None = None
    """Folder of images without masks, from where the network shall be used. Discriminators learn to tell them from
    those with masks by what is said of them, and the network to deceive these (``beal``); ``null``: masks alone."""
    num_workers: int = Field(default=0, ge=0)
    """Processes that read and augment; 0 does it in the training process."""
    seed: int = 0
    """All randomness of training follows from it."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Also log to these."""

    @property
    def one_step(self) -> str:
        """How the network has learned to sample in one step, in words; empty where it was not taught so."""
        if self.score_members:
            return "trained on the energy score of one step"
        return "" if self.teacher is None else "distilled into one step"

    @model_validator(mode="after")
    def _of_one_kind(self) -> TrainConfig:
        if self.snapshots and self.lr_schedule != "cosine":
            raise ValueError(f"snapshots are taken while lr_schedule cosine is held; it is {self.lr_schedule}")
        if self.score_members == 1:
            raise ValueError("score_members is 1; a score needs two samples or more to compare with each other, or 0")
        if self.score_members and self.teacher is not None:
            raise ValueError("a network learns from a teacher or by its score: set teacher to null, or score_members=0")
        return self


class Config(Component):
    """All that a user asks of a run. With what the data tell, it becomes a `ResolvedConfig`."""

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
