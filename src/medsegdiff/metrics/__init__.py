"""Numbers that compare masks, ensembles and probabilities with references, each with its empty cases said aloud."""

from medsegdiff.metrics.base import ENSEMBLE_METRICS, LESION_METRICS, METRICS

METRICS.expect("medsegdiff.metrics.overlap", "dice", "iou", "sensitivity", "specificity", "precision", "volume_error")
METRICS.expect("medsegdiff.metrics.surface", "hd95", "assd", "nsd")
ENSEMBLE_METRICS.expect("medsegdiff.metrics.calibration", "ece", "ece_near", "brier", "nll_near")
ENSEMBLE_METRICS.expect("medsegdiff.metrics.distribution", "ged", "hm_iou", "d_max", "rater_dice", "agreement")
ENSEMBLE_METRICS.expect("medsegdiff.metrics.selective", "aurc", "excess_aurc")
ENSEMBLE_METRICS.expect("medsegdiff.metrics.intervals", "size_crps", "size_covered", "size_width")
LESION_METRICS.expect(
    "medsegdiff.metrics.lesion_scores",
    "lesion_f1",
    "lesion_precision",
    "lesion_recall",
    "lesion_dice",
    "pq",
    "sq",
    "rq",
)
