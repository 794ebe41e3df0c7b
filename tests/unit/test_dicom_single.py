"""Files that are whole images: frames lie where a series would, pictures are as viewers show them, in all encodings."""

from __future__ import annotations

import base64
import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from highdicom.legacy import LegacyConvertedEnhancedCTImage, LegacyConvertedEnhancedMRImage
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import (
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGLSLossless,
    MRImageStorage,
    RLELossless,
    generate_uid,
)

from medsegdiff.errors import DataError
from medsegdiff.inference.files import segment_files
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.io.dicom import DicomHeader
from medsegdiff.io.dicom_seg import read_segmentation, write_picture_segmentation, write_segmentation
from medsegdiff.io.dicom_single import DicomPicture
from medsegdiff.io.image import is_volume, modality_of, read_geometry, read_image, read_mask
from medsegdiff.io.listing import Reason, is_series, list_images
from medsegdiff.io.rtstruct import read_rtstruct
from medsegdiff.io.rtstruct_writer import write_rtstruct
from medsegdiff.server.limits import Limits
from medsegdiff.server.uploads import receive
from tests.dicom_makers import AXIAL, OBLIQUE, make_picture, make_rtstruct, make_slices, write_dataset, write_slices
from tests.integration.test_volumes import identity
from tests.verified import errors_of

HTJ2K = (
    "|4;u>04YEK0000e0000a00000000000000e0000a0000000000009pH0sl|{2mk^A000XAQUDA90ssL31q1{@0smY86Cj9?kdTm&kdTm&kdTmwh="
    "~7W02crOPjF>!N>E53R%LP^FfKASE;BCwkN^q*00001cmM(alfVEg0Br$9`APgC^a8^)0KfnfKmZef_x=FObO0T8_yB@50KfnfzyKA1RrLcS!gT="
    "uQoqu_^Z)<@ezpL>02QzR1+KI-8ZGVE0w34m3wQwkfB%2~e=EM?E570@{u44lW8wNSxd6Zb7K{J^dH@)PVHk#C*zfQnI(m9=f_eb|fB%2~fB%2~f"
    "B%2~fB%2~fB%2~e@BUef)WKK3Q81|U<i640q>#^9_QEV*Xu9W>(}cq*X!5oFB*($F~0%804=Bh1@th+7-Nhv#u#IaF~<D-e~Nl~dU|?#dT;`M0RM"
    "mgfB%2~fB%2~fB%2~fB%2~fB%2~fB%2~fB%2~fB%2~fB%2~fB%0!fCwN0hyWsh2p|H803v`0AOeU0B7g`W0*C-2fCwN0hydaUKmrJa03e7!0tkcv"
    "Ac#N%8~^|SXaE2JXaE2JXaE2JXaE2JXaE2JXaE2JXsJ@AN|h>9t+)gK*#"
)
"""`PATTERN` as OpenJPH packs it, without loss."""
PATTERN = np.add.outer(np.arange(36) ** 2, np.arange(40) * 20).astype(np.uint16)


CONVERTED = {"CT": LegacyConvertedEnhancedCTImage, "MR": LegacyConvertedEnhancedMRImage}


def slices_of(values: np.ndarray, modality: str, orientation: tuple[float, ...]) -> list[Dataset]:
    """Make slices of a scanner; those of MR have no units, and no slope that would give them some."""
    slices = make_slices(values, orientation=orientation)
    for one in slices if modality == "MR" else ():
        one.SOPClassUID, one.Modality = MRImageStorage, modality
        one.ScanningSequence, one.SequenceVariant, one.ScanOptions, one.MRAcquisitionType = "SE", "NONE", "", "2D"
        del one.RescaleSlope, one.RescaleIntercept
    return slices


