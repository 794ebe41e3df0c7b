"""C-STORE: sending files to a PACS."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from medsegdiff.errors import ConfigError, MedSegDiffError
from medsegdiff.io.dicom_file import Dataset, dicom_library

PEER = re.compile(r"(?P<title>[^@\\]{1,16})@(?P<host>\[[^\]]+\]|[^:@]+):(?P<port>\d{1,5})")
TITLE = re.compile(r"[^\\]{1,16}")
DONE = (0x0000, 0xB000, 0xB006, 0xB007)
"""Answers that mean stored; with a warning that elements were changed, or left out."""
PATIENCE = 30.0
"""Seconds until a peer that does not answer is given up."""


class DeliveryError(MedSegDiffError, ConnectionError):
    """Results could not be delivered now; later they may."""


class UnreachableError(DeliveryError):
    """Nobody is there who takes anything."""


@dataclass(frozen=True)
class Peer:
    """Who is reached by DICOM: ``AE@host:port``."""

    title: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.title}@{self.host}:{self.port}"

    @classmethod
    def of(cls, text: str) -> Peer:
        """Read a peer."""
        match = PEER.fullmatch(text)
        if match is None or not 0 < int(match["port"]) < 65536:
            raise ConfigError(f"--send is {text}; allowed is AE@HOST:PORT, such as ORTHANC@pacs.example:4242.")
        return cls(match["title"].strip(), match["host"].strip("[]"), int(match["port"]))


def check_title(title: str) -> str:
    """Refuse what is no name of a program in a DICOM network."""
    if not TITLE.fullmatch(title) or not title.strip() or not title.isascii():
        raise ConfigError(f"'{title}' is no AE title; allowed are 1 … 16 letters of ASCII without backslash.")
    return title.strip()


class Sender:
    """Sends files to a peer, under a name."""

    def __init__(self, peer: Peer, title: str) -> None:
        self.peer, self.title = peer, title

    def __str__(self) -> str:
        return str(self.peer)

    def send(self, file: Path) -> None:
        """Send a file."""
        dataset = dicom_library("pydicom").dcmread(file)
        association = self._associated(dataset)
        try:
            answer = association.send_c_store(dataset)
        except (ValueError, RuntimeError) as error:  # the peer does not take such objects, or is gone
            raise DeliveryError(f"{self.peer} does not take a file of the modality {dataset.Modality}.") from error
        finally:
            association.release()
        if "Status" not in answer or answer.Status not in DONE:
            status = f"0x{answer.Status:04X}" if "Status" in answer else "no answer"
            raise DeliveryError(f"{self.peer} did not store a file of the modality {dataset.Modality} ({status}).")

    def _associated(self, dataset: Dataset) -> Dataset:
        entity = dicom_library("pynetdicom").AE(ae_title=self.title)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = entity.connection_timeout = PATIENCE
        entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
        try:
            socket.create_connection((self.peer.host, self.peer.port), PATIENCE).close()
        except OSError as error:
            raise UnreachableError(f"{self.peer} can't be reached ({error.strerror or error}).") from error
        association = entity.associate(self.peer.host, self.peer.port, ae_title=self.peer.title)
        if not association.is_established:
            kind, reason = DeliveryError, f"takes no files of the modality {dataset.Modality}"
            if association.is_rejected:
                kind, reason = UnreachableError, "refuses us"
            raise kind(f"{self.peer} {reason}. Does it know {self.title}, and its own name?")
        return association


def sendable(results: Path, folders: Sequence[str]) -> list[Path]:
    """List the DICOM files among results, segments before the report that refers to them."""
    return [file for folder in folders for file in sorted((results / folder).glob("*.dcm"))]
