"""What is made of counted lesions: F1, precision and recall of detection, lesion-wise Dice, panoptic quality."""

from __future__ import annotations

from medsegdiff.metrics.base import LESION_METRICS
from medsegdiff.metrics.lesions import Lesions, share


@LESION_METRICS.register(
    "lesion_f1",
    better="higher",
    definition="2TP / (2TP + FP + FN) over lesions. TP: pairs of a reference and a predicted lesion, one to one, with "
    "an IoU above the threshold; FP, FN: lesions without a partner. No reference 0, no prediction 0, neither: not "
    "defined.",
)
def lesion_f1(lesions: Lesions) -> float:
    """Compute the F1 of detection.

    Args:
        lesions: Counted.

    Returns:
        In [0, 1]; NaN where neither mask holds a lesion.
    """
    return lesions.matching.f1


@LESION_METRICS.register(
    "lesion_precision",
    better="higher",
    definition="TP / (TP + FP), as for lesion_f1. No reference 0, no prediction or neither: not defined.",
)
def lesion_precision(lesions: Lesions) -> float:
    """Compute the share of predicted lesions that have a partner.

    Args:
        lesions: Counted.

    Returns:
        In [0, 1]; NaN where no lesion is predicted.
    """
    return share(lesions.matching.tp, lesions.matching.tp + lesions.matching.fp)


@LESION_METRICS.register(
    "lesion_recall",
    better="higher",
    definition="TP / (TP + FN), as for lesion_f1. No prediction 0, no reference or neither: not defined.",
)
def lesion_recall(lesions: Lesions) -> float:
    """Compute the share of reference lesions that have a partner, the sensitivity of detection.

    Args:
        lesions: Counted.

    Returns:
        In [0, 1]; NaN where the reference holds no lesion.
    """
    return share(lesions.matching.tp, lesions.matching.tp + lesions.matching.fn)


@LESION_METRICS.register(
    "lesion_dice",
    better="higher",
    definition="Mean over reference lesions of their Dice with all predicted components in reach, together; a lesion "
    "without any adds 0, and so does each predicted component, however small, that is in reach of none (BraTS 2023). "
    "No reference 0, no prediction 0, neither: not defined (BraTS: 1).",
)
def lesion_dice(lesions: Lesions) -> float:
    r"""Compute the lesion-wise Dice of BraTS 2023.

    :math:`\sum_l \mathrm{Dice}(l) / (\mathrm{TP} + \mathrm{FN} + \mathrm{FP})`.
    Reference components whose dilations meet are one lesion. Its Dice is with the union of all predicted components
    that its dilation meets, whole; what is predicted beside all of them is false, of any size. Lesions that are too
    small neither add a Dice nor make what meets them false.

    Source: the evaluation code of BraTS 2023 (github.com/rachitsaluja/BraTS-2023-Metrics), described by Moawad et al.
    (2023), arXiv:2306.00838.

    Args:
        lesions: Counted.

    Returns:
        In [0, 1]; NaN where there is nothing to average.
    """
    return share(lesions.dice, lesions.dice_of)


@LESION_METRICS.register(
    "pq",
    better="higher",
    definition="Panoptic quality, the sum of IoU over pairs / (TP + ½FP + ½FN), pairs with an IoU above ½: SQ·RQ. No "
    "reference 0, no prediction 0, neither: not defined.",
)
def pq(lesions: Lesions) -> float:
    r"""Compute the panoptic quality.

    :math:`\sum_{(p, g)} \mathrm{IoU}(p, g) / (\mathrm{TP} + \tfrac12 \mathrm{FP} + \tfrac12 \mathrm{FN})`.

    Source: Kirillov et al. (2019), arXiv:1801.00868, equation 1, of one structure. They sum over all images first:
    that is the metric of pooled counts.

    Args:
        lesions: Counted.

    Returns:
        In [0, 1]; NaN where neither mask holds a lesion.
    """
    found = lesions.panoptic
    return share(2 * found.iou, 2 * found.tp + found.fp + found.fn)


@LESION_METRICS.register(
    "sq",
    better="higher",
    definition="Segmentation quality: mean IoU of the pairs of pq. Without a pair: not defined.",
)
def sq(lesions: Lesions) -> float:
    """Compute the mean IoU of pairs.

    Source: Kirillov et al. (2019), arXiv:1801.00868, equation 2.

    Args:
        lesions: Counted.

    Returns:
        In (½, 1]; NaN where there is no pair.
    """
    return share(lesions.panoptic.iou, lesions.panoptic.tp)


@LESION_METRICS.register(
    "rq",
    better="higher",
    definition="Recognition quality: F1 of the pairs of pq. No reference 0, no prediction 0, neither: not defined.",
)
def rq(lesions: Lesions) -> float:
    """Compute the F1 of pairs with an IoU above ½.

    Source: Kirillov et al. (2019), arXiv:1801.00868, equation 2.

    Args:
        lesions: Counted.

    Returns:
        In [0, 1]; NaN where neither mask holds a lesion.
    """
    return lesions.panoptic.f1
