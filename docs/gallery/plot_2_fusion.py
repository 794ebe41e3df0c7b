"""Ten masks become one
====================

Ten masks of one lesion, and what is made of them by asking that so many agree. The law by which raters draw the phantom
is known, so that what each choice is worth *on average* can be computed, and is not only guessed from a few raters.
"""

import matplotlib.pyplot as plt
import numpy as np

from medsegdiff.data.phantom import make_lesion
from medsegdiff.metrics.pairs import dice_of, intersections

lesion = make_lesion(64, 38)
rng = np.random.default_rng(1)
members = np.concatenate([lesion.raters(rng) for _ in range(2)])
masks, weights = lesion.distribution()


def expected_dice(mask):
    """Average Dice with the masks that raters draw, by how probable each is."""
    together = np.concatenate([mask[None], masks])
    return float(dice_of(intersections(together, together))[0, 1:] @ weights)


# %%
# A vote at every threshold. Half of the votes is the majority; of this lesion fewer are better, of others more.

thresholds = np.arange(1, 11) / 10
curve = [expected_dice(members.mean(axis=0) >= threshold - 1e-9) for threshold in thresholds]
best = int(np.argmax(curve))
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
left.plot(thresholds, curve, marker="o")
left.set_xlabel("share of the ten masks that must agree")
left.set_ylabel("expected Dice with a rater")
right.imshow(members.mean(axis=0), cmap="viridis")
right.contour(members.mean(axis=0) >= thresholds[best] - 1e-9, levels=[0.5], colors="white")
right.set_title(f"votes, and the mask of {thresholds[best]:.0%}", fontsize=9)
right.set_axis_off()
figure.tight_layout()
print("majority:", round(curve[4], 4), " best threshold:", round(curve[best], 4))
