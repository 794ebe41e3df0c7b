"""Cleaning masks: by hand, drawn as text, and what a user may ask."""

from __future__ import annotations

import numpy as np
import pytest

from medsegdiff.config.cleaning import Cleaning, by_structure, read_cleaning
from medsegdiff.errors import ConfigError, DataError
from medsegdiff.inference.cleaning import clean
from medsegdiff.io.atomic import make_room
from medsegdiff.labels import Labels
from medsegdiff.types import Geometry
from tests.volumes import oblique

BINARY = Labels("binary", ("lesion",))
CLASSES = Labels("exclusive", ("background", "a", "b"))
REGIONS = Labels("regions", ("disc", "cup"))


def drawn(text: str) -> np.ndarray:
    """Read a label map: a row a line, a digit a pixel, dots are background."""
    return np.array([[0 if c == "." else int(c) for c in row] for row in text.split()], np.uint8)


def cleaned(
    label_map: np.ndarray, labels: Labels, geometry: Geometry | None = None, **asked: Cleaning | dict[str, Cleaning]
) -> np.ndarray:
    own, picture = label_map.copy(), Geometry(label_map.shape[-2:], (1.0, 1.0))
    clean(own, labels, by_structure(asked["how"], labels.structures), geometry or picture)
    return own


def test_the_largest_component_is_kept_and_corners_connect() -> None:
    before = drawn("11... .11.1 ...11 ..... 11111 11111")
    assert np.array_equal(
        cleaned(before, BINARY, how=Cleaning(keep="largest")), drawn("..... ..... ..... ..... 11111 11111")
    )
    corners = drawn("1.1.1. .1.1.1 ...... 111... 11....")
    assert np.array_equal(
        cleaned(corners, BINARY, how=Cleaning(keep="largest")), drawn("1.1.1. .1.1.1 ...... ...... ......")
    )


@pytest.mark.parametrize("order", ["C", "F"])
def test_of_components_of_one_size_the_first_is_kept_however_the_array_lies(order: str) -> None:
    before = np.array(drawn(".... ..11 .... 11.. ...."), order=order)
    clean(before, BINARY, {"lesion": Cleaning(keep="largest")}, Geometry(before.shape, (1.0, 1.0)))
    assert np.array_equal(before, drawn(".... ..11 .... .... ...."))


def test_smaller_components_are_removed_and_those_of_that_size_stay() -> None:
    before = drawn("11..1 1.... ...11 11.11 11...")
    assert np.array_equal(
        cleaned(before, BINARY, how=Cleaning(remove_below="4px")), drawn("..... ..... ...11 11.11 11...")
    )
    assert not cleaned(before, BINARY, how=Cleaning(remove_below="5px")).any()


@pytest.mark.parametrize(
    ("asked", "voxels"), [("3mm3", 3), ("0.003 mL", 3), ("2.9mm³", 3), ("3.1mm3", 4), ("3px", 3), (".004ml", 4)]
)
def test_sizes_of_a_volume_are_those_of_its_oblique_grid(asked: str, voxels: int) -> None:
    affine = oblique((0.5, 0.8, 2.5))  # 1 mm³ a voxel
    lines = np.zeros((9, 7, 6), np.uint8)
    for length in range(1, 5):
        lines[2 * length, :length, 1] = 1
    found = cleaned(lines, BINARY, Geometry(lines.shape, (0.5, 0.8, 2.5), affine), how=Cleaning(remove_below=asked))
    assert [int(line.sum()) for line in found[::2, :, 1]] == [0, *(n if n >= voxels else 0 for n in range(1, 5))]


def test_square_millimetres_are_for_pictures_whose_spacing_is_known() -> None:
    before, how = drawn("11... .1... ...11 ....."), Cleaning(remove_below="0.7mm2")
    known = Geometry(before.shape, (0.5, 0.5))
    assert np.array_equal(cleaned(before, BINARY, known, how=how), drawn("11... .1... ..... ....."))
    with pytest.raises(DataError, match="remove_below is 0.7 mm2, and the image is a picture whose spacing is not kn"):
        cleaned(before, BINARY, how=how)
    with pytest.raises(DataError, match="is 1 mL, and the image is a picture; allowed are px, mm2"):
        cleaned(before, BINARY, known, how=Cleaning(remove_below="1ml"))


def test_holes_are_filled_where_sides_enclose_them_and_the_border_is_open() -> None:
    before = drawn(".111.... 1..11.11 1.1.1.1. .111..11 ........")
    assert np.array_equal(
        cleaned(before, BINARY, how=Cleaning(fill_holes=True)),
        drawn(".111.... 11111.11 11111.1. .111..11 ........"),
    )


def test_a_removed_island_leaves_background_and_other_classes_as_they_are() -> None:
    before = drawn("1111..2 1221..2 1111..2 ......2 11....2")
    assert np.array_equal(
        cleaned(before, CLASSES, how={"a": Cleaning(keep="largest"), "b": Cleaning(keep="largest")}),
        drawn("1111..2 1..1..2 1111..2 ......2 ......2"),
    )
    assert np.array_equal(
        cleaned(before, CLASSES, how={"a": Cleaning(keep="largest")}), drawn("1111..2 1221..2 1111..2 ......2 ......2")
    )


