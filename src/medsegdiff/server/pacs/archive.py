"""DICOMweb: searching, fetching and storing (QIDO-RS, WADO-RS, STOW-RS)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from medsegdiff.errors import ConfigError, DataError
from medsegdiff.io.dicom_file import dicom_library
from medsegdiff.server.pacs.inbox import Inbox, Series
from medsegdiff.server.pacs.peers import DeliveryError, UnreachableError

IMAGES = ("CT", "MR", "PT", "NM", "CR", "DX", "MG", "US", "OP", "OPT", "XA", "RF", "XC", "GM", "ES", "SM", "OT")
"""DICOM's words for what makes images; the others are reports, masks and plans."""
COUNT = "NumberOfSeriesRelatedInstances"


@dataclass(frozen=True)
class Found:
    """A series that an archive has."""

    study: str
    series: str
    modality: str
    count: int
    """Images, as far as the archive tells; else 0."""


class Archive:
    """An archive that speaks DICOMweb."""

    def __init__(self, url: str, *, token: str = "") -> None:
        """Know where it is; ``https://NAME:PASSWORD@host/`` names a user, ``token`` is one of OAuth."""
        web, requests = dicom_library("dicomweb_client.api"), dicom_library("requests")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"The archive is {url}; needed is the root of DICOMweb, http://HOST:PORT/dicom-web.")
        session = requests.Session()
        if parts.username:
            session.auth = parts.username, parts.password or ""
        if token:
            session.headers["Authorization"] = f"Bearer {token}"
        self.url = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path.rstrip("/"), "", ""))
        self._client = web.DICOMwebClient(url=self.url, session=session)
        self._client.set_http_retry_params(retry=False)  # we try again ourselves, and say so

    def __str__(self) -> str:
        return self.url

    def search(self, query: Mapping[str, str]) -> list[Found]:
        """List the series of images that fit a query."""
        try:
            answers = self._client.search_for_series(
                search_filters=dict(query), fields=[COUNT, "Modality"], get_remaining=True
            )
        except Exception as error:
            raise DeliveryError(f"{self} can't be searched ({type(error).__name__}).") from error
        found = (_found(answer) for answer in answers)
        return [one for one in found if one.series and one.modality in IMAGES]

    def find(self, series: str) -> Found:
        """Find a series by its UID."""
        found = self.search({"SeriesInstanceUID": series})
        if not found:
            raise DataError(f"{self} has no images of the series {series}.")
        return found[0]

    def images(self, found: Found) -> Iterator[tuple[str, bytes]]:
        """Fetch the images of a series: UID and file, one by one."""
        try:
            for dataset in self._client.iter_series(found.study, found.series):
                file = BytesIO()
                dataset.save_as(file, enforce_file_format=True)
                yield str(dataset.SOPInstanceUID), file.getvalue()
        except Exception as error:
            raise DeliveryError(f"{self} does not give the series {found.series} ({type(error).__name__}).") from error

    def fetch(self, found: Found, inbox: Inbox) -> Series:
        """Fetch a series."""
        for image, content in self.images(found):
            inbox.take(found.series, image, content)
        return inbox.series(found.series)

    def send(self, file: Path) -> None:
        """Store a file."""
        dataset = dicom_library("pydicom").dcmread(file)
        try:
            answer = self._client.store_instances([dataset])
        except Exception as error:
            kind = UnreachableError if _nobody_there(error) else DeliveryError
            raise kind(f"{self} did not store a file ({type(error).__name__}).") from error
        if answer.get("FailedSOPSequence"):
            reason = int(answer.FailedSOPSequence[0].get("FailureReason", 0))
            raise DeliveryError(f"{self} did not store a file of the modality {dataset.Modality} (0x{reason:04X}).")


def read_query(texts: list[str]) -> dict[str, str]:
    """Read ``--query KEY=VALUE``."""
    known = dicom_library("pydicom.datadict")
    query = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or known.tag_for_keyword(key) is None:
            raise ConfigError(f"--query is {text}; allowed is KEYWORD=VALUE of DICOM, such as Modality=CT.")
        query[key] = value
    return query


def _nobody_there(error: Exception) -> bool:
    """Tell whether a connection was not even made; one that breaks may be the fault of what is sent."""
    urllib3 = dicom_library("urllib3.exceptions")
    reason = getattr(next(iter(error.args), None), "reason", None)
    return isinstance(reason, (urllib3.ConnectTimeoutError, urllib3.NewConnectionError))


def _found(answer: Any) -> Found:
    dataset = dicom_library("pydicom").Dataset.from_json(answer)
    return Found(
        study=str(dataset.get("StudyInstanceUID") or ""),
        series=str(dataset.get("SeriesInstanceUID") or ""),
        modality=str(dataset.get("Modality") or ""),
        count=int(dataset.get(COUNT) or 0),
    )
