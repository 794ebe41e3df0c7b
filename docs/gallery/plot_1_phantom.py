"""The phantom: raters who differ
==============================

Each lesion has a core that everybody draws, and a rim and a satellite that only some draw. How probable each is
follows from the picture, so that a network can learn it, and what raters do is known exactly: a truth to hold members
against.
"""

import matplotlib.pyplot as plt
import numpy as np

from medsegdiff.data.phantom import make_lesion

figure, rows = plt.subplots(2, 7, figsize=(11, 3.6))
for row, seed in zip(rows, (3, 8), strict=True):
    lesion = make_lesion(96, seed)
    raters = lesion.raters(np.random.default_rng(0))
    shown = [lesion.image[0], *raters, lesion.probability()]
    for place, picture, name in zip(
        row, shown, ["image", *(f"rater {n}" for n in range(1, 6)), "probability"], strict=True
    ):
        place.imshow(picture, cmap="gray" if name == "image" else "viridis", vmin=0, vmax=1)
        place.set_title(name, fontsize=9)
        place.set_axis_off()
figure.tight_layout()

# %%
# The share of many raters who draw a pixel is that probability.

lesion, rng = make_lesion(96, 3), np.random.default_rng(0)
share = np.concatenate([lesion.raters(rng) for _ in range(200)]).mean(axis=0)
print("largest difference after 1000 masks:", round(float(np.abs(share - lesion.probability()).max()), 3))
