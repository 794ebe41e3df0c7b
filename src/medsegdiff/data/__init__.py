"""From what users have on disk to batches on the model grid, and back to the native grid."""

from medsegdiff.data import benchmarks, layouts, phantom  # noqa: F401  (they register themselves)