def enhanced(folder: Path, slices: list[Dataset]) -> Path:
    """Put a series into one file, as highdicom converts it."""
    folder.mkdir(parents=True)
    for number, one in enumerate(slices, start=1):
        write_dataset(folder / "slice", one)
        slices[number - 1] = dcmread(folder / "slice")
        slices[number - 1].InstanceNumber, slices[number - 1].ImageType = number, ["ORIGINAL", "PRIMARY", "AXIAL"]
        slices[number - 1].Manufacturer = "maker"
    (folder / "slice").unlink()
    shuffled = [slices[k] for k in np.random.default_rng(0).permutation(len(slices))]
    converted = CONVERTED[slices[0].Modality](shuffled, generate_uid(), 1, generate_uid(), 1)
    converted.save_as(folder / "all.dcm")
    return folder / "all.dcm"


@pytest.fixture(params=[(of, lies) for of in CONVERTED for lies in (AXIAL, OBLIQUE)], ids=str)
def both(tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, Path]:
    """The same volume, with padding around it, as a series and as one file whose frames are shuffled."""
    values = np.random.default_rng(0).integers(0, 900, (4, 7, 5))
    values[:, :2] = -2000
    slices = slices_of(values, *request.param)
    for one in slices:
        one.PixelPaddingValue = -2000
    return write_slices(tmp_path / "series", slices), enhanced(tmp_path / "enhanced", slices)


def test_frames_are_read_as_a_series_is(both: tuple[Path, Path]) -> None:
    series, file = both
    expected, where = read_image(series)
    for path in (file, file.parent):
        values, geometry = read_image(path)
        assert np.array_equal(values, expected)
        assert (geometry.shape, geometry.spacing) == (where.shape, where.spacing)
        assert np.allclose(geometry.affine, where.affine, atol=1e-4)
        assert modality_of(geometry) == modality_of(where) == dcmread(file).Modality
        assert read_geometry(path)[0].shape == where.shape
        assert is_volume(path)


def test_masks_refer_to_frames(both: tuple[Path, Path], tmp_path: Path) -> None:
    _, geometry = read_image(both[1])
    assert isinstance(geometry.header, DicomHeader)
    masks = (np.random.default_rng(1).random((2, 5, 7, 4)) < 0.4).astype(np.uint8)
    write_segmentation(tmp_path / "seg.dcm", masks, geometry=geometry, labels=("a", "b"))
    assert np.array_equal(read_segmentation(tmp_path / "seg.dcm", geometry)[1], masks)
    write_rtstruct(tmp_path / "rt.dcm", masks, geometry=geometry, labels=("a", "b"), colours=[(1, 2, 3)] * 2)
    assert np.array_equal(read_rtstruct(tmp_path / "rt.dcm", geometry)[1], masks)
    (uid,) = {dcmread(both[1]).SOPInstanceUID}
    for contour in dcmread(tmp_path / "rt.dcm").ROIContourSequence[0].ContourSequence:
        image = contour.ContourImageSequence[0]
        frame = dcmread(both[1]).PerFrameFunctionalGroupsSequence[image.ReferencedFrameNumber - 1]
        away = np.array(contour.ContourData[:3], float) - np.array(frame.PlanePositionSequence[0].ImagePositionPatient)
        shared = dcmread(both[1]).SharedFunctionalGroupsSequence[0]
        turned = (frame if "PlaneOrientationSequence" in frame else shared).PlaneOrientationSequence[0]
        across, down = np.array(turned.ImageOrientationPatient, float).reshape(2, 3)
        assert abs(away @ np.cross(across, down)) < 1e-3
        assert image.ReferencedSOPInstanceUID == uid
    assert errors_of(tmp_path / "seg.dcm") == errors_of(tmp_path / "rt.dcm") == []


