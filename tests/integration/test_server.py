"""The server: jobs from the sending to the results, what is refused, who sees what, and what outlasts a kill."""

from __future__ import annotations

import email
import errno
import io
import json
import logging
import os
import resource
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DeflatedExplicitVRLittleEndian
from starlette.testclient import TestClient

from medsegdiff.models.checkpoint import load_config, save_config
from medsegdiff.server import dispatch as dispatching
from medsegdiff.server.app import make_app
from medsegdiff.server.dispatch import Dispatch, Model
from medsegdiff.server.jobs import Ended, Job, JobFolder, JobOptions, JobRequest
from medsegdiff.server.limits import Limits
from medsegdiff.server.results import Results
from medsegdiff.server.tokens import Tokens
from medsegdiff.server.worker import Worker
from tests import stub_worker
from tests.dicom_makers import make_slices, write_dataset, write_slices
from tests.program import call
from tests.shown import EYE, segmentation, shown
from tests.stub_worker import DIES, DIES_ONCE, FAILS, TALKS, WAITS

NAME = "Meier, Anna"
"""Names of files are names of patients."""
JOBS = "/api/v1/jobs"
LOCAL = "http://127.0.0.1:8000"
Serve = Callable[..., TestClient]


def png(shape: tuple[int, int] = (24, 30), *, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)).save(file, kind)
    return file.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return file.getvalue()


def deflated(path: Path) -> bytes:
    """A slice of zeros, which are few bytes until they are unpacked."""
    (dataset,) = make_slices(np.zeros((1, 1000, 1000), np.int16))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return write_dataset(path, dataset).read_bytes()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shown(tmp_path_factory.mktemp("made"), segmentation(NAME, (24, 30), EYE))[0]


