"""The Segmenter: a trained model that takes images and gives segmentations with uncertainty."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Unpack, overload

import torch

from medsegdiff.config.diffusion import SamplingOptions
from medsegdiff.config.run import Precision
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.errors import ConfigError
from medsegdiff.hardware import pick_device
from medsegdiff.hub.place import place_of
from medsegdiff.inference.batching import BatchSize
from medsegdiff.inference.calibration import Calibration
from medsegdiff.inference.drawing import Drawing, Refused
from medsegdiff.inference.inputs import ImageLike, read_case
from medsegdiff.inference.judging import quality_by
from medsegdiff.inference.parts import Part
from medsegdiff.inference.quality import QualityModel
from medsegdiff.inference.request import Request
from medsegdiff.inference.runs import Trained, calibrated_for, check_alike, quality_of, stretch_for
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.volume import parts_of
from medsegdiff.models.base import DiffusionModel
from medsegdiff.models.checkpoint import Origin, Weights
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
        sha256: Sequence[str] = (),
        others: Sequence[Trained] = (),
        quality: QualityModel | None = None,
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
            sha256: Of the files of the weights and the snapshots, to be written beside results.
            others: Further runs, which share every ensemble with it: see `from_runs`.
            quality: What ``medsegdiff calibrate`` has taught of its masks; ``None``: nothing.

        Raises:
            ConfigError: If the runs segment other images, or something else in them.
        """
        self.device = pick_device(None if device is None else str(device))
        self.model, self.config, self.precision = model, config, precision
        self.origin, self.calibration, self.snapshots = origin, calibration, list(snapshots)
        self.quality = quality
        known: Any = {"calibration": calibration, "origin": origin, "sha256": tuple(sha256)}
        self.runs = (Trained(model, config, snapshots=self.snapshots, **known), *others)
        check_alike(self.runs)
        for run in self.runs:
            run.on(self.device, compiled=compiled)

    @classmethod
    def from_pretrained(
        cls,
        folder: str | Path,
        *,
        revision: str | None = None,
        device: str | None = None,
        precision: Precision = "auto",
        compiled: bool = False,
        weights: Weights = "best",
    ) -> Segmenter:
        """Load a run: configuration and weights from one folder, no architecture to retype.

        Args:
            folder: What ``medsegdiff train --out`` wrote; else the name of an installed model (``medsegdiff models
                list``), or ``organisation/name`` on the Hugging Face hub. A folder of that name comes first.
            revision: Branch, tag or commit on the hub; ``None``: its main branch.
            device: Where to compute; ``None`` takes the best there is.
            precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
            compiled: Whether steps are compiled.
            weights: Which weights of the run.

        Returns:
            The segmenter.
        """
        found = place_of(folder, revision=revision)
        return cls.from_runs([found], device=device, precision=precision, compiled=compiled, weights=weights)

    @classmethod
    def from_runs(
        cls,
        folders: Sequence[str | Path],
        *,
        device: str | None = None,
        precision: Precision = "auto",
        compiled: bool = False,
        weights: Weights = "best",
        calibrated: bool = True,
    ) -> Segmenter:
        r"""Load several runs that segment together, such as the folds of a network or trainings with other seeds.

        Runs that draw members from noise share these out: member m is run m mod R's member m, as it would draw it
        alone. Of networks without noise, and with ``mode="mean"``, each run is one member: its calibrated probability,
        mirrors averaged. In both cases the probability is the mean over runs of theirs, each calibrated by itself:

        .. math:: p = \frac{1}{R} \sum_r p_r

        They have to agree on what masks and images hold; network and size of the grid may differ.

        Source: Lakshminarayanan et al. (2017), Simple and Scalable Predictive Uncertainty Estimation using Deep
        Ensembles, NeurIPS, algorithm 1; nnU-Net's five folds are averaged so.

        Args:
            folders: What ``medsegdiff train --out`` wrote, or names as in `from_pretrained`, one for each run; what is
                not asked of an ensemble as a whole (members, candidates, fusion) is the first one's default.
            device: Where to compute; ``None`` takes the best there is.
            precision: ``auto``, ``fp32``, ``bf16`` or ``fp16``.
            compiled: Whether steps are compiled.
            weights: Which weights of the runs.
            calibrated: Whether what ``medsegdiff calibrate`` has taught is taken into use, where it was run.

        Returns:
            The segmenter.

        Raises:
            ConfigError: If the runs segment other images, or something else in them, or if there is none.
        """
        if not folders:
            raise ConfigError("There is no run to segment with. Give one at least.")
        first, *others = [Trained.load(place_of(folder), weights=weights) for folder in folders]
        computed: Any = {"device": device, "precision": precision, "compiled": compiled}
        known = {name: getattr(first, name) for name in ("origin", "calibration", "snapshots", "sha256")}
        quality = quality_of([first, *others]) if calibrated else None
        return cls(first.model, first.config, **computed, **known, others=others, quality=quality)

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

    def drawing(
        self, request: Request, runs: Sequence[Trained] | None = None, *, entropy_alone: bool = False
    ) -> Drawing:
        """Put a request to work.

        Args:
            request: What is asked.
            runs: As they are calibrated for it; ``None``: as they are.
            entropy_alone: Whether of the maps of uncertainty that of entropy is made alone.

        Returns:
            What makes a part of each picture.
        """
        batch = BatchSize(request.sampling.batch_size, self.device, asked=request.batch_asked)
        known = runs or self.runs
        return Drawing(known, request=request, batch=batch, precision=self.precision, entropy_alone=entropy_alone)

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
                ``shared_noise``, ``mode``, ``cleaning`` and ``seed``: see
                `medsegdiff.config.diffusion.SamplingOptions`. What is left out is the model's default.

        Returns:
            Results in the order of the images, computed as they are asked for.
        """
        return self.results(images, self.request(**options), refused=refused)

    def request(self, **options: Unpack[SamplingOptions]) -> Request:
        """Complete what is asked with the defaults of the runs.

        Args:
            **options: See `stream`.

        Returns:
            A request of these runs.

        Raises:
            ConfigError: If what is asked makes no sense.
        """
        request, known = Request.of(*(run.config for run in self.runs), **options), self.quality
        if known is None or options.get("cleaning") is not None:
            return request
        return request.with_cleaning(known.cleaning, volumes=known.volumes)

    def quality_for(self, request: Request) -> QualityModel | None:
        """Take what calibration has taught, if that was of masks that are made like those that are asked for.

        Args:
            request: What is asked.

        Returns:
            What may be said of its masks; ``None``: nothing.
        """
        known = self.quality
        return known if known is not None and known.fits(request.sampling, request.cleaning) else None

    def results(
        self,
        images: Iterable[ImageLike],
        request: Request,
        *,
        refused: Refused | None = None,
        noted: Callable[[str], None] = log.info,
        entropy_alone: bool = False,
    ) -> Iterator[Segmentation]:
        """Answer a request.

        Args:
            images: Paths, arrays or tensors.
            request: What is asked.
            refused: Told of images that the model can't take, which are passed over; ``None``: the first ends all.
            noted: Told what a large volume needs.
            entropy_alone: Whether of the maps of uncertainty those of entropies are enough, as for files: the others
                take much of the time of large pictures, and room.

        Returns:
            Results in the order of the images, computed as they are asked for.
        """
        runs, known = calibrated_for(request.by_run, self.runs), self.quality_for(request)
        if any(run.calibration.cases < known.calibration.cases for run, known in zip(runs, self.runs, strict=True)):
            log.warning(
                "%s calibrated for other ensembles: of these sizes are not calibrated, and the probability is as it "
                "was fitted for those.",
                "The run was" if len(runs) == 1 else "Some of the runs were",
            )
        drawing = self.drawing(request, runs, entropy_alone=entropy_alone)
        cases = (read_case(image, number) for number, image in enumerate(images))
        drawn = parts_of(cases, drawing, refused=refused, noted=noted)
        labels, codes = self.config.spec.labels, self.config.data.codes or {}
        stretch = stretch_for(request, runs, known, noted=noted)
        volumes = known.volumes if known is not None else bool(self.config.spec.plane)

        judging = None if known is None else partial(quality_by, known)

        def joined(case: Case, part: Part) -> Segmentation:
            """Join a result; sizes of volumes err otherwise than those of pictures, of which one kind calibrated."""
            own = stretch if stretch is None or (case.image.ndim == 4) == volumes else {}
            return Segmentation.of(case, part, labels=labels, stretch=own, judging=judging, codes=codes)

        return itertools.starmap(joined, drawn)