def test_holes_are_filled_only_where_background_was_after_islands_went() -> None:
    before = drawn("11111 12..1 1...1 11111 22222 22222")
    assert np.array_equal(
        cleaned(before, CLASSES, how={"a": Cleaning(fill_holes=True)}), drawn("11111 12111 11111 11111 22222 22222")
    )
    both = {"a": Cleaning(fill_holes=True), "b": Cleaning(keep="largest")}
    assert np.array_equal(cleaned(before, CLASSES, how=both), drawn("11111 11111 11111 11111 22222 22222"))


@pytest.mark.parametrize("ring", ["1.222.1 1.2.2.1 1.222.1", "1..2..1 1.2.2.1 1..2..1"])
@pytest.mark.parametrize("outer", [1, 2])
def test_a_hole_in_a_ring_within_a_ring_belongs_to_the_inner_one(outer: int, ring: str) -> None:
    before = drawn(f"1111111 1.....1 {ring} 1.....1 1111111")
    after = np.where(before == 0, 1, before)
    after[3, 3] = 2
    if outer == 2:
        before, after = (np.array([0, 2, 1], np.uint8)[of] for of in (before, after))  # as the class of index 2
    assert np.array_equal(cleaned(before, CLASSES, how=Cleaning(fill_holes=True)), after)


def test_regions_are_cleaned_each_by_itself() -> None:
    disc, cup = drawn("111.1 1.1.. 111.."), drawn("111.1 1.1.. 111..")
    found = cleaned(
        np.stack([disc, cup]), REGIONS, how={"disc": Cleaning(fill_holes=True), "cup": Cleaning(keep="largest")}
    )
    assert np.array_equal(found, np.stack([drawn("111.1 111.. 111.."), drawn("111.. 1.1.. 111..")]))


@pytest.mark.parametrize("axis", range(3))
def test_a_volume_of_one_slice_has_the_holes_of_a_picture_and_others_closed_cavities_alone(axis: int) -> None:
    ring = drawn("111. 1.1. 111. ....")
    one = np.expand_dims(ring, axis)
    geometry = Geometry(one.shape, (1.0, 1.0, 1.0), np.eye(4))
    assert cleaned(one, BINARY, geometry, how=Cleaning(fill_holes=True)).sum() == 9
    tube = np.concatenate([one] * 3, axis=axis)
    geometry = Geometry(tube.shape, (1.0, 1.0, 1.0), np.eye(4))
    assert np.array_equal(cleaned(tube, BINARY, geometry, how=Cleaning(fill_holes=True)), tube)
    closed = tube.copy()
    np.moveaxis(closed, axis, 0)[::2, 1, 1] = 1
    assert cleaned(closed, BINARY, geometry, how=Cleaning(fill_holes=True)).sum() == 27


@pytest.mark.parametrize("labels", [CLASSES, REGIONS])
def test_a_map_in_a_file_is_cleaned_where_it_lies_as_one_in_memory(labels: Labels) -> None:
    lead = (2,) if labels.task == "regions" else ()
    shape, rng = (12, 9, 10), np.random.default_rng(0)
    room = make_room((*lead, *shape), np.dtype(np.uint8), outer=len(lead) + 2)
    room[..., 1:-1, 2:-1, 2:-3] = rng.integers(0, 2 if lead else 3, (*lead, 10, 6, 5)) * (rng.random((10, 6, 5)) < 0.3)
    asked = {name: Cleaning(keep="largest", remove_below="2px", fill_holes=True) for name in labels.structures}
    geometry = Geometry(shape, (1.0, 1.0, 1.0), np.eye(4))
    expected, before = cleaned(np.array(room), labels, geometry, how=asked), np.array(room)
    clean(room, labels, asked, geometry)
    assert np.array_equal(room, expected)
    assert not np.array_equal(room, before)


def test_an_empty_map_and_one_of_which_nothing_stays() -> None:
    how = Cleaning(keep="largest", remove_below="3px", fill_holes=True)
    assert not cleaned(np.zeros((5, 6), np.uint8), CLASSES, how=how).any()
    assert not cleaned(drawn("11.. ..22 ...."), CLASSES, how=how).any()


def test_what_is_asked_of_one_structure_goes_before_what_is_asked_of_all() -> None:
    found = read_cleaning(
        ("disc", "cup"), keep=["cup=all", "largest"], remove_below=["50mm3", "cup=2 ML"], fill_holes=["disc=yes"]
    )
    assert found == {
        "disc": Cleaning(keep="largest", remove_below="50 mm3", fill_holes=True),
        "cup": Cleaning(remove_below="2mL"),
    }
    assert str(found["disc"]) == "components below 50 mm3 removed, largest component kept, holes filled"
    assert read_cleaning(("disc", "cup"), keep=["disc=all"], remove_below=[], fill_holes=[]) == {}


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"keep": ["larges"]}, r"keep is 'larges'; allowed are largest and all. Did you mean 'largest'\?"),
        ({"keep": ["dics=largest"]}, r"no structure 'dics' to clean; the model draws disc, cup. Did you mean 'disc'\?"),
        ({"remove_below": ["50"]}, "remove_below is '50'; expected is a number with its unit, px, mm2, mm3, mL"),
        ({"remove_below": ["cup=-1mm3"]}, "remove_below is '-1mm3'"),
        ({"remove_below": ["3 miles"]}, "remove_below is '3 miles'"),
    ],
)
def test_what_can_not_be_cleaned_is_said(asked: dict[str, list[str]], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_cleaning(("disc", "cup"), **{"keep": [], "remove_below": [], "fill_holes": [], **asked})
    with pytest.raises(ConfigError, match="no structure 'cut'"):
        by_structure({"cut": Cleaning(keep="largest")}, ("disc", "cup"))
