"""Instances of one structure, a file each: read as one mask, and refused where they contradict each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medsegdiff.config.data import DataConfig
from medsegdiff.data.instances import UnitedReader
from medsegdiff.data.mask_folder import mask_folder
from medsegdiff.data.open import list_cases
from medsegdiff.errors import DataError, GeometryError
from tests.makers import write_png
from tests.trees import write_tree


def test_instances_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    one, other, larger = (tmp_path / f"{name}.png" for name in ("one", "other", "larger"))
    write_png(one, np.full((8, 8), 1, np.uint8))
    write_png(other, np.full((8, 8), 2, np.uint8))
    write_png(larger, np.zeros((9, 9), np.uint8))
    with pytest.raises(DataError, match=r"other\.png: holds another class than .*one\.png"):
        UnitedReader({one: (one, other)}).values(one)
    with pytest.raises(GeometryError, match=r"one\.png is 8×8 but .*larger\.png is 9×9"):
        UnitedReader({one: (one, larger)}).values(one)
    with pytest.raises(GeometryError, match="different shapes"):
        UnitedReader({one: (one, larger)}).geometry(one)
    assert UnitedReader({}).values(one).all()


def test_folders_of_masks_and_columns_may_be_instances(tmp_path: Path) -> None:
    truth = write_tree(tmp_path, {f"images/{i}.png": [f"masks/left/{i}.png", f"masks/right/{i}.png"] for i in range(4)})
    masks = mask_folder(tmp_path / "masks", kind="instances")
    assert (masks.kind, masks.names) == ("flat", [str(i) for i in range(4)])
    assert np.array_equal(masks.stored("2")[0][1] > 0, truth["images/2.png"])
    rows = [f"{i},images/{i}.png,masks/left/{i}.png,masks/right/{i}.png" for i in range(4)]
    (tmp_path / "manifest.csv").write_text("\n".join(["id,image,mask_1,mask_2", *rows]))
    table = list_cases(tmp_path / "manifest.csv", DataConfig(mask_folders="instances")).masks
    assert np.array_equal(table.stored("2")[0][1], masks.stored("2")[0][1])
