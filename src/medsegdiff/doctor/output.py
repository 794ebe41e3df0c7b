"""The model's own masks: do they look like masks, follow the image, and differ between members?"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from medsegdiff.config.spec import ResolvedConfig
from medsegdiff.data.dataset import Track, no_progress
from medsegdiff.doctor.finding import Finding
from medsegdiff.doctor.pictures import Pictures
from medsegdiff.inference.ensemble import EnsembleSampler
from medsegdiff.inference.segmenter import Segmenter
from medsegdiff.metrics.distribution import agreement
from medsegdiff.metrics.plausibility import Appearance, appearance_of, warning_of

MEMBERS = 4
SECONDS = 10.0
"""After which no further image is segmented, once there are two."""
DEAF = 1e-3
"""Mean change of the probability from image to image below which the model does not look at it."""
GREY = 0.9
"""Mean distance of probabilities from one half, in units of one half, below which members are undecided."""
SAME = 0.9999
"""Agreement of members that are all the same."""


def examine_output(segmenter: Segmenter, pictures: Pictures, *, track: Track = no_progress) -> list[Finding]:
    """Draw members for some images, each image with the same noise, and look at them."""
    config = segmenter.config
    drawn, seconds = _draw(segmenter, pictures.images, track)
    seen, agreements = zip(*(_seen(members, config) for members in drawn), strict=True)
    how = f"{pictures.what}, {MEMBERS} members each, {seconds / len(drawn):.1f} s per image"
    return [
        _masks(seen, how, real=pictures.real),
        _follows(drawn, real=pictures.real),
        _differ(seen, agreements),
        _decided(drawn, config.sampling.steps),
    ]


def _draw(
    segmenter: Segmenter, images: Sequence[Float[Tensor, "c h w"]], track: Track
) -> tuple[list[Float[Tensor, "m k h w"]], float]:
    sampling = segmenter.config.sampling.model_copy(update={"members": MEMBERS})
    sampler = EnsembleSampler(segmenter.model, segmenter.config, sampling, precision=segmenter.precision)
    drawn: list[Tensor] = []
    start = time.monotonic()
    for image in track(images, "Drawing members"):
        if len(drawn) < 2 or time.monotonic() - start < SECONDS:  # the key is the same, so the noise is
            drawn.append(sampler.draw(image[None].to(segmenter.device), ["doctor"], seed=0).probability[:, 0].cpu())
    return drawn, time.monotonic() - start


def _seen(members: Float[Tensor, "m k h w"], config: ResolvedConfig) -> tuple[Appearance, float]:
    """Look at the mean mask's largest structure, and how much members agree on it."""
    labels = config.spec.labels
    fused, *each = (labels.masks(labels.decide(p)) for p in (members.mean(dim=0), *members))
    largest = int(np.stack(each).mean(axis=(0, 2, 3)).argmax())
    masks = np.stack(each)[:, largest].astype(bool)
    agreed = agreement(masks)
    return appearance_of(fused[largest], agreement=agreed, members=float(masks.mean())), agreed


def _masks(seen: Sequence[Appearance], how: str, *, real: bool) -> Finding:
    share = float(np.mean([appearance.foreground for appearance in seen]))
    numbers = {"foreground": share, "suspicions": [appearance.suspicion for appearance in seen]}
    numbers["roughness"] = [appearance.roughness for appearance in seen]
    advice = "Train longer; see the findings on weights and training. Are the images like those it was trained on?"
    if text := warning_of(seen):
        return Finding("masks", "appearance", "wrong" if real else "to look at", f"{text} ({how})", advice, numbers)
    found = f"Foreground {share:.1%} on average, compact ({how})."
    return Finding("masks", "appearance", "good", found, numbers=numbers)


def _follows(drawn: Sequence[Float[Tensor, "m k h w"]], *, real: bool) -> Finding:
    """Compare masks of different images that began with the same noise."""
    if len(drawn) < 2:
        return Finding("masks", "follow the image", "skipped", "One image does not tell.")
    change = float(np.mean([float((a - b).abs().mean()) for a, b in itertools.combinations(drawn, 2)]))
    found = f"From image to image the probability changes by {change:.3g} on average, with the same noise."
    numbers = {"change": change}
    if not change >= DEAF:
        advice = "The model does not look at the image: train it longer."
        return Finding("masks", "follow the image", "wrong" if real else "to look at", found, advice, numbers)
    return Finding("masks", "follow the image", "good", found, numbers=numbers)


def _differ(seen: Sequence[Appearance], agreements: Sequence[float]) -> Finding:
    mean, numbers = float(np.mean(agreements)), {"agreement": list(agreements)}
    found = f"Members agree by {mean:.3f} (mean Dice of pairs)."
    if all(appearance.suspicion == "unlike" for appearance in seen):
        advice = "Train longer: members should share at least the core of a structure."
        return Finding("masks", "members", "to look at", f"{found} That is no more than chance.", advice, numbers)
    if mean > SAME and any(appearance.members for appearance in seen):
        advice = "The ensemble tells no uncertainty. More steps, or data with several raters, widen it."
        return Finding("masks", "members", "to look at", f"{found} They are all the same.", advice, numbers)
    return Finding("masks", "members", "good", found, numbers=numbers)


def _decided(drawn: Sequence[Float[Tensor, "m k h w"]], num_steps: int) -> Finding:
    clear = float(torch.stack([(2 * probability - 1).abs().mean() for probability in drawn]).mean())
    found = f"Pixels of members are {clear:.1%} decided between background and foreground."
    if not clear >= GREY:
        advice = "Grey members come from too little training" + (", or from few steps." if num_steps < 5 else ".")
        return Finding("masks", "decided", "to look at", found, advice, {"decided": clear})
    return Finding("masks", "decided", "good", found, numbers={"decided": clear})
