"""A PACS: Orthanc with its DICOMweb plug-in, and programs of DCMTK; none of them is part of this package."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
PROGRAMS = ("Orthanc", "storescu", "findscu", "echoscu")


def needed() -> None:
    """Skip a test where there is no PACS."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing or not PLUGIN.exists():
        missing += [] if PLUGIN.exists() else [PLUGIN.name]
        pytest.skip(f"{', '.join(missing)} not installed (Debian: orthanc, orthanc-dicomweb, dcmtk)")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def until(holds: Callable[[], Any], *, seconds: float = 60.0) -> Any:
    """Wait until something is true, and give it."""
    end = time.monotonic() + seconds
    while not (found := holds()):
        assert time.monotonic() < end, "it has not come about"
        time.sleep(0.05)
    return found


@dataclass(frozen=True)
class Orthanc:
    """A PACS that runs."""

    http: int
    dicom: int
    title = "ORTHANC"

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{self.http}/dicom-web"

    @property
    def peer(self) -> str:
        return f"{self.title}@127.0.0.1:{self.dicom}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/{path}", timeout=20) as answer:
            return json.loads(answer.read())

    def post(self, path: str, body: bytes) -> Any:
        asked = urllib.request.Request(f"http://127.0.0.1:{self.http}/{path}", body, method="POST")
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return json.loads(answer.read())

    def file(self, instance: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http}/instances/{instance}/file", timeout=20) as answer:
            return bytes(answer.read())

    def instances(self, modality: str) -> list[str]:
        """List what it has of a modality."""
        series = (self.get(f"series/{one}") for one in self.get("series"))
        return [one for of in series if of["MainDicomTags"].get("Modality") == modality for one in of["Instances"]]


@contextmanager
def orthanc(folder: Path, peers: dict[str, int]) -> Iterator[Orthanc]:
    """Run a PACS in a folder; ``peers``: AE titles that it may send to, and their ports here."""
    started = Orthanc(free_port(), free_port())
    told = {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": started.http,
        "DicomPort": started.dicom,
        "DicomAet": started.title,
        "AuthenticationEnabled": False,
        "RemoteAccessAllowed": False,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowFind": True,
        "DicomModalities": {title: [title, "127.0.0.1", port] for title, port in peers.items()},
        "Plugins": [str(PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orthanc.json").write_text(json.dumps(told))
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=log, stderr=log)
        try:
            until(lambda: answers(started) or process.poll() is not None, seconds=30)
            assert process.poll() is None, (folder / "log").read_text()[-2000:]
            yield started
        finally:
            process.terminate()
            process.wait(20)


def answers(of: Orthanc) -> bool:
    try:
        return bool(of.get("system"))
    except OSError:
        return False


def dcmtk(*words: object, fails: bool = False) -> str:
    """Run a program of DCMTK."""
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode != 0) == fails, done.stderr[-2000:]
    return done.stdout + done.stderr
