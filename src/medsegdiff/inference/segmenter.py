"""The Segmenter: a trained model that takes images and gives segmentations with uncertainty."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Unpack, overload

import torch

from medsegdiff.config.diffusion import SamplingOptions
from medsegdiff.config.run import Precision
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.hardware import pick_device, place
from medsegdiff.inference.batching import BatchSize
from medsegdiff.inference.calibration import Calibration
from medsegdiff.inference.drawing import Drawing, Refused
from medsegdiff.inference.inputs import ImageLike, read_case
from medsegdiff.inference.parts import Part
from medsegdiff.inference.request import Request
from medsegdiff.inference.resources import compile_steps
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.volume import parts_of
from medsegdiff.models.base import DiffusionModel
from medsegdiff.models.checkpoint import Origin, Weights, load_model, load_snapshots
from medsegdiff.types import Case

log = logging.getLogger(__name__)


class Segmenter:
    """Segments images with a trained model.

    Example:
        >>> segmenter = Segmenter.from_pretrained("runs/isic")  # doctest: +SKIP
        >>> result = segmenter("lesion.jpg", members=10, seed=0)  # doctest: +SKIP
        >>> result.save("out/")  # doctest: +SKIP
    """

    def __init__(
        self,
        model: DiffusionModel,
        config: ResolvedConfig,
        *,
        device: str | torch.device | None = None,
        precision: Precision = "auto",
        compiled: bool = False,
        origin: Origin | None = None,
        calibration: Calibration = Calibration(),  # noqa: B008 - it can't be changed
        snapshots: Sequence[DiffusionModel] = (),
    ) -> None:
        """Take a model into use.

        Args:
            model: The network.
            config: Its configuration, with the data section filled in.
            device: Where to compute; ``None`` takes the best there is.
            precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
            compiled: Whether steps are compiled: see `medsegdiff.inference.resources`.
            origin: Where the weights come from, to be written beside results.
            calibration: What validation has taught of its probabilities and sizes; by default nothing.
            snapshots: Further weights of the network, which members share out.
        """
        self.device = pick_device(None if device is None else str(device))
        self.model = model
        place(model, self.device).eval()
        if compiled:
            compile_steps(model, self.device)
        self.config = config
        self.precision = precision
        self.origin, self.calibration = origin, calibration
        self.snapshots = list(snapshots)
        for network in self.snapshots:
            place(network, self.device).eval()

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        device: str | None = None,
        precision: Precision = "auto",
        compiled: bool = False,
        weights: Weights = "best",
    ) -> Segmenter:
        """Load a run: configuration and weights from one folder, no architecture to retype.

        Args:
            folder: What ``medsegdiff train --out`` wrote.
            device: Where to compute; ``None`` takes the best there is.
            precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
            compiled: Whether steps are compiled.
            weights: Which weights of the run.

        Returns:
            The segmenter.
        """
        model, config = load_model(folder, weights=weights)
        origin = Origin(str(folder), weights)
        return cls(
            model,
            config,
            device=device,
            precision=precision,
            compiled=compiled,
            origin=origin,
            calibration=Calibration.of_run(Path(folder)) if weights == "best" else Calibration(),
            snapshots=load_snapshots(folder, config),
        )

    @overload
    def __call__(  # type: ignore[overload-overlap]  # a path is a sequence too, of letters
        self, images: ImageLike, **options: Unpack[SamplingOptions]
    ) -> Segmentation: ...
    @overload
    def __call__(self, images: Sequence[ImageLike], **options: Unpack[SamplingOptions]) -> list[Segmentation]: ...
    def __call__(
        self, images: ImageLike | Sequence[ImageLike], **options: Unpack[SamplingOptions]
    ) -> Segmentation | list[Segmentation]:
        """Segment one image, or a list of them.

        Args:
            images: A path, an array, a tensor, or a list of them.
            **options: ``members``, ``steps``, ``sampler``, ``fusion``, ``seed``: see `stream`.

        Returns:
            One result, or a list.
        """
        if isinstance(images, ImageLike):
            return next(self.stream([images], **options))
        return list(self.stream(images, **options))

    def stream(
        self, images: Iterable[ImageLike], *, refused: Refused | None = None, **options: Unpack[SamplingOptions]
    ) -> Iterator[Segmentation]:
        """Segment images one after the other, keeping few in memory.

        Args:
            images: Paths, arrays or tensors.
            refused: Told of images that the model can't take, which are passed over; ``None``: the first ends all.
            **options: ``members`` (a number, or ``auto``: each image gets more until its fused mask is stable,
                `medsegdiff.inference.adaptive.until_stable`), ``candidates`` (masks that are drawn and decide; members
                are chosen among them), ``steps`` and ``spacing`` of the ``sampler``, ``fusion``,
                ``shared_noise``, ``mode`` and ``seed``: see `medsegdiff.config.sampling.SamplingOptions`. What is left
                out is the model's default.

        Returns:
            Results in the order of the images, computed as they are asked for.
        """
        return self.results(images, Request.of(self.config, **options), refused=refused)

    def results(
        self,
        images: Iterable[ImageLike],
        request: Request,
        *,
        refused: Refused | None = None,
        noted: Callable[[str], None] = log.info,
    ) -> Iterator[Segmentation]:
        """Answer a request.

        Args:
            images: Paths, arrays or tensors.
            request: What is asked.
            refused: Told of images that the model can't take, which are passed over; ``None``: the first ends all.
            noted: Told what a large volume needs.

        Returns:
            Results in the order of the images, computed as they are asked for.
        """
        volumes = bool(self.config.spec.plane)
        calibration = self.calibration.as_for(request.sampling, volumes=volumes)
        if calibration.cases < self.calibration.cases:
            log.warning(
                "The run was calibrated for other ensembles; of these, probability and sizes are not calibrated."
            )
        drawing = Drawing(
            self.model,
            self.config,
            request=request,
            batch=BatchSize(request.sampling.batch_size, self.device, asked=request.batch_asked),
            precision=self.precision,
            snapshots=self.snapshots,
            calibration=calibration,
        )
        cases = (read_case(image, number) for number, image in enumerate(images))
        drawn = parts_of(cases, drawing, refused=refused, noted=noted)
        labels, stretch = self.config.spec.labels, None if request.sampling.mode == "mean" else calibration.stretch

        def joined(case: Case, part: Part) -> Segmentation:
            """Join a result; sizes of volumes err otherwise than those of pictures, of which one kind calibrated."""
            own = stretch if stretch is None or (case.image.ndim == 4) == volumes else {}
            return Segmentation.of(case, part, labels=labels, stretch=own)

        return itertools.starmap(joined, drawn)
