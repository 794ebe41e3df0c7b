"""A small server on this machine alone, for ``medsegdiff view``: the page, the files of a folder, corrected masks."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import BaseModel

from medsegdiff.errors import DataError, MedSegDiffError
from medsegdiff.server.archive import zipped
from medsegdiff.server.assets import HEADERS, asset
from medsegdiff.server.images import image_of
from medsegdiff.server.results import Results
from medsegdiff.server.schema import About

log = logging.getLogger(__name__)

API = "/api/v1/"
HOST = "127.0.0.1"
MOST = 1 << 31
"""Bytes of masks that are taken back."""


class LocalServer(ThreadingHTTPServer):
    """Serves one folder of results to a browser on this machine."""

    daemon_threads = True

    def __init__(self, results: Results, *, port: int = 0) -> None:
        self.results = results
        super().__init__((HOST, port), _Answers)

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.server_address[1]}/"

    @cached_property
    def hosts(self) -> frozenset[str]:
        """How it is called: another name in a request is a page elsewhere that has had its name led here."""
        return frozenset(f"{name}:{self.server_address[1]}" for name in (HOST, "localhost"))


class _Answers(BaseHTTPRequestHandler):
    """Answers a request."""

    server: LocalServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Give the page, what is told of results, or a file."""
        self._answered(self._get)

    do_HEAD = do_GET  # noqa: N815 - as the library calls it

    def do_PUT(self) -> None:
        """Take masks that somebody has corrected."""
        self._answered(self._put)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep names of cases out of logs."""

    def _answered(self, answer: Any) -> None:
        try:
            if self.headers.get("Host", "") not in self.server.hosts:
                raise DataError(f"Only pages of {self.server.address} may ask.")
            answer()
        except MedSegDiffError as error:
            self._json({"error": str(error)}, HTTPStatus.NOT_FOUND)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        except Exception as error:
            log.debug("A request could not be answered", exc_info=error)
            self._json({"error": f"{type(error).__name__}: {error}"}, HTTPStatus.INTERNAL_SERVER_ERROR)

    def _get(self) -> None:
        asked = urlsplit(self.path)
        path = unquote(asked.path)
        if not path.startswith(API):
            content, kind = asset(path.removeprefix("/"))
            self._send(content, kind)
            return
        results, (what, _, rest) = self.server.results, path.removeprefix(API).partition("/")
        if what == "about":
            self._json(About(version=version("medsegdiff"), mode="view"))
        elif what == "results":
            self._results(results, rest, {name: values[0] for name, values in parse_qs(asked.query).items()})
        else:
            raise DataError("There is no such address.")

    def _results(self, results: Results, path: str, query: dict[str, str]) -> None:
        what, _, rest = path.partition("/")
        if what == "":
            self._json(results.shown())
        elif what == "cases":
            self._json(results.case(rest))
        elif what == "files":
            self._send(results.places.given(rest), "application/octet-stream")
        elif what == "image":
            body = image_of(results.image(rest), channel=int(query.get("channel", "0")))
            self._send(body.content, body.type)
        elif what == "archive":
            self._stream(zipped(results.archived(rest), results.root), "application/zip")
        else:
            raise DataError("There is no such address.")

    def _put(self) -> None:
        path, length = unquote(urlsplit(self.path).path), int(self.headers.get("Content-Length", "0"))
        place = f"{API}results/references/"
        if not path.startswith(place) or not 0 < length <= MOST:
            self.close_connection = True
            raise DataError("There is no such address.")
        self.server.results.correct(path.removeprefix(place), self.rfile.read(length))
        self._json({"saved": True})

    def _json(self, value: BaseModel | dict[str, Any], status: HTTPStatus = HTTPStatus.OK) -> None:
        text = value.model_dump_json() if isinstance(value, BaseModel) else json.dumps(value)
        self._send(text.encode(), "application/json", status)

    def _send(self, content: bytes | Path, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        length = len(content) if isinstance(content, bytes) else content.stat().st_size
        self._head(kind, status, length=str(length))
        if self.command == "HEAD":
            return
        if isinstance(content, bytes):
            self.wfile.write(content)
            return
        with content.open("rb") as file:
            shutil.copyfileobj(file, self.wfile)

    def _stream(self, parts: Iterator[bytes], kind: str) -> None:
        self.close_connection = True
        self._head(kind, HTTPStatus.OK, length=None)
        for part in parts:
            self.wfile.write(part)

    def _head(self, kind: str, status: HTTPStatus, *, length: str | None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-cache")
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header(*(("Connection", "close") if length is None else ("Content-Length", length)))
        self.end_headers()