def test_a_picture_is_the_share_of_white(tmp_path: Path) -> None:
    stored = PATTERN
    signed = (stored.astype(np.int16) - 500).astype(np.int16)
    for name, dataset, expected in (
        ("plain", make_picture(stored), stored / 65535),
        ("twelve", make_picture(stored, BitsStored=12, HighBit=11), stored / 4095),
        ("turned", make_picture(stored, PhotometricInterpretation="MONOCHROME1"), 1 - stored / 65535),
        ("signed", make_picture(signed), (signed + 32768.0) / 65535),
        ("window", make_picture(stored, WindowCenter=400.5, WindowWidth=201), np.clip((stored - 300.0) / 200, 0, 1)),
        (
            "both",
            make_picture(stored, WindowCenter=400.5, WindowWidth=201, PhotometricInterpretation="MONOCHROME1"),
            1 - np.clip((stored - 300.0) / 200, 0, 1),
        ),
    ):
        path = write_dataset(tmp_path / f"{name}.dcm", dataset)
        image, geometry = read_image(path)
        assert np.allclose(image, expected[None], atol=2e-6), name
        assert (geometry.shape, geometry.spacing, geometry.affine) == ((36, 40), (1.0, 1.0), None)
        assert read_geometry(path)[1] == 1
        assert not is_volume(path)


