"""Where a sampler's steps lie
===========================

Five steps have to be spent well. ``trailing`` spaces them evenly in time, ``logsnr`` evenly in the logarithm of the
signal-to-noise ratio, and ``regions`` where it is decided whether a whole region is there or not.
"""

import matplotlib.pyplot as plt

from medsegdiff.config import load_preset
from medsegdiff.diffusion.schedule import schedule_of
from medsegdiff.diffusion.spacing import table_of

config = load_preset("v2-fast-tiny")
schedule = schedule_of(config.diffusion)
figure, axis = plt.subplots(figsize=(8, 2.6))
for height, spacing in enumerate(("trailing", "logsnr", "regions")):
    table = table_of(config.sampling.model_copy(update={"spacing": spacing, "steps": 5}), schedule)
    axis.plot([row.t for row in table], [height] * len(table), "o-", label=spacing)
axis.set_yticks(range(3), ["trailing", "logsnr", "regions"])
axis.set_xlabel("time t: pure noise on the right")
figure.tight_layout()
