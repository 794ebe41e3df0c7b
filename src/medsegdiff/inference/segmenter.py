"""The Segmenter: a trained model that takes images and gives segmentations with uncertainty."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import torch
from torch import Tensor

from medsegdiff.checkpoint import Weights, load_model
from medsegdiff.config.sampling import SamplingConfig
from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.config.train import Precision
from medsegdiff.data.transforms import Prepared, from_grid, prepare
from medsegdiff.errors import MedSegDiffError
from medsegdiff.fusion.fusers import decide
from medsegdiff.hardware import pick_device, place
from medsegdiff.inference.asked import complete_sampling
from medsegdiff.inference.compiling import compile_steps
from medsegdiff.inference.ensemble import Ensemble, EnsembleSampler
from medsegdiff.inference.inputs import ImageLike, image_key, read_case
from medsegdiff.inference.needs import check_needs, needs_of
from medsegdiff.inference.segmentation import Segmentation
from medsegdiff.inference.stopping import AUTO, Growing, spread, together, until_stable
from medsegdiff.inference.uncertainty import uncertainty_of
from medsegdiff.inference.volume import assemble, slices_of
from medsegdiff.io.dicom import DicomHeader
from medsegdiff.models.base import DiffusionModel
from medsegdiff.types import Case

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Item:
    """An image on its way through the model."""

    case: Case
    prepared: Prepared
    key: str


class Segmenter:
    """Segments images with a trained model.

    Example:
        >>> segmenter = Segmenter.from_pretrained("runs/isic")  # doctest: +SKIP
        >>> result = segmenter("lesion.jpg", members=10, steps=20, seed=0)  # doctest: +SKIP
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
        origin: str = "",
    ) -> None:
        """Take a model into use.

        Args:
            model: The network.
            config: Its configuration, with the data section filled in.
            device: Where to compute; ``None`` takes the best there is.
            precision: ``auto``, ``fp32`` or ``bf16``.
            compiled: Whether steps are compiled: see `medsegdiff.inference.compiling`.
            origin: Where the weights come from, to be written beside results.
        """
        self.device = pick_device(None if device is None else str(device))
        self.model = model
        place(model, self.device).eval()
        if compiled:
            compile_steps(model, self.device)
        self.config = config
        self.precision = precision
        self.origin = origin

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
            precision: ``auto``, ``fp32`` or ``bf16``.
            compiled: Whether steps are compiled.
            weights: Which weights of the run.

        Returns:
            The segmenter.
        """
        model, config = load_model(folder, weights=weights)
        origin = f"{folder}, {weights} weights"
        return cls(model, config, device=device, precision=precision, compiled=compiled, origin=origin)

    @overload
    def __call__(self, images: ImageLike, **options: Any) -> Segmentation: ...
    @overload
    def __call__(self, images: Sequence[ImageLike], **options: Any) -> list[Segmentation]: ...
    def __call__(self, images: ImageLike | Sequence[ImageLike], **options: Any) -> Segmentation | list[Segmentation]:
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
        self,
        images: Iterable[ImageLike],
        *,
        members: int | Literal["auto"] | None = None,
        steps: int | None = None,
        sampler: str | None = None,
        spacing: str | None = None,
        fusion: str | None = None,
        shared_noise: bool | None = None,
        mode: Literal["ensemble", "mean"] | None = None,
        seed: int = 0,
        refused: Callable[[Case, MedSegDiffError], None] | None = None,
    ) -> Iterator[Segmentation]:
        """Segment images one after the other, keeping few in memory.

        Args:
            images: Paths, arrays or tensors.
            members: Size of the ensemble; ``auto`` adds members to each image until its fused mask is stable
                (`medsegdiff.inference.stopping.until_stable`); ``None`` takes the model's default, here and below.
            steps: Steps of the sampler.
            sampler: One of `SAMPLERS`.
            spacing: One of `SPACINGS`.
            fusion: One of `FUSERS`.
            shared_noise: Whether a member starts from the same noise in all slices of a volume.
            mode: ``mean`` gives the probability alone, in one step: see `medsegdiff.inference.mean`.
            seed: Noise follows from the seed, the image's pixels and the member's number alone.
            refused: Told of images that the model can't take, which are passed over; ``None``: the first ends all.

        Returns:
            Results in the order of the images, computed as they are asked for.
        """
        asked: dict[str, Any] = {
            "members": members,
            "steps": steps,
            "sampler": sampler,
            "spacing": spacing,
            "fusion": fusion,
        }
        asked |= {"shared_noise": shared_noise, "mode": mode}
        sampling = complete_sampling(self.config.sampling, asked, target=self.config.diffusion.target)
        if self.config.train.teacher is not None and sampling.steps > 1:
            log.warning("The model was distilled into one step; %d steps were not learned.", sampling.steps)
        auto = members == AUTO
        ensembles = EnsembleSampler(self.model, self.config, sampling, precision=self.precision, auto=auto)
        return self._in_batches(images, ensembles, sampling, seed, refused)

    def _in_batches(
        self,
        images: Iterable[ImageLike],
        ensembles: EnsembleSampler,
        sampling: SamplingConfig,
        seed: int,
        refused: Callable[[Case, MedSegDiffError], None] | None = None,
    ) -> Iterator[Segmentation]:
        batch: list[_Item] = []
        for number, image in enumerate(images):
            case = read_case(image, number)
            volume = case.image.ndim == 4
            if volume and batch:
                yield from self._segment(batch, ensembles, sampling.fusion, seed)
                batch = []
            try:
                done = self._volume(case, ensembles, sampling, seed) if volume else self._item(case)
            except MedSegDiffError as error:
                if refused is None:
                    raise
                refused(case, error)
                continue
            if isinstance(done, Segmentation):
                yield done
                continue
            item = done
            if batch and (len(batch) * sampling.members >= sampling.batch_size or _differ(batch[0], item)):
                yield from self._segment(batch, ensembles, sampling.fusion, seed)
                batch = []
            batch.append(item)
        if batch:
            yield from self._segment(batch, ensembles, sampling.fusion, seed)

    def _volume(self, case: Case, ensembles: EnsembleSampler, sampling: SamplingConfig, seed: int) -> Segmentation:
        plane, neighbours = self.config.spec.plane or self.config.data.plane, self.config.data.neighbours
        slices = partial(slices_of, case, plane, shared_noise=sampling.shared_noise, neighbours=neighbours)
        if ensembles.auto:
            number = self._number_for(slices, ensembles, sampling.fusion, seed)
            sampling = sampling.model_copy(update={"members": number})
            ensembles = EnsembleSampler(self.model, self.config, sampling, precision=self.precision)
        needs = needs_of(
            case.geometry.shape,
            channels=len(case.image),
            classes=self.config.mask_channels,
            members=sampling.members,
            task=self.config.spec.labels.task,
            batch_size=sampling.batch_size,
            dicom=isinstance(case.geometry.header, DicomHeader),
        )
        check_needs(case.name, needs)
        return assemble(case, plane, self._in_batches(slices(), ensembles, sampling, seed))

    def _item(self, case: Case) -> _Item:
        prepared = prepare(case, self.config, stride=self.model.stride)
        return _Item(case, prepared, case.key or image_key(case.image))

    def _segment(
        self, batch: Sequence[_Item], ensembles: EnsembleSampler, fusion: str, seed: int
    ) -> Iterator[Segmentation]:
        if ensembles.auto:
            yield from (self._until_stable(item, ensembles, fusion, seed) for item in batch)
            return
        image = torch.stack([item.prepared.image for item in batch]).to(self.device)
        ensemble = ensembles.draw(image, [item.key for item in batch], seed=seed)
        for index, item in enumerate(batch):
            members, anchor = _restored(ensemble, index, item)
            yield self._result(item, members, anchor, fusion)

    def _until_stable(self, item: _Item, ensembles: EnsembleSampler, fusion: str, seed: int) -> Segmentation:
        growing = self._growing(item, ensembles, fusion, seed)
        until_stable(growing)
        return self._result(item, *_restored(growing.whole(), 0, item), fusion)

    def _growing(self, item: _Item, ensembles: EnsembleSampler, fusion: str, seed: int) -> Growing:
        labels = self.config.spec.labels
        return Growing(
            ensembles, item.prepared, key=item.key, seed=seed, fusion=fusion, labels=labels, device=self.device
        )

    def _number_for(
        self, slices: Callable[[], Iterator[Case]], ensembles: EnsembleSampler, fusion: str, seed: int
    ) -> int:
        """Find how many members a volume needs, from some slices in which the anchor sees something, else of all."""
        images = map(self._item, slices())
        held = [index for index, item in enumerate(images) if self._growing(item, ensembles, fusion, seed).holds()]
        chosen = spread(held or range(sum(1 for _ in slices())))
        items = [self._item(piece) for index, piece in enumerate(slices()) if index in chosen]
        return until_stable(together([self._growing(item, ensembles, fusion, seed) for item in items]))

    def _result(self, item: _Item, members: Tensor, anchor: Tensor | None, fusion: str) -> Segmentation:
        """Fuse the members of one image on its native grid."""
        labels = self.config.spec.labels
        decided = decide(members, labels, fusion=fusion)
        if not decided.converged:
            log.warning("%s: STAPLE did not come to rest; look at the members.", item.case.name)
        return Segmentation(
            name=item.case.name,
            mask=decided.mask,
            probability=decided.probability.cpu().numpy(),
            uncertainty=uncertainty_of(members, exclusive=labels.exclusive),
            members=np.stack([labels.decide(member) for member in members]),
            anchor=None if anchor is None else labels.decide(anchor),
            anchor_probability=None if anchor is None else anchor.cpu().numpy(),
            sensitivity=None if decided.sensitivity is None else decided.sensitivity.numpy(),
            specificity=None if decided.specificity is None else decided.specificity.numpy(),
            image=item.case.image,
            geometry=item.case.geometry,
            labels=labels,
        )


def _restored(ensemble: Ensemble, index: int, item: _Item) -> tuple[Tensor, Tensor | None]:
    """Bring the members (m k h w) and the anchor (k h w), if there is one, of one image to its native grid.

    Deviation: the members are restored first and fused then, so that STAPLE or the majority of the saved
    members is the saved mask, and contours keep the precision of the members' continuous values.
    """
    placement = item.prepared.placement
    anchor = None if ensemble.anchor is None else from_grid(ensemble.anchor[index, None], placement)[0]
    return from_grid(ensemble.probability[:, index], placement), anchor


def _differ(a: _Item, b: _Item) -> bool:
    return a.prepared.image.shape != b.prepared.image.shape