def test_colours_are_read_as_such(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (36, 40, 3), dtype=np.uint8)
    colour = make_picture(rgb, SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="RGB")
    image, _ = read_image(write_dataset(tmp_path / "rgb.dcm", colour))
    assert np.allclose(image, rgb.transpose(2, 0, 1) / 255, atol=1e-6)
    assert read_geometry(tmp_path / "rgb.dcm")[1] == 3
    table = np.arange(768, dtype=np.uint16).reshape(3, 256)[:, ::-1] * 85
    palette = make_picture(rgb[..., 0], PhotometricInterpretation="PALETTE COLOR")
    for name, of in zip(("Red", "Green", "Blue"), table, strict=True):
        setattr(palette, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(palette, f"{name}PaletteColorLookupTableData", of.tobytes())
    image, _ = read_image(write_dataset(tmp_path / "palette.dcm", palette))
    assert np.allclose(image, table[:, rgb[..., 0]] / 65535, atol=1e-6)
    assert read_geometry(tmp_path / "palette.dcm")[1] == 3
    colour.PhotometricInterpretation = "YBR_FULL"
    image, _ = read_image(write_dataset(tmp_path / "ybr.dcm", colour))
    y, cb, cr = np.moveaxis(rgb.astype(float), 2, 0) - np.array([0, 128, 128])[:, None, None]
    expected = np.clip([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 0, 255) / 255
    assert np.abs(image - expected).max() < 1.01 / 255


def packed(path: Path, syntax: str, tmp_path: Path) -> Path:
    """Write a picture in another encoding."""
    dataset = dcmread(path)
    if syntax in ("JPEGLossless", "JPEGLosslessSV1"):
        if shutil.which("dcmcjpeg") is None:
            pytest.skip("dcmcjpeg is not installed (Debian: dcmtk)")
        option = "+e1" if syntax == "JPEGLosslessSV1" else "+el"
        subprocess.run(["dcmcjpeg", option, str(path), str(tmp_path / "packed.dcm")], check=True)
    elif syntax == "HTJ2KLossless":
        dataset.PixelData = encapsulate([base64.b85decode(HTJ2K)])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = HTJ2KLossless
        dataset.save_as(tmp_path / "packed.dcm")
    else:
        known = {"RLELossless": RLELossless, "JPEGLSLossless": JPEGLSLossless, "JPEG2000Lossless": JPEG2000Lossless}
        dataset.compress(known[syntax])
        dataset.save_as(tmp_path / "packed.dcm")
    return tmp_path / "packed.dcm"


@pytest.mark.parametrize(
    "syntax", ["RLELossless", "JPEGLSLossless", "JPEG2000Lossless", "HTJ2KLossless", "JPEGLossless", "JPEGLosslessSV1"]
)
def test_all_usual_encodings_are_read(tmp_path: Path, syntax: str) -> None:
    plain = write_dataset(tmp_path / "plain.dcm", make_picture(PATTERN))
    path = packed(plain, syntax, tmp_path)
    assert dcmread(path).file_meta.TransferSyntaxUID.is_compressed
    assert np.array_equal(read_image(path)[0], read_image(plain)[0])
    (one,) = make_slices(PATTERN[None].astype(np.int16))
    one.PixelRepresentation = 0
    series = write_slices(tmp_path / "series", [one])
    (file,) = series.iterdir()
    shutil.copy(packed(file, syntax, tmp_path), file)
    assert np.array_equal(read_image(series)[0][0, :, :, 0], PATTERN.T.astype(np.float32) * 2 - 1024)
    assert np.array_equal(pixel_array(file), PATTERN)


def test_a_broken_one_says_what_may_help_and_names_no_package_by_itself(tmp_path: Path) -> None:
    path = packed(write_dataset(tmp_path / "plain.dcm", make_picture(PATTERN)), "JPEG2000Lossless", tmp_path)
    path.write_bytes(path.read_bytes()[:-200] + bytes(200))
    with pytest.raises(
        DataError, match=r"packed\.dcm: its pixels can't be read.*pip install 'medsegdiff\[dicom\]'"
    ) as error:
        read_image(path)
    assert "pylibjpeg" not in str(error.value).split("Copy or")[1]


def test_what_is_no_whole_image_is_named(tmp_path: Path) -> None:
    (one,) = make_slices(PATTERN[None])
    clip = make_picture(np.stack([PATTERN, PATTERN])[0], NumberOfFrames=2, PixelData=PATTERN.tobytes() * 2)
    for name, dataset, words in (
        ("slice", one, "is a slice of a series. Give the folder"),
        ("clip", clip, "is a clip of 2 frames without places"),
        ("rt", make_rtstruct({}), "without an image of the patient"),
    ):
        path = write_dataset(tmp_path / f"{name}.dcm", dataset)
        with pytest.raises(DataError, match=words):
            read_image(path)
    twice = tmp_path / "twice"
    twice.mkdir()
    for name in "ab":
        write_dataset(twice / f"{name}.dcm", make_picture(PATTERN))
    with pytest.raises(DataError, match=r"a\.dcm is a whole image, and so may be b\.dcm"):
        read_image(twice)


CAPTURE = "1.2.840.10008.5.1.4.1.1.7"


@pytest.mark.parametrize("names", [("0000.dcm", "0001.dcm"), ("zz0.dcm", "zz1.dcm")])
def test_what_lies_beside_a_volume_does_not_hide_it_whatever_it_is_called(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    values = np.random.default_rng(0).integers(0, 900, (4, 7, 5))
    series = write_slices(tmp_path / "series", slices_of(values, "CT", AXIAL))
    frames = enhanced(tmp_path / "frames", slices_of(values, "CT", AXIAL)).parent
    for folder in (series, frames):
        alone, where = read_image(folder)
        for others in (
            [make_picture(PATTERN, kind=CAPTURE), make_picture(PATTERN, kind=f"{CAPTURE}.4")],
            [make_rtstruct({}), make_picture(PATTERN, kind=CAPTURE)],
        ):
            for name, other in zip(names, others, strict=True):
                write_dataset(folder / name, other)
            assert np.array_equal(read_image(folder)[0], alone)
            assert read_geometry(folder)[0].shape == where.shape
            assert is_volume(folder)
            assert is_series(folder)


def test_captures_are_pictures_where_there_is_no_volume(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a.dcm", make_picture(PATTERN, kind=CAPTURE))
    write_dataset(tmp_path / "rt.dcm", make_rtstruct({}))
    assert read_image(tmp_path)[0].shape == (1, 36, 40)
    write_dataset(tmp_path / "b.dcm", make_picture(PATTERN, kind=CAPTURE))
    assert not is_series(tmp_path)
    assert [path.name for path in list_images(tmp_path).images] == ["a.dcm", "b.dcm"]
    with pytest.raises(DataError, match=r"a\.dcm is a whole image, and so may be b\.dcm"):
        read_image(tmp_path)
    write_dataset(tmp_path / "a.dcm", make_picture(PATTERN))
    assert [path.name for path in list_images(tmp_path).images] == ["a.dcm", "b.dcm"]


def test_a_folder_of_pictures_is_several_images(tmp_path: Path) -> None:
    folder = tmp_path / "all"
    folder.mkdir()
    for name in ("a.dcm", "b", "c.ima"):
        write_dataset(folder / name, make_picture(PATTERN))
    write_dataset(folder / "rt.dcm", make_rtstruct({}))
    (folder / "broken.dcm").write_bytes(b"nothing")
    held = list_images(folder)
    assert [path.name for path in held.images] == ["a.dcm", "b", "c.ima"]
    assert {entry.reason for entry in held.left_out} == {Reason.SLICE}
    assert [case.name for case in find_inputs([folder], noted=lambda _: None)] == ["a", "b", "c"]
    assert [case.name for case in find_inputs([folder / "b"])] == ["b"]


def test_pictures_that_are_sent_are_images_of_their_own(tmp_path: Path) -> None:
    write_dataset(tmp_path / "x.dcm", make_picture(PATTERN))
    slices = write_slices(tmp_path / "series", make_slices(np.zeros((3, 6, 5))))
    named = [("x.dcm", tmp_path / "x.dcm"), ("other/x.dcm", tmp_path / "x.dcm")]
    named += [(f"ct/{path.name}", path) for path in slices.iterdir()]
    (tmp_path / "got").mkdir()
    images = receive([(name, BytesIO(path.read_bytes())) for name, path in named], tmp_path / "got", Limits())
    assert sorted(len(list(image.iterdir())) for image in images) == [1, 1, 3]
    assert all(read_geometry(image) for image in images)


@pytest.mark.parametrize("colour", [False, True])
def test_a_segmentation_refers_to_its_picture(tmp_path: Path, colour: bool) -> None:
    """Of an X-ray, and of ultrasound in colour."""
    shown = np.stack([PATTERN.astype(np.uint8)] * 3, axis=-1) if colour else PATTERN
    kind = "1.2.840.10008.5.1.4.1.1.6.1" if colour else "1.2.840.10008.5.1.4.1.1.1.1"
    elements = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PhotometricInterpretation": "RGB"}
    elements["Modality"] = "US"
    path = write_dataset(tmp_path / "p.dcm", make_picture(shown, kind=kind, **(elements if colour else {})))
    _, geometry = read_image(path)
    masks = (np.random.default_rng(0).random((2, 36, 40)) < 0.4).astype(np.uint8)
    assert isinstance(geometry.header, DicomPicture)
    source = geometry.header.dataset
    write_picture_segmentation(tmp_path / "seg.dcm", masks, source=source, labels=("disc", "cup"))
    oracle = dcmread(tmp_path / "seg.dcm")
    assert np.array_equal(oracle.pixel_array, masks)
    assert oracle.ReferencedSeriesSequence[0].SeriesInstanceUID == source.SeriesInstanceUID
    assert oracle.StudyInstanceUID == source.StudyInstanceUID
    assert errors_of(tmp_path / "seg.dcm") == []


def test_an_x_ray_is_segmented(tmp_path: Path) -> None:
    bright = np.zeros((16, 16), np.uint16)
    bright[4:9, 5:12] = 60000
    path = write_dataset(tmp_path / "chest.dcm", make_picture(bright))
    segment_files(identity(), find_inputs([path]), tmp_path / "out", members=1, steps=1)
    mask = read_mask(tmp_path / "out" / "masks" / "chest.png")
    assert np.array_equal(dcmread(tmp_path / "out" / "dicom-seg" / "chest.dcm").pixel_array, mask > 0)
