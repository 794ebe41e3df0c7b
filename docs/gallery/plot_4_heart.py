"""A heart at two phases, with a model that came along
====================================================

``pip install ./models``, in a checkout, brings ``heart-lv``, which segments the blood pool of the left ventricle in
short-axis cine MR, and some slices to try it on, of patients that it has not learned from. Of each there is the end of
systole and the end of diastole: two areas, each with an interval, from which the change of area follows, with an
interval too.
"""

import json

import matplotlib.pyplot as plt

from medsegdiff import Segmenter
from medsegdiff.hub.installed import installed_model

model = installed_model("heart-lv")
examples = model.folder / "examples"
patients = {name: cases for name, cases in json.loads((examples / "patients.json").read_text()).items() if cases}
segmenter = Segmenter.from_pretrained("heart-lv", device="cpu")
results = {
    case: segmenter(examples / "images" / f"{case}.png", seed=0) for cases in patients.values() for case in cases
}

# %%
# The members as thin lines, the mask as a thick one; beside it how often the members draw a pixel.

figure, rows = plt.subplots(len(patients), 4, figsize=(9, 2.3 * len(patients)))
for row, cases in zip(rows, patients.values(), strict=True):
    for places, case in zip((row[:2], row[2:]), cases, strict=True):
        result = results[case]
        picture = plt.imread(examples / "images" / f"{case}.png")
        size = result.sizes()["left ventricle"]
        for place in places:
            place.imshow(picture, cmap="gray")
            place.set_axis_off()
        for member in result.members:
            places[0].contour(member, levels=[0.5], colors="tab:orange", linewidths=0.4)
        places[0].contour(result.mask, levels=[0.5], colors="tab:red", linewidths=1)
        places[1].imshow(result.members.mean(axis=0), alpha=0.6)
        places[0].set_title(f"{case}: {size.mean:.0f} [{size.low:.0f}, {size.high:.0f}] px", fontsize=7)
figure.tight_layout()

# %%
# The change of area between the phases. Where both intervals hold the true areas, and each does in nine cases of ten,
# the change lies between the extremes.

for patient, cases in patients.items():
    small, large = sorted((results[case].sizes()["left ventricle"] for case in cases), key=lambda size: size.mean)
    low, high = 1 - small.high / large.low, 1 - small.low / large.high
    print(f"{patient}: area shrinks by {1 - small.mean / large.mean:.0%} [{low:.0%}, {high:.0%}]")
