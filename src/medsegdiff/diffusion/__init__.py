"""The mathematics of diffusion: schedules, targets and samplers. Knows no image and no network."""
