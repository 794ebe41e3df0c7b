"""C-STORE: receiving images from a PACS or a scanner, and C-ECHO."""

from __future__ import annotations

from collections.abc import Collection
from io import BytesIO
from typing import Any

from medsegdiff.errors import ConfigError
from medsegdiff.io.dicom import NO_SLICES
from medsegdiff.io.dicom_file import dicom_library
from medsegdiff.server.pacs.inbox import Inbox

STORED, FULL, WRONG = 0x0000, 0xA700, 0xC000
"""Answers of DICOM: stored; out of resources; can't be understood."""
MOST = 50
"""Associations at a time."""
ENCODINGS = (
    "ImplicitVRLittleEndian", "ExplicitVRLittleEndian", "ExplicitVRBigEndian", "RLELossless",
    "JPEGBaseline8Bit", "JPEGExtended12Bit", "JPEGLossless", "JPEGLosslessSV1", "JPEGLSLossless",
    "JPEGLSNearLossless", "JPEG2000Lossless", "JPEG2000", "HTJ2KLossless", "HTJ2KLosslessRPCL", "HTJ2K",
)  # fmt: skip
"""That we can read, in pydicom's words. Deflated objects are not taken: a small one may unpack to gigabytes at once."""


class Receiver:
    """Listens, and puts images into the inbox; what is no image is taken and forgotten."""

    def __init__(self, inbox: Inbox, title: str, *, host: str, port: int, allowed: Collection[str]) -> None:
        """Begin to listen; ``allowed``: AE titles of callers, none: all."""
        network, uids = dicom_library("pynetdicom"), dicom_library("pydicom.uid")
        self.inbox, self.taken, self.passed_over = inbox, 0, 0
        entity = network.AE(ae_title=title)
        entity.maximum_associations = MOST
        entity.require_called_aet, entity.require_calling_aet = True, sorted(allowed)
        entity.add_supported_context("1.2.840.10008.1.1")  # C-ECHO
        encodings = [getattr(uids, name) for name in ENCODINGS]
        for context in network.AllStoragePresentationContexts:
            entity.add_supported_context(context.abstract_syntax, encodings)
        handlers = [(network.evt.EVT_C_STORE, self._stored)]
        try:
            self._server = entity.start_server((host, port), block=False, evt_handlers=handlers)
        except OSError as error:
            raise ConfigError(
                f"{host}:{port} can't be listened at ({error.strerror}). Choose another --port, or --host."
            ) from error

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Stop to listen."""
        self._server.shutdown()

    def _stored(self, event: Any) -> int:
        kind = str(event.request.AffectedSOPClassUID)
        if f"{kind}.".startswith(NO_SLICES) or "Image Storage" not in dicom_library("pydicom.uid").UID(kind).name:
            self.passed_over += 1
            return STORED
        try:
            content = event.encoded_dataset()
            header = dicom_library("pydicom").dcmread(BytesIO(content), specific_tags=["SeriesInstanceUID"])
            series = str(header.SeriesInstanceUID)
        except Exception:  # noqa: BLE001 - whatever is wrong with it, it is not ours
            return WRONG
        try:
            self.inbox.take(series, str(event.request.AffectedSOPInstanceUID), content)
        except OSError:
            return FULL
        self.taken += 1
        return STORED
