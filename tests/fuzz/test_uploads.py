"""What is sent to the server: taken, or refused in words; nothing is written elsewhere, and no log tells a name."""

from __future__ import annotations

import gzip
import io
import logging
import stat
import sys
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from medsegdiff.server.app import make_app
from medsegdiff.server.dispatch import Dispatch, Model
from medsegdiff.server.jobs import JobFolder
from medsegdiff.server.limits import Limits
from medsegdiff.server.tokens import Tokens
from tests.fuzz.conftest import Fuzz
from tests.fuzz.strategies import edited
from tests.fuzz.test_series import made, written

PATIENT = "Meier^Anna"
NAMES = (
    "a.png", "a.nii", "a.nii.gz", "a.dcm", "IM0", "../../evil.png", "..\\..\\evil.nii.gz", "/etc/evil.png",
    "C:\\evil.dcm", "con.png", "NUL.nii.gz", "aux.dcm", "lpt1", "x" * 300 + ".png", f"{PATIENT}.png", ".hidden.png",
    "a/./b/../c.png", "~/evil.png", "%2e%2e%2fevil.png", "\u202egnp.exe", "ß\u0301.png", " .png", "..", ".", "a.png/",
    "request.json", "__MACOSX/._a.png", "evil.png\x00.txt", "-rf.png", "a.zip", "a.txt",
)  # fmt: skip
"""What files may be called by who means harm, or by chance."""
LIMITS = Limits(upload=1 << 20, voxels=1 << 20, files=8)
FINE = (202, 400, 413, 415, 422)


def _samples() -> tuple[bytes, ...]:
    values = np.arange(60, dtype=np.uint8).reshape(6, 10)
    picture, table = io.BytesIO(), io.BytesIO()
    Image.fromarray(values).save(picture, "PNG")
    Image.fromarray(values).save(table, "TIFF")
    volume = nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), np.eye(4)).to_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        slices = made(oblique=False)
        for dataset in slices:
            dataset.PatientName = PATIENT
        files = tuple(written(dataset) for dataset in slices)
    return picture.getvalue(), table.getvalue(), volume, gzip.compress(volume), *files


SAMPLES = _samples()
File = tuple[str, bytes]


@st.composite
def files(draw: st.DrawFn) -> File:
    """Draw a file, whole or damaged."""
    content = draw(st.sampled_from(SAMPLES))
    if draw(st.integers(0, 2)):
        content = draw(edited(content))
    return draw(st.sampled_from(NAMES)), content


@st.composite
def archives(draw: st.DrawFn) -> File:
    """Draw an archive of files, with links, bombs and archives in it, whole or damaged."""
    packed = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        warnings.simplefilter("ignore")  # of names that come twice
        for name, content in draw(st.lists(files(), max_size=4)):
            entry = zipfile.ZipInfo(name)
            if draw(st.integers(0, 9)) == 0:
                entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                content = b"/etc/passwd"
            archive.writestr(entry, content)
        if draw(st.integers(0, 9)) == 0:
            archive.writestr(zipfile.ZipInfo("bomb.nii"), bytes(4 << 20), zipfile.ZIP_DEFLATED)  # 4 kB packed
        if draw(st.integers(0, 9)) == 0:
            archive.writestr(
                zipfile.ZipInfo("inner.zip"), draw(archives())[1]
            )  # a name alone would take the time of day
    content = packed.getvalue()
    return "all.zip", draw(edited(content)) if draw(st.booleans()) else content


@contextmanager
def serving(jobs: Path, run: Path) -> Iterator[TestClient]:
    """Serve without a worker: jobs wait."""
    program = (sys.executable, "-S", "-c", "import sys; sys.stdin.read()")
    dispatch = Dispatch(JobFolder(jobs), [Model("m", (str(run),))], ["cpu"], LIMITS, program=program)
    with TestClient(make_app(dispatch, Tokens()), base_url="http://127.0.0.1:8000") as client:
        yield client


def test_whatever_is_sent_is_taken_or_refused_in_words(
    fuzz: Fuzz, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    jobs = tmp_path / "of" / "the" / "server" / "jobs"
    with serving(jobs, fuzz.ground.run) as client:
        kept = inside(tmp_path, jobs)

        def send(given: list[File]) -> None:
            answer = client.post("/api/v1/jobs", files=[("files", file) for file in given])
            assert answer.status_code in FINE, answer.text
            if answer.status_code == 202:
                told = answer.json()
                assert all((jobs / told["id"] / "input" / name).exists() for name in told["images"])
                assert client.delete(f"/api/v1/jobs/{told['id']}").status_code == 204
            else:
                assert answer.json()["error"].strip(), answer.status_code
                assert str(tmp_path) not in answer.text
            assert inside(tmp_path, jobs) == kept
            assert [path.name for path in jobs.iterdir()] == []
            fuzz.ground.counts[f"upload: {answer.status_code}"] += 1

        fuzz.each(st.lists(files() | archives(), min_size=1, max_size=4), send, share=1.0)
    said = [record for record in caplog.records if record.name.split(".")[0] in ("medsegdiff", "pydicom", "nibabel")]
    assert not any("Meier" in record.getMessage() for record in said)


def inside(folder: Path, jobs: Path) -> list[Path]:
    """List what is in a folder, beside the jobs."""
    return sorted(path for path in folder.rglob("*") if jobs not in path.parents)
