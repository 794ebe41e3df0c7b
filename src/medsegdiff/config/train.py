"""How a network is trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medsegdiff.config.base import Component

Precision = Literal["auto", "fp32", "bf16"]


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
    num_workers: int = Field(default=0, ge=0)
    """Processes that read and augment; 0 does it in the training process."""
    seed: int = 0
    """All randomness of training follows from it."""
    trackers: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = ()
    """Also log to these."""
