"""Results as the page is told of them, and the server of one folder: what it gives, takes and refuses."""

from __future__ import annotations

import http.client
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medsegdiff.errors import ConfigError, DataError
from medsegdiff.inference.case_record import CaseRecord, InputFile, record_file
from medsegdiff.inference.inputs import find_inputs
from medsegdiff.inference.record import Settings
from medsegdiff.io.image import read_mask
from medsegdiff.labels import Labels
from medsegdiff.server.images import image_of
from medsegdiff.server.local import LocalServer
from medsegdiff.server.results import Results
from tests.program import call
from tests.shown import EYE, segmentation, shown

NAME = "left eye #1"


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    out, images = shown(
        tmp_path_factory.mktemp("shown"), segmentation(NAME, (24, 30), EYE), segmentation("s", (6, 5, 4), EYE)
    )
    return Results(out, {case.name: case for case in find_inputs([images])})


@pytest.fixture(scope="module")
def server(results: Results) -> Iterator[LocalServer]:
    with LocalServer(results) as opened:
        threading.Thread(target=opened.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        yield opened
        opened.shutdown()


def asked(
    server: LocalServer, path: str, *, method: str = "GET", body: bytes | None = None, host: str = ""
) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection(*server.server_address[:2], timeout=20)) as connection:
        connection.request(method, path, body, {"Host": host} if host else {})
        answer = connection.getresponse()
        return answer.status, answer.read()


def test_all_of_a_case_is_told_with_addresses_that_lead_to_its_files(server: LocalServer, results: Results) -> None:
    status, body = asked(server, "/api/v1/results/cases/left%20eye%20%231")
    case = json.loads(body)
    assert (status, case["kind"], case["shape"], case["unit"]) == (200, "picture", [24, 30], "px")
    assert list(case["probability"]) == ["disc", "cup"]
    assert case["absent"] == {}
    told = [case["fused"], case["anchor"], *case["members"]]
    assert len(told) == 7
    for masks in told:
        status, body = asked(server, f"/api/v1/results/{masks['labels']}")
        assert status == 200
        assert np.asarray(Image.open(io.BytesIO(body))).max() == 2
    status, body = asked(server, f"/api/v1/results/{case['downloads'][-1]['href']}")
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        assert archive.testzip() is None
        assert {f"labels/{NAME}.png", f"members/04/masks/cup/{NAME}.png", f"probability/disc/{NAME}.png"} <= {
            *archive.namelist()
        }


def test_what_was_not_written_is_told_with_the_option_that_writes_it(tmp_path: Path) -> None:
    out, _ = shown(tmp_path, segmentation("a", (16, 16)), parts=("masks",))
    case = Results(out).case("a")
    assert {part for part, why in case.absent.items() if "--" in why} == {
        "members", "probability", "uncertainty", "anchor", "image",
    }  # fmt: skip
    assert case.fused.structures == {"lesion": "files/masks/a.png"}


def test_the_command_that_repeats_results_names_no_folders(results: Results) -> None:
    command = results.case("s").command
    assert command.startswith("medsegdiff segment s.nii.gz --model eyes --out OUT --members 5 --steps 20")


@pytest.mark.parametrize(
    "address",
    [
        "segment.json",
        "../images/s.nii.gz",
        "labels/../segment.json",
        "labels//s.nii.gz",
        "labels",
        "labels/itk-snap.txt",
        "/etc/passwd",
        "",
    ],
)
def test_no_other_file_is_given(results: Results, address: str) -> None:
    with pytest.raises(DataError):
        results.places.given(address)


def test_a_link_that_leads_out_of_the_results_is_not_followed(tmp_path: Path) -> None:
    out, images = shown(tmp_path, segmentation("a", (16, 16)))
    (out / "labels" / "b.png").symlink_to(images / "a.png")
    with pytest.raises(DataError):
        Results(out).places.given("labels/b.png")


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/api/v1/results/cases/nobody", b"no case"),
        ("/page.py", b"no such"),
        ("/../../pyproject.toml", b"no such"),
        ("/api/v2", b"no such"),
    ],
)
def test_what_is_not_there_is_404_in_words(server: LocalServer, path: str, words: bytes) -> None:
    status, body = asked(server, path)
    assert status == 404
    assert words in body


