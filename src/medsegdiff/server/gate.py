"""What every request passes before it is read: who asks, from where, how much is sent, whether there is room."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from medsegdiff.server.assets import HEADERS
from medsegdiff.server.dispatch import Dispatch
from medsegdiff.server.problems import Refusal
from medsegdiff.server.tokens import Tokens, is_loopback
from medsegdiff.server.uploads import too_large

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
API = "/api/v1/"
OPEN = ("/healthz", "/readyz", "/api/v1/about", "/api/v1/openapi.json")
"""Addresses that anybody may ask."""
JOBS = "/api/v1/jobs"
FORM = 1 << 20
"""Bytes that a form adds to the files in it."""


@dataclass
class Gate:
    """Lets requests through to an application."""

    app: Callable[[Scope, Receive, Send], Awaitable[None]]
    dispatch: Dispatch
    tokens: Tokens
    others: tuple[str, ...] = ()
    """Origins of pages that may ask too."""
    guarded: tuple[str, ...] = (API, "/metrics")
    """Beginnings of addresses for which a token is asked."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        try:
            self._check_origin(headers)
            scope["state"] = {**scope.get("state", {}), "user": self._user(scope["path"], scope["method"], headers)}
            self._check_room(scope, headers)
        except Refusal as refusal:
            await _refuse(refusal, send)
            self.dispatch.measured.refused(refusal.status)
            return

        async def counted(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                if message["status"] >= 400:
                    self.dispatch.measured.refused(message["status"])
                message["headers"] = [*message.get("headers", ()), *_encoded(HEADERS)]
            await send(message)

        await self.app(scope, self._measured(receive), counted)

    def _user(self, path: str, method: str, headers: Headers) -> str:
        guarded = path.startswith(self.guarded) and path not in OPEN and method != "OPTIONS"
        user = self.tokens.user(headers.get("authorization")) if guarded else ""
        if user is None:
            raise Refusal(401, "A token is needed: a header 'Authorization: Bearer TOKEN'; ask the server's owner.")
        return user

    def _check_origin(self, headers: Headers) -> None:
        """Refuse pages of others, which a browser on this machine may have open beside ours."""
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self.tokens.users and not is_loopback(urlsplit(f"//{host}").hostname or ""):
            raise Refusal(403, "Without tokens, this server answers to 127.0.0.1 and localhost alone.")
        if origin and origin not in self.others and urlsplit(origin).netloc != host:
            raise Refusal(403, f"Pages of {origin} may not ask. Its owner can allow them: --allow-origin {origin}")

    def _check_room(self, scope: Scope, headers: Headers) -> None:
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.dispatch.limits.upload + FORM:
            raise Refusal(413, too_large(self.dispatch.limits))
        if scope["method"] == "POST" and scope["path"].rstrip("/") == JOBS:
            kind = headers.get("content-type", "")
            if not kind.startswith("multipart/form-data"):
                raise Refusal(415, f"A job is sent as multipart/form-data; this is {kind or 'of no type'}.")
            check_room(self.dispatch)

    def _measured(self, receive: Receive) -> Receive:
        """Stop a request that says little of its length and sends much."""
        left = self.dispatch.limits.upload + FORM

        async def measured() -> MutableMapping[str, Any]:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                from starlette.exceptions import HTTPException

                raise HTTPException(413, too_large(self.dispatch.limits))
            return message

        return measured


def check_room(dispatch: Dispatch) -> None:
    """Refuse a job that nobody could do, or that would wait too long."""
    if dispatch.error:
        raise Refusal(503, f"No model can be used: {dispatch.error}", retry_after=60.0)
    if dispatch.full:
        raise Refusal(
            429, f"{dispatch.limits.queue} jobs wait already. Try again in a while.", retry_after=dispatch.each
        )


async def _refuse(refusal: Refusal, send: Send) -> None:
    body = json.dumps({"error": refusal.words}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"}
    start = {"type": "http.response.start", "status": refusal.status}
    await send({**start, "headers": _encoded({**headers, **refusal.headers, **HEADERS})})
    await send({"type": "http.response.body", "body": body})


def _encoded(headers: dict[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]
