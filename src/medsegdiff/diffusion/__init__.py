"""The mathematics of diffusion: schedules, targets and samplers. Knows no image and no network."""

from medsegdiff.diffusion import ancestral, dpm_solver  # noqa: F401  (they register the samplers)
