"""A real PACS and us: what comes goes back as segments, report and maps; once, whoever is killed or calls twice."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK
from dicomweb_client.api import DICOMwebClient
from pydicom import dcmread
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless
from pynetdicom import AE
from starlette.testclient import TestClient

from medsegdiff.errors import ConfigError
from medsegdiff.io.dicom import read_series
from medsegdiff.io.dicom_seg import read_segmentation
from medsegdiff.server.app import make_app
from medsegdiff.server.dispatch import Dispatch, Model
from medsegdiff.server.jobs import JobFolder
from medsegdiff.server.limits import Limits
from medsegdiff.server.pacs.archive import Archive, read_query
from medsegdiff.server.pacs.inbox import Inbox
from medsegdiff.server.pacs.node import Address, run_node
from medsegdiff.server.pacs.peers import DeliveryError, Peer, Sender
from medsegdiff.server.pacs.processing import Processing
from medsegdiff.server.pacs.watch import watch
from medsegdiff.server.tokens import Tokens
from tests import receiving, stub_worker
from tests.dicom_makers import make_picture, make_slices, write_dataset, write_slices
from tests.integration.test_volumes import identity
from tests.orthanc import Orthanc, dcmtk, free_port, needed, orthanc, until
from tests.program import call
from tests.shown import EYE, segmentation, shown
from tests.verified import errors_of

QUIET = 0.6
NODE_PORT = free_port()
Node = Callable[..., AbstractContextManager[None]]


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    needed()
    with orthanc(tmp_path_factory.mktemp("orthanc"), {"NODE": NODE_PORT}) as started:
        yield started


@pytest.fixture
def series(tmp_path: Path) -> tuple[Path, np.ndarray]:
    values = (np.random.default_rng(0).random((4, 9, 8)) > 0.5).astype(np.uint16)
    values[:, 0] = 0  # some corners, as a volume has them
    return write_slices(tmp_path / "series", make_slices(values)), values


@pytest.fixture
def node(tmp_path: Path) -> Node:
    @contextmanager
    def running(*targets: Any, allowed: tuple[str, ...] = ("SCANNER", "ORTHANC")) -> Iterator[None]:
        stop, listens = threading.Event(), threading.Event()
        address = Address("NODE", "127.0.0.1", NODE_PORT, allowed)
        options = {"quiet": QUIET, "keep": 600.0, "started": lambda _: listens.set(), "stop": stop}
        arguments = (address, processing(*targets), tmp_path / "inbox")
        thread = threading.Thread(target=run_node, args=arguments, kwargs=options, daemon=True)
        thread.start()
        assert listens.wait(30)
        yield
        stop.set()
        thread.join(30)
        assert not thread.is_alive()

    return running


def processing(*targets: Any, **given: Any) -> Processing:
    return Processing(identity(), targets, options={"members": 2, "steps": 1}, **given)


def send(folder: Path, port: int = NODE_PORT, title: str = "NODE") -> None:
    dcmtk("storescu", "-aet", "SCANNER", "-aec", title, "127.0.0.1", port, *sorted(folder.iterdir()))


def ended(inbox: Path, count: int = 1) -> list[str]:
    """Wait until series have ended."""
    found = until(lambda: len(done := [of.done for of in Inbox(inbox).all() if of.done]) >= count and done)
    return [of.state for of in found]


def test_a_series_goes_through_a_node_and_comes_back(
    pacs: Orthanc, node: Node, series: tuple[Path, np.ndarray], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with node(Sender(Peer.of(pacs.peer), "NODE")):
        dcmtk("echoscu", "-aet", "SCANNER", "-aec", "NODE", "127.0.0.1", NODE_PORT)
        for calling, called in (("STRANGER", "NODE"), ("SCANNER", "OTHER")):
            said = dcmtk("echoscu", "-aet", calling, "-aec", called, "127.0.0.1", NODE_PORT, fails=True)
            assert "Not Recognized" in said
        send(series[0])
        assert ended(tmp_path / "inbox") == ["delivered"]
        found = {kind: until(lambda kind=kind: pacs.instances(kind)) for kind in ("SEG", "SR", "OT")}
        assert {kind: len(of) for kind, of in found.items()} == {"SEG": 1, "SR": 1, "OT": 2}
        (study,) = pacs.get("studies")
        for file in series[0].iterdir():
            pacs.post("instances", file.read_bytes())
        pacs.post("modalities/NODE/store", study.encode())  # the same images, from another caller, and our own results
        folder = tmp_path / "inbox" / dcmread(next(series[0].iterdir())).SeriesInstanceUID
        settled(folder)
    assert [path.name for path in (tmp_path / "inbox").iterdir() if path.name != ".lock"] == [folder.name]
    assert len(pacs.instances("SEG")) == 1
    for kind, instances in found.items():
        for instance in instances:
            (tmp_path / f"{kind}.dcm").write_bytes(pacs.file(instance))
            assert errors_of(tmp_path / f"{kind}.dcm") == [], kind
    _, masks = read_segmentation(tmp_path / "SEG.dcm", read_series(series[0])[1])
    assert np.array_equal(masks[0], series[1].T)
    uid = dcmread(tmp_path / "SEG.dcm").SeriesInstanceUID
    asked = ("-S", "-k", "QueryRetrieveLevel=SERIES", "-k", "Modality=SEG", "-k", "SeriesInstanceUID")
    assert uid in dcmtk("findscu", "-aet", "SCANNER", "-aec", pacs.title, *asked, "127.0.0.1", pacs.dicom)
    by_web = DICOMwebClient(pacs.web).search_for_series(search_filters={"Modality": "SEG"})
    assert [one["0020000E"]["Value"] for one in by_web] == [[uid]]
    told = [record.getMessage() for record in caplog.records]
    assert any("SEG, SR, PM, PM delivered" in line for line in told)
    assert not any("Made" in line for line in told)


def settled(folder: Path) -> None:
    """Wait until a node has had time to look at what came again."""
    before = (folder / "done.json").stat().st_mtime_ns
    until(lambda: folder.stat())
    threading.Event().wait(3 * QUIET)
    assert (folder / "done.json").stat().st_mtime_ns == before


def test_a_node_that_is_killed_mid_series_goes_on(
    pacs: Orthanc, node: Node, series: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    """Killed while it receives, and stopped before it could deliver."""
    halves = [tmp_path / "first", tmp_path / "second"]
    for number, file in enumerate(sorted(series[0].iterdir())):
        halves[number % 2].mkdir(exist_ok=True)
        shutil.copy(file, halves[number % 2])
    words = [sys.executable, receiving.__file__, str(tmp_path / "inbox"), str(NODE_PORT)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as first:
        assert first.stdout is not None
        assert first.stdout.readline()
        send(halves[0])
        first.kill()
    (folder,) = (path for path in (tmp_path / "inbox").iterdir() if path.is_dir())
    assert len(list((folder / "images").iterdir())) == 2
    deaf = Peer("ORTHANC", "127.0.0.1", free_port())
    with node(Sender(deaf, "NODE")):
        send(halves[1])
        until((folder / "made.json").exists)
    assert not (folder / "done.json").exists()
    made = (folder / "results" / "segment.json").stat().st_mtime_ns
    before = len(pacs.instances("SEG"))
    with node(Sender(Peer.of(pacs.peer), "NODE")):
        assert ended(tmp_path / "inbox") == ["delivered"]
    assert (folder / "results" / "segment.json").stat().st_mtime_ns == made  # it was not segmented again
    assert len(pacs.instances("SEG")) == before + 1
    files = sorted((folder / "results" / "dicom-seg").iterdir())
    _, masks = read_segmentation(files[0], read_series(series[0])[1])
    assert np.array_equal(masks[0], series[1].T)


def test_a_worker_takes_from_an_archive_and_stores_what_it_made(
    pacs: Orthanc, series: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    archive, said = Archive(pacs.web), list[str]()
    send(series[0], pacs.dicom, pacs.title)
    first = dcmread(next(series[0].iterdir()))
    before = len(pacs.instances("SEG"))
    query = read_query(["Modality=CT", f"SeriesInstanceUID={first.SeriesInstanceUID}"])
    options: Any = {"every": None, "keep": 600.0, "noted": said.append, "stop": threading.Event()}
    for _ in range(2):  # the second time there is nothing to do
        assert watch(archive, query, processing(archive, noted=said.append), tmp_path / "inbox", **options) == 0
    assert len(pacs.instances("SEG")) == before + 1
    assert ["segmented" in line for line in said] == [True, False]
    study = DICOMwebClient(pacs.web).retrieve_study(first.StudyInstanceUID)
    (stored,) = (one for one in study if one.Modality == "SEG")
    stored.save_as(tmp_path / "seg.dcm", enforce_file_format=True)
    _, masks = read_segmentation(tmp_path / "seg.dcm", read_series(series[0])[1])
    assert np.array_equal(masks[0], series[1].T)
    assert {one.Modality for one in study} == {"CT", "SEG", "SR", "OT"}
    gone = Archive("http://127.0.0.1:9/dicom-web")
    assert watch(gone, query, processing(gone), tmp_path / "inbox", **options) == 1
    assert "can't be searched" in said[-1]


class Unsteady:
    """A target that takes a file only at the second attempt."""

    def __init__(self) -> None:
        self.files: list[str] = []
        self.refused: set[str] = set()

    def __str__(self) -> str:
        return "unsteady"

    def send(self, file: Path) -> None:
        name = f"{file.parent.name}/{file.name}"
        if name not in self.refused:
            self.refused.add(name)
            raise DeliveryError("not now.")
        self.files.append(name)


def received(folder: Path, root: Path) -> Inbox:
    inbox = Inbox(root)
    for file in folder.iterdir():
        dataset = dcmread(file)
        inbox.take(dataset.SeriesInstanceUID, dataset.SOPInstanceUID, file.read_bytes())
    return inbox


def test_each_file_is_delivered_once_however_often_it_is_tried(
    series: tuple[Path, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medsegdiff.server.pacs.delivery.PAUSES", (0.0,))
    inbox, target = received(series[0], tmp_path / "inbox"), Unsteady()
    doing, (one,) = processing(target), inbox.all()
    assert [doing.do(one) for _ in range(2)] == [False, True]
    uid = one.uid
    assert sorted(target.files) == [f"dicom-pm/{uid}_{what}.dcm" for what in ("probability", "uncertainty")] + [
        f"dicom-seg/{uid}.dcm", f"dicom-sr/{uid}.dcm"
    ]  # fmt: skip
    assert one.done is not None
    assert list(inbox.quiet(0.0)) == []
    inbox.sweep(keep=0.0)
    assert not one.where.exists()
    received(series[0], tmp_path / "inbox")  # again, after all was removed
    assert list(inbox.quiet(0.0)) == []


def test_deflated_objects_are_not_taken(node: Node) -> None:
    """A hundred kilobytes of them unpack to gigabytes, and did so before anybody had looked at them."""
    caller = AE("SCANNER")
    for encoding in (DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, JPEG2000Lossless):
        caller.add_requested_context(CTImageStorage, encoding)
    with node():
        association = caller.associate("127.0.0.1", NODE_PORT, ae_title="NODE")
        assert association.is_established
        taken = {str(context.transfer_syntax[0]) for context in association.accepted_contexts}
        association.release()
    assert taken == {ImplicitVRLittleEndian, JPEG2000Lossless}


def test_images_that_come_late_make_a_new_result_of_all(series: tuple[Path, np.ndarray], tmp_path: Path) -> None:
    last, late = max(series[0].iterdir(), key=lambda of: dcmread(of).ImagePositionPatient[2]), tmp_path / "late"
    late.mkdir()
    last.rename(late / "last.dcm")
    inbox = received(series[0], tmp_path / "inbox")
    (one,) = inbox.quiet(0.0)
    assert processing().do(one)
    assert len(one.done.images) == 3  # type: ignore[union-attr]
    received(late, tmp_path / "inbox")
    (again,) = inbox.quiet(0.0)
    assert processing().do(again)
    assert len(one.done.images) == 4  # type: ignore[union-attr]
    assert list(inbox.quiet(0.0)) == []


def test_what_can_not_be_segmented_ends_with_a_reason_that_no_log_tells(
    series: tuple[Path, np.ndarray], tmp_path: Path
) -> None:
    said: list[str] = []
    inbox = received(series[0], tmp_path / "inbox")
    (one,) = inbox.all()
    for image in one.where.iterdir():
        image.write_bytes(b"Made^Up" * 40)
    assert processing(noted=said.append).do(one)
    assert one.done is not None
    assert (one.done.state, one.done.error != "") == ("failed", True)
    assert said == [f"Series {one.uid}: could not be segmented; the reason is in {one.uid}/done.json."]
    for _ in range(2):
        (one.folder / "done.json").unlink(missing_ok=True)
        one.begin(one.images)
    assert processing().do(one)
    assert "died twice" in one.done.error
    names = Inbox(tmp_path / "others")
    names.take("../../evil", "a/b", b"x")
    (file,) = (path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"x")
    assert file.is_relative_to(tmp_path / "others")
    assert len(file.relative_to(tmp_path / "others").parts) == 3


def test_wrong_addresses_and_queries_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for text in ("ORTHANC", "A@b", "A@b:x", "A@b:0", "too long for a title@b:1", "@b:1"):
        with pytest.raises(ConfigError, match="allowed is AE@HOST:PORT"):
            Peer.of(text)
    assert Peer.of("A B@[::1]:104") == Peer("A B", "::1", 104)
    with pytest.raises(ConfigError, match="needed is the root of DICOMweb"):
        Archive("pacs.example/dicom-web")
    assert str(Archive("http://anna:secret@pacs.example/dicom-web/")) == "http://pacs.example/dicom-web"
    node = ("dicom", "node", "--model", "run", "--inbox", tmp_path / "inbox")
    for words, told in (
        (("--send", "A@b:1", "--ae", "a" * 17), "no AE title"),
        (("--send", "A@b:1", "--write", "masks"), "a PACS may get dicom-seg"),
    ):
        assert call(*node, *words) == 2
        assert told in " ".join(capsys.readouterr().err.split())
    assert call("dicom", "worker", "http://127.0.0.1:9/", "--model", "run", "--query", "Colour=red") == 2
    assert "allowed is KEYWORD=VALUE" in " ".join(capsys.readouterr().err.split())


def test_a_viewer_names_a_series_of_the_archive(
    pacs: Orthanc, series: tuple[Path, np.ndarray], trained: tuple[Path, Path], tmp_path: Path
) -> None:
    """As OHIF does: ``image`` is a UID, and the answer a label map in NRRD."""
    results, _ = shown(tmp_path / "made", segmentation("s", (8, 9, 4), EYE))
    program = (sys.executable, "-S", stub_worker.__file__, str(results))
    send(series[0], pacs.dicom, pacs.title)
    uid = dcmread(next(series[0].iterdir())).SeriesInstanceUID
    form = {"params": (None, json.dumps({"result_extension": ".nrrd", "result_dtype": "uint16"}))}
    wrong = {"params": (None, json.dumps({"result_extension": ".nrrd", "result_dtype": "float"}))}
    for files, url, asked, form_sent, status in (
        (9, pacs.web, uid, form, 200),
        (3, pacs.web, uid, form, 413),  # the series has four
        (9, pacs.web, "1.2.3", form, 404),
        (9, "http://127.0.0.1:9/dicom-web", uid, form, 502),
        (9, pacs.web, uid, wrong, 422),
    ):
        model, jobs = Model("eyes", (str(trained[0]),)), JobFolder(tmp_path / "jobs")
        dispatch = Dispatch(jobs, [model], ["cpu"], Limits(files=files), program=program)
        with TestClient(make_app(dispatch, Tokens(), archive=Archive(url)), base_url="http://127.0.0.1:8000") as client:
            until(lambda client=client: client.get("/readyz").status_code == 200)
            answer = client.post("/infer/eyes", params={"image": asked, "output": "image"}, files=form_sent)
            assert answer.status_code == status, answer.text
        if status == 200:
            (tmp_path / "label.nrrd").write_bytes(answer.content)
    found, expected = (
        SimpleITK.ReadImage(str(of)) for of in (tmp_path / "label.nrrd", results / "labels" / "s.nii.gz")
    )
    assert found.GetPixelIDTypeAsString() == "16-bit unsigned integer"
    assert np.array_equal(SimpleITK.GetArrayFromImage(found), SimpleITK.GetArrayFromImage(expected))
    for of in ("GetOrigin", "GetSpacing", "GetDirection"):
        assert np.allclose(getattr(found, of)(), getattr(expected, of)()), of


def test_each_x_ray_of_a_series_gets_segments_of_its_own(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 60000, (2, 16, 16), dtype=np.uint16)
    inbox, target = Inbox(tmp_path / "inbox"), Unsteady()
    pictures = [make_picture(one) for one in pixels]
    for dataset in pictures:
        dataset.SeriesInstanceUID = "1.2.3.4"
        file = write_dataset(tmp_path / "x.dcm", dataset)
        inbox.take("1.2.3.4", dataset.SOPInstanceUID, file.read_bytes())
    (one,) = inbox.all()
    sent: list[str] = []
    target.send = lambda file: sent.append(file.name)  # type: ignore[method-assign]
    assert processing(target).do(one)
    assert sorted(sent) == sorted(f"{dataset.SOPInstanceUID}.dcm" for dataset in pictures)
    for name in sent:
        segments = dcmread(one.results / "dicom-seg" / name)
        (image,) = segments.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert f"{image.ReferencedSOPInstanceUID}.dcm" == name


def test_pictures_of_a_series_that_fail_are_told_of(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 60000, (2, 16, 16), dtype=np.uint16)
    inbox, said = Inbox(tmp_path / "inbox"), list[str]()
    good, damaged = map(make_picture, pixels)
    for dataset in (good, damaged):
        dataset.SeriesInstanceUID = "1.2.3.4"
        content = write_dataset(tmp_path / "x.dcm", dataset).read_bytes()
        content = content[: -pixels[0].nbytes // 2] if dataset is damaged else content
        inbox.take("1.2.3.4", dataset.SOPInstanceUID, content)
    (one,) = inbox.all()
    target = Unsteady()
    assert not processing(target).do(one)
    assert processing(target, noted=said.append).do(one)  # what failed is known after a new start too
    assert target.files == [f"dicom-seg/{good.SOPInstanceUID}.dcm"]
    assert one.done is not None
    assert (one.done.state, one.done.error) == ("delivered", "1 of 2 images could not be segmented.")
    assert one.done.failed.keys() == {damaged.SOPInstanceUID}
    assert "its pixels can't be read" in one.done.failed[damaged.SOPInstanceUID]
    assert said[-1] == "Series 1.2.3.4: 1 of 2 images could not be segmented. The reasons are in 1.2.3.4/done.json."