@pytest.fixture
def serve(
    trained: tuple[Path, Path], results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Serve]:
    monkeypatch.setattr(dispatching, "PAUSE", 0.01)
    program = (sys.executable, "-S", stub_worker.__file__, str(results))

    @contextmanager
    def serving(
        *,
        tokens: Tokens = Tokens(),  # noqa: B008
        ready: bool = True,
        data: Path | None = None,
        run: Path = trained[0],
        **limits: float,
    ) -> Iterator[TestClient]:
        model = Model("eyes", (str(run),))
        made = Dispatch(JobFolder(tmp_path / "jobs"), [model], ["cpu"], Limits(**limits), program=program)
        with TestClient(make_app(made, tokens, data=data), base_url=LOCAL) as client:
            until(lambda: not ready or client.get("/readyz").status_code == 200)
            yield client

    return serving


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def sent(
    client: TestClient, content: bytes | None = None, name: str = f"{NAME}.png", seed: int = 0, **headers: str
) -> str:
    files = [("files", (name, content or png()))]
    answer = client.post(JOBS, files=files, data={"options": json.dumps({"seed": seed})}, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def ended(client: TestClient, job: str, **headers: str) -> dict[str, object]:
    until(lambda: client.get(f"{JOBS}/{job}", headers=headers).json()["state"] in ("done", "failed"))
    return dict(client.get(f"{JOBS}/{job}", headers=headers).json())


def test_a_job_goes_from_the_sending_to_its_results(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with serve() as client:
        job = sent(client)
        with client.stream("GET", f"{JOBS}/{job}/events") as stream:
            events = [json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:")]
        assert events[-1]["state"] == "done"
        base = f"{JOBS}/{job}/results"
        assert client.get(f"{base}/").json()["title"] == f"{NAME}.png"
        case = client.get(f"{base}/cases/{NAME}").json()
        assert len(case["members"]) == 5
        assert case["absent"] == {}
        mask = np.asarray(Image.open(io.BytesIO(client.get(f"{base}/mask").content)))
        assert set(np.unique(mask)) == {0, 1, 2}
        for address in (
            case["fused"]["labels"],
            case["image"],
            "members/4",
            "probability?structure=cup",
            "uncertainty",
        ):
            assert client.get(f"{base}/{address}").status_code == 200, address
        assert client.get(f"{base}/quality").json()["cup"]["review"] is True
        with zipfile.ZipFile(io.BytesIO(client.get(f"{base}/all.zip").content)) as archive:
            assert f"members/00/labels/{NAME}.png" in archive.namelist()
        assert client.put(f"{base}/references/{NAME}", content=bytes(24 * 30)).json() == {"saved": True}
        for wrong in ("members/9", "files/../request.json", "cases/nobody", "probability", "sharpness"):
            answer = client.get(f"{base}/{wrong}")
            assert answer.status_code in (404, 422), wrong
            assert answer.json()["error"]
        assert [one["id"] for one in client.get(JOBS).json()] == [job]
        assert client.delete(f"{JOBS}/{job}").status_code == 204
        assert client.get(f"{JOBS}/{job}").status_code == 404
        assert 'medsegdiff_jobs_total{state="done"} 1.0' in client.get("/metrics").text
    assert not any("Meier" in record.getMessage() for record in caplog.records if record.name.startswith("medsegdiff"))


def test_what_is_refused_is_refused_in_words(serve: Serve, tmp_path: Path) -> None:
    with serve(upload=200_000, voxels=1000, files=20) as client:

        def refused(content: bytes, name: str, **data: str) -> tuple[int, str]:
            answer = client.post(JOBS, files=[("files", (name, content))], data=data)
            return answer.status_code, answer.json()["error"]

        bomb = zipped({"zeros.nii": bytes(10_000_000)})
        assert len(bomb) < 20_000
        many = zipped({f"{n}.png": b"x" for n in range(21)})
        for status, words, found in (
            (413, "1200 voxels", refused(png((30, 40)), "a.png")),
            (413, "larger than 0.2 MB", refused(bytes(2_000_000), "a.png")),
            (413, "larger than 0.2 MB", refused(bomb, "a.zip")),
            (413, "larger than 0.2 MB", refused(deflated(tmp_path / "a.dcm"), "a.dcm")),
            (413, "More than 20 files", refused(many, "a.zip")),
            (415, "no image", refused(b"hello", "letter.txt")),
            (415, "no image", refused(zipped({"a.txt": b"hello"}), "a.zip")),
            (422, "can't be read", refused(b"hello", "a.png")),
            (422, "no model 'x'", refused(png(), "a.png", model="x")),
            (422, "members", refused(png(), "a.png", options='{"members": 0}')),
            (422, "No sampler 'fast'", refused(png(), "a.png", options='{"sampler": "fast"}')),
            (422, "options", refused(png(), "a.png", options="[]")),
        ):
            assert found[0] == status, (words, found)
            assert words in found[1], found
        form = (b"--b\r\n" + b"x" * 9_000 for _ in range(200))  # of no length that is told
        sending = {"Content-Type": "multipart/form-data; boundary=b"}
        assert client.post(JOBS, content=form, headers=sending).status_code in (400, 413)
        assert client.post(JOBS, json={}).status_code == 415
        assert client.get("/nothing.html").status_code == 404
        assert client.get(JOBS, headers={"Host": "elsewhere.example"}).status_code == 403
        assert client.get(JOBS, headers={"Origin": "http://elsewhere.example"}).status_code == 403
        assert client.get(JOBS).json() == []


def test_names_lead_nowhere(serve: Serve, tmp_path: Path) -> None:
    names = ["../../../out.png", "/tmp/out.png", "..\\..\\out.png", "CON.png", "a\x00b.png", ".png", "x" * 300 + ".png"]
    with serve() as client:
        for name in names:
            for content, shown_as in ((zipped({name: png()}), "a.zip"), (png(), name)):
                answer = client.post(JOBS, files=[("files", (shown_as, content))])
                assert answer.status_code in (202, 415, 422), name
        assert len(client.get(JOBS).json()) >= len(names)
        sent(client, zipped({"a.png": png(), "b/a.png": png(), "__MACOSX/._a.png": b"x"}), "a.zip")
        images = client.get(JOBS).json()[0]["images"]
        assert images == ["a.png", "a_2.png"]
    inside = {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*")}
    assert inside == {"jobs"}
    assert not Path("/tmp/out.png").exists()


def test_a_full_queue_says_when_to_come_again(serve: Serve) -> None:
    with serve(queue=1) as client:
        first = sent(client, seed=WAITS)
        until(lambda: client.get(f"{JOBS}/{first}").json()["state"] == "running")
        second = sent(client)
        assert client.get(f"{JOBS}/{second}").json()["position"] == 0
        answer = client.post(JOBS, files=[("files", ("a.png", png()))])
        assert answer.status_code == 429
        assert int(answer.headers["Retry-After"]) >= 1
        client.delete(f"{JOBS}/{first}")
        assert ended(client, second)["state"] == "done"


def test_users_see_their_own_jobs_alone(serve: Serve, tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text("anna aaaaaaaaaaaaaaaaaaaa\n# nobody\nbbbbbbbbbbbbbbbbbbbb # bert\n", encoding="utf-8")
    anna, bert = ({"authorization": f"Bearer {letter * 20}"} for letter in "ab")
    with serve(tokens=Tokens.read(file)) as client:
        for wrong in ({}, {"authorization": "Bearer wrong"}, {"authorization": "a" * 20}):
            assert client.get(JOBS, headers=wrong).status_code == 401
            assert client.get("/metrics", headers=wrong).status_code == 401
        assert client.get("/").status_code == client.get("/healthz").status_code == 200
        job = sent(client, **anna)
        assert ended(client, job, **anna)["state"] == "done"
        assert client.get(JOBS, headers=bert).json() == []
        for address in ("", "/events", "/results/", "/results/mask", f"/results/image/{NAME}"):
            assert client.get(f"{JOBS}/{job}{address}", headers=bert).status_code == 404, address
        assert client.delete(f"{JOBS}/{job}", headers=bert).status_code == 404
        assert client.get(f"{JOBS}/{job}/results/mask", headers=anna).status_code == 200
    stored = "".join(path.read_text() for path in (tmp_path / "jobs").rglob("request.json"))
    assert "aaaa" not in stored


def test_labels_of_images_that_were_sent_are_each_user_s_own_and_expire(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatching, "SWEEP", 0.01)
    file = tmp_path / "tokens"
    file.write_text("anna aaaaaaaaaaaaaaaaaaaa\nbert bbbbbbbbbbbbbbbbbbbb\n", encoding="utf-8")
    anna, bert = ({"authorization": f"Bearer {letter * 20}"} for letter in "ab")
    long = "sub-" + "x" * 80
    label = "/datastore/label"
    with serve(tokens=Tokens.read(file), keep=3600.0) as client:
        for user, content, name in ((anna, b"1", f"{long}_ses-1"), (bert, b"2", f"{long}_ses-1")):
            kept = client.put(label, params={"image": name}, files={"label": ("a.png", content)}, headers=user)
            assert kept.status_code == 200
        for user, content in ((anna, b"1"), (bert, b"2")):
            assert client.get(label, params={"label": f"{long}_ses-1"}, headers=user).content == content
            assert client.get(label, params={"label": f"{long}_ses-2"}, headers=user).status_code == 404
        opened = client.put("/session/", files=[("files", ("a.png", png()))], headers=anna)
        assert opened.status_code == 200
        left = [path for path in (tmp_path / "jobs").rglob("*.png") if path.is_file()]
        assert len(left) == 3
        for path in left:
            os.utime(path, (0, 0))
        client.app.app.state.sessions.keep = 0.0  # type: ignore[attr-defined]
        until(lambda: not any(path.is_file() for path in (tmp_path / "jobs").rglob("*.png")))


def test_jobs_outlast_the_death_of_their_worker_once(serve: Serve, tmp_path: Path) -> None:
    with serve() as client:
        once, twice, fails = (sent(client, seed=seed) for seed in (DIES_ONCE, DIES, FAILS))
        assert ended(client, once)["state"] == "done"
        assert "died twice" in str(ended(client, twice)["error"])
        assert ended(client, fails)["error"] == "The image is not to my liking."
        assert client.get(f"{JOBS}/{fails}/results/mask").status_code == 409
        left = [path.name for path in (tmp_path / "jobs" / once).glob("attempt-*")]
        assert left == ["attempt-2"]


def test_a_worker_that_cannot_be_understood_costs_its_job_alone(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with serve() as client:
        talks, after = sent(client, seed=TALKS), sent(client)
        assert "could not understand its worker" in str(ended(client, talks)["error"])
        assert ended(client, after)["state"] == "done"
        assert client.get("/readyz").status_code == 200
    assert "The worker at cpu is lost (ValueError) and is started anew." in caplog.messages


def test_old_jobs_are_removed_even_if_that_has_failed_before(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatching, "SWEEP", 0.01)
    swept, failed = JobFolder.sweep, list[float]()

    def sweep(folder: JobFolder, keep: float) -> None:
        if not failed:
            failed.append(keep)
            raise RuntimeError("dictionary changed size during iteration")
        swept(folder, keep)

    monkeypatch.setattr(JobFolder, "sweep", sweep)
    with serve(keep=0.0) as client:
        sent(client)
        until(lambda: client.get(JOBS).json() == [])
    assert failed


def test_jobs_may_be_added_while_old_ones_are_removed(tmp_path: Path) -> None:
    """By another thread: here in the midst of the look for old ones."""
    folder = JobFolder(tmp_path)

    def add(name: str) -> Job:
        return folder.add(JobRequest(id=name, model="m", images=(), created=0.0), folder.begin()[1])

    class Adds(Job):
        @property
        def state(self) -> Any:
            add("b")
            return "queued"

    folder.jobs["a"] = Adds(JobRequest(id="a", model="m", images=(), created=0.0), tmp_path / "a")
    assert [job.request.id for job in folder.waiting()] == ["a"]
    assert [job.request.id for job in folder.all] == ["a", "b"]


def test_jobs_outlast_the_death_of_the_server(serve: Serve, tmp_path: Path) -> None:
    """What a kill leaves behind: a job that nobody had begun, one begun, one ended, and one half sent."""
    folder = JobFolder(tmp_path / "jobs")
    for number in range(3):
        _, place = folder.begin()
        (place / "input" / f"{NAME}.png").write_bytes(png())
        asked = JobRequest(id=f"{number}", model="eyes", images=(f"{NAME}.png",), created=float(number))
        folder.add(asked, place)
    folder.jobs["1"].begin()
    folder.jobs["2"].end(Ended(state="failed", error="as before", at=time.time()))
    folder.begin()
    with serve() as client:
        assert [ended(client, str(number))["state"] for number in range(3)] == ["done", "done", "failed"]
        assert len(client.get(JOBS).json()) == 3
    assert sorted(path.name for path in (tmp_path / "jobs").iterdir()) == ["0", "1", "2"]


def test_jobs_end_on_file_systems_without_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what a kill leaves there, an empty record, is none."""
    monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError(errno.EPERM, "no links")))
    folder = JobFolder(tmp_path)
    for name in "ab":
        folder.add(JobRequest(id=name, model="m", images=(), created=0.0), folder.begin()[1])
    folder.jobs["a"].end(Ended(state="done", at=1.0))
    folder.jobs["a"].end(Ended(state="failed", at=2.0))
    assert folder.jobs["a"].state == "done"
    (folder.jobs["b"].folder / "done.json").touch()
    again = JobFolder(tmp_path).jobs
    assert [again[name].state for name in "ab"] == ["done", "queued"]
    again["b"].end(Ended(state="done", at=3.0))
    assert JobFolder(tmp_path).jobs["b"].state == "done"


def test_as_many_files_are_taken_as_the_server_allows(serve: Serve) -> None:
    """FastAPI by itself takes a thousand."""
    with serve(files=1010) as client:
        for count, status in ((1010, 415), (1011, 413)):
            files = [("files", ("a.txt", b"x"))] * count
            assert client.post(JOBS, files=files).status_code == status
            assert client.put("/session/", files=files).status_code == status


def test_long_series_need_few_open_files(serve: Serve, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_slices(data / "series", make_slices(np.zeros((120, 2, 2), np.int16)))
    with serve(data=data) as client:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        now = len(list(Path("/dev/fd").iterdir()))
        resource.setrlimit(resource.RLIMIT_NOFILE, (now + 40, hard))
        try:
            answer = client.post("/infer/eyes", params={"image": "series", "output": "json"})
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert answer.status_code == 200, answer.text


def test_the_first_end_of_a_job_counts(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path)
    _, place = folder.begin()
    job = folder.add(JobRequest(id="a", model="m", images=(), created=0.0), place)
    attempts = [job.begin().name for _ in range(2)]
    job.end(Ended(state="done", folder=attempts[0], cases=1, at=1.0))
    job.end(Ended(state="done", folder=attempts[1], cases=1, at=2.0))
    assert job.ended is not None
    assert job.ended.folder == attempts[0]
    assert [path.name for path in job.folder.glob("attempt-*")] == [attempts[0]]
    folder.sweep(keep=0.0)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_segments_and_tells_how_far_it_is(trained: tuple[Path, Path], tmp_path: Path) -> None:
    run, data = trained
    folder = JobFolder(tmp_path)
    for number, seed in enumerate((0, 1)):
        _, place = folder.begin()
        (place / "input" / "a.png").write_bytes((data / "images" / "case00.png").read_bytes())
        options = JobOptions(seed=seed, members=2, steps=2)
        folder.add(JobRequest(id=str(number), model="m", options=options, images=("a.png",), created=0.0), place)
    said: list[str] = []
    worker = Worker(said.append)
    for job in folder.jobs.values():
        worker.orders.put({"job": str(job.folder), "attempt": job.begin().name})
    worker.orders.put({"end": True})
    worker.run([("m", [str(run)])], "cpu")
    told = list(map(json.loads, said))
    assert [one["event"] for one in told if one["event"] != "progress"] == ["ready", "done", "done"]
    assert any(one["event"] == "progress" and one["total"] == 4 for one in told)
    case = Results(tmp_path / "1" / "attempt-1").case("a")
    assert len(case.members) == 2
    assert case.image == "image/a"  # its record tells where it lies


def test_a_worker_tells_the_first_reasons_of_many(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """Of pictures whose headers are whole."""
    folder, names = JobFolder(tmp_path), tuple(f"{number:02d}.jpg" for number in range(8))
    _, place = folder.begin()
    for name in names:
        (place / "input" / name).write_bytes(png(kind="JPEG")[:600])
    job = folder.add(JobRequest(id="a", model="m", images=names, created=0.0), place)
    said: list[str] = []
    worker = Worker(said.append)
    worker.orders.put({"job": str(job.folder), "attempt": job.begin().name})
    worker.orders.put({"end": True})
    worker.run([("m", [str(trained[0])])], "cpu")
    told = json.loads(said[-1])
    assert told["event"] == "failed"
    assert all(name in told["error"] for name in names[:5])
    assert "05.jpg" not in told["error"]
    assert told["error"].endswith("And 3 more images failed.")


def test_the_server_refuses_to_be_seen_without_tokens(
    trained: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("serve", trained[0], "--host", "0.0.0.0") == 2
    assert "--token-file" in capsys.readouterr().err


def test_without_the_extra_serve_says_what_to_install(
    trained: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "medsegdiff.server.run", None)
    assert call("serve", trained[0]) == 2
    assert "medsegdiff[serve]" in capsys.readouterr().err


def test_every_answer_is_described(serve: Serve) -> None:
    with serve(ready=False) as client:
        described = client.get("/api/v1/openapi.json").json()
    answers = {"202", "400", "401", "403", "413", "415", "422", "429", "503"}
    assert set(described["paths"][JOBS]["post"]["responses"]) == answers
    for path, of in described["paths"].items():
        for method, operation in of.items():
            assert operation.get("description"), (method, path)
            assert "401" in operation["responses"], (method, path)


def test_viewers_with_plug_ins_of_monai_label_are_served(serve: Serve, tmp_path: Path) -> None:
    """The calls that its client makes, in the order in which 3D Slicer makes them."""
    data = tmp_path / "data"
    data.mkdir()
    (data / f"{NAME}.png").write_bytes(png())
    with serve(data=data) as client:
        told = client.get("/info/").json()
        assert told["models"]["eyes"]["type"] == "segmentation"
        assert told["datastore"] == {"total": 1, "completed": 0, "label_tags": {}, "train": []}
        sample = client.post("/activelearning/first", json={"client_id": "me"}).json()
        assert (sample["id"], sample["name"]) == (NAME, f"{NAME}.png")
        assert client.get("/datastore/image", params={"image": NAME}).content == png()
        opened = client.put("/session/", files=[("files", (f"{NAME}.png", png()))]).json()
        asked = {"params": (None, json.dumps({"members": 3, "client_id": "me", "seed": 0}))}
        for source in ({"session_id": opened["session_id"]}, {"image": NAME}):
            answer = client.post("/infer/eyes", params=source, files=asked)
            assert answer.status_code == 200, answer.text
            message = email.message_from_bytes(
                f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode() + answer.content
            )
            params, mask = (part.get_payload(decode=True) for part in message.get_payload())
            assert json.loads(params)["label_names"] == {"disc": 1, "cup": 2}
            assert json.loads(params)["quality"]["disc"]["predicted_dice"] == 0.91
            assert np.asarray(Image.open(io.BytesIO(mask))).max() == 2
        assert client.get(JOBS).json() == []
        facts = client.post("/infer/eyes", params={"image": NAME, "output": "json"}, files=asked).json()
        assert facts["members"] == 5
        failing = {"params": (None, json.dumps({"seed": FAILS})), "file": ("a.png", png())}
        assert client.post("/infer/eyes", files=failing).status_code == 422
        assert client.post("/infer/eyes", files=asked).status_code == 422
        kept = client.put("/datastore/label", params={"image": NAME}, files={"label": ("label.png", png())})
        assert kept.json() == {"image": NAME, "label": NAME}
        assert (data / "labels" / "final" / f"{NAME}.png").read_bytes() == png()
        assert client.post("/activelearning/random").json() == {}
        assert [*client.get("/datastore/?output=all").json()["objects"][NAME]["labels"]] == ["final"]
        assert client.get("/datastore/label", params={"label": NAME, "tag": "final"}).content == png()
        assert client.delete(f"/session/{opened['session_id']}").status_code == 200
        assert client.get(f"/session/{opened['session_id']}").status_code == 404


@pytest.mark.parametrize("inside", ["", "images"])
def test_labels_that_come_back_hide_no_image(serve: Serve, tmp_path: Path, inside: str) -> None:
    data = tmp_path / "data"
    (data / inside).mkdir(parents=True)
    for name in ("a", "b", "c"):
        (data / inside / f"{name}.png").write_bytes(png())
    if inside:
        (data / "preview.png").write_bytes(png())
    for _ in range(2):  # with what came back, the folder may look like another one after the next start
        with serve(data=data) as client:
            for tag in ("original", "final"):
                query = {"image": "b", "tag": tag}
                assert client.put("/datastore/label", params=query, files={"label": ("b.png", png())}).is_success
            assert client.get("/datastore/?output=stats").json()["total"] == 3
            assert client.post("/activelearning/first").json()["id"] == "a"


def test_images_of_a_file_for_each_channel_are_one(serve: Serve, trained: tuple[Path, Path], tmp_path: Path) -> None:
    config = load_config(trained[0])
    run, data = tmp_path / "two", tmp_path / "data"
    run.mkdir()
    save_config(run, config.model_copy(update={"spec": config.spec.model_copy(update={"channel_files": 2})}))
    data.mkdir()
    for name in ("a_0000", "a_0001", "b_0000", "b_0001"):
        (data / f"{name}.png").write_bytes(png())
    asked = {"params": (None, json.dumps({"seed": 0}))}
    with serve(data=data, run=run) as client:
        assert [*client.get("/datastore/?output=all").json()["objects"]] == ["a", "b"]
        sent = client.post("/infer/eyes", params={"image": "a"}, files=asked)
        assert sent.status_code == 200, sent.text


def test_a_job_of_a_model_that_is_not_there_any_more_is_told(tmp_path: Path) -> None:
    said: list[str] = []
    request = JobRequest(id="a", model="old", images=("a.png",), created=0)
    (tmp_path / "request.json").write_text(request.model_dump_json())
    worker = Worker(said.append)
    for order in ({"job": str(tmp_path), "attempt": "attempt-1"}, {}):
        worker.orders.put(order)
    worker.run([], "cpu")
    assert "The model 'old' is not served any more" in json.loads(said[-1])["error"]


def test_a_full_disk_is_told_in_words_and_loses_no_job(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it strikes: while files come, while a job is recorded, while its end is."""
    full = OSError(errno.ENOSPC, "No space left on device")

    def fails(*_: object, **__: object) -> None:
        raise full

    with serve() as client:
        waits = sent(client, seed=WAITS)
        for target in ("jobs.write_json", "jobs.Path.mkdir", "uploads._Taking._write"):
            with monkeypatch.context() as struck:
                struck.setattr(f"medsegdiff.server.{target}", fails)
                answer = client.post(JOBS, files=[("files", ("a.png", png()))])
            assert answer.status_code == 503, target
            assert "disk is full" in answer.json()["error"], target
            assert int(answer.headers["Retry-After"]) > 0, target
        assert [one["id"] for one in client.get(JOBS).json()] == [waits]
        assert client.delete(f"{JOBS}/{waits}").status_code == 204
        with monkeypatch.context() as struck:
            struck.setattr("medsegdiff.server.jobs.Job.end", fails)
            job = sent(client)
            assert "disk is full" in str(ended(client, job)["error"])
    with serve() as client:  # when there is room again
        assert ended(client, job)["state"] == "done"
    left = {path.name for path in (tmp_path / "jobs").iterdir()}
    assert left == {job}


def test_a_damaged_file_brings_no_name_of_a_patient_into_a_log(
    serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A wrong length lets pydicom take what follows for a UID, and complain of that."""
    caplog.set_level(logging.DEBUG)
    (dataset,) = make_slices(np.zeros((1, 4, 4), np.int16))
    dataset.PatientName, dataset.PatientID = "Meier^Anna", "x"
    content = bytearray(write_dataset(tmp_path / "a.dcm", dataset).read_bytes())
    place = content.index(b"\x08\x00\x16\x00UI") + 6
    content[place : place + 2] = (content.index(b"Anna") + 4 - place - 2).to_bytes(2, "little")
    with serve() as client:
        answer = client.post(JOBS, files=[("files", ("a.dcm", bytes(content)))])
    assert "Meier" not in caplog.text + answer.text


def test_a_worker_whose_disk_is_full_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not where its files lie."""
    folder, said = JobFolder(tmp_path), list[str]()
    _, place = folder.begin()
    job = folder.add(JobRequest(id="a", model="m", images=(), created=0.0), place)
    worker = Worker(said.append)
    monkeypatch.setattr(
        worker, "_segment", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, f"{tmp_path}: full"))
    )
    worker._job({"m": None}, job.folder, job.begin().name)
    (told,) = map(json.loads, said)
    assert told["event"] == "failed"
    assert told["error"] == "The server's disk is full. Send the images again later."