def test_pages_of_other_hosts_get_nothing(server: LocalServer) -> None:
    assert asked(server, "/api/v1/results/", host="evil.example:80")[0] == 404
    assert asked(server, "/api/v1/results/")[0] == 200


def test_corrected_masks_of_a_volume_lie_on_its_grid(server: LocalServer, results: Results) -> None:
    """The first axis of a NIfTI file runs fastest."""
    label_map = np.zeros((6, 5, 4), np.uint8)
    label_map[1, 2, 3], label_map[5, 0, 0] = 1, 2
    path = "/api/v1/results/references/s"
    assert asked(server, path, method="PUT", body=label_map.tobytes(order="F"))[0] == 200
    for number, structure in enumerate(("disc", "cup"), start=1):
        file = results.root / "references" / "masks" / structure / "s.nii.gz"
        assert np.array_equal(read_mask(file), label_map == number)
        assert np.allclose(nib.load(file).affine, np.diag([-1.5, 1.5, 3, 1]))
    reference = results.case("s").reference
    assert reference is not None
    assert [*reference.structures] == ["disc", "cup"]
    for wrong in (label_map.tobytes()[1:], (label_map + 2).tobytes()):
        status, body = asked(server, path, method="PUT", body=wrong)
        assert status == 404
        assert b"expected" in body or b"allowed" in body


@pytest.mark.parametrize("version", ["of today", "earlier"])
def test_images_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    out, _ = shown(tmp_path / "work", segmentation("a", (24, 30)))
    monkeypatch.chdir(tmp_path / "work")
    image = InputFile.of(Path("images/a.png"))
    image = image if version == "of today" else image.model_copy(update={"folder": ""})
    record = record_file(out, "a")
    record.parent.mkdir(parents=True)
    record.write_text(CaseRecord(name="a", settings=Settings(), inputs=(image,)).model_dump_json())
    monkeypatch.chdir("/")
    assert Results(out).image("a").images == (tmp_path / "work" / "images" / "a.png",)
    (tmp_path / "work").rename(tmp_path / "moved")
    assert Results(tmp_path / "moved" / "results").image("a").images[0].is_file()
    (tmp_path / "moved" / "images" / "a.png").write_bytes(b"another")
    with pytest.raises(DataError, match="image"):
        Results(tmp_path / "moved" / "results").image("a")


def test_images_reach_the_browser_with_all_their_bits(results: Results) -> None:
    picture, volume = image_of(results.image(NAME)), image_of(results.image("s"))
    assert isinstance(picture.content, bytes)
    decoded = np.asarray(Image.open(io.BytesIO(picture.content)))
    assert (decoded.dtype, decoded.min(), decoded.max()) == (np.uint16, 0, 65535)
    assert volume.content == results.image("s").images[0]


def test_the_page_asks_nobody_else(server: LocalServer) -> None:
    with closing(http.client.HTTPConnection(*server.server_address[:2], timeout=20)) as connection:
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert b"research software" in answer.read().lower()
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "http" not in policy


def test_view_wants_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("view", tmp_path, "--no-browser") == 2
    assert "holds no results" in capsys.readouterr().err
    with pytest.raises(ConfigError):
        Results(tmp_path)


def test_regions_that_overlap_are_planes(tmp_path: Path) -> None:
    one = segmentation("a", (8, 8))
    both = np.stack([one.mask, one.members[0]])
    shares = both.astype(np.float32)
    regions = Labels("regions", ("whole", "core"))
    drawn = replace(one, labels=regions, mask=both, members=np.stack([both, both]), probability=shares, anchor=None)
    results = Results(shown(tmp_path, drawn, parts=("masks",))[0])
    assert [*results.case("a").fused.structures] == ["whole", "core"]
    results.correct("a", both.tobytes())
    assert np.array_equal(read_mask(results.root / "references/masks/core/a.png") > 0, both[1] > 0)
