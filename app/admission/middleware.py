"""Admission before a byte of the body is read: authenticate, count, queue, or refuse."""

from __future__ import annotations

import json
import re
from typing import Any

import structlog
from anyio import to_thread
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.admission.callers import Callers, Credentials
from app.admission.service import Admission
from app.errors import AppError, TooLarge, as_app_error, problem
from app.metrics import Metrics
from app.workspaces.service import Caller

log = structlog.get_logger(__name__)

_KNOWN = ("/v1/", "/api/v1/")
# What costs a search or a generation. Deletes, revocations and health are never queued.
_COSTLY = re.compile(
    r"/v1/chat/completions|/api/v1/answers/[^/]+/replay|/api/v1/knowledge-bases/[^/]+/search"
    r"|/api/v1/use-cases/[^/]+/calibration/outcomes"
)
_DEFAULTS = Credentials("")


class AdmissionMiddleware:
    """Pure ASGI. Puts the `Caller` under `tandem.caller` and the `Ticket` under `tandem.ticket`."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        callers: Callers,
        admission: Admission,
        metrics: Metrics,
        max_body_bytes: int,
    ) -> None:
        self._app = app
        self._callers = callers
        self._admission = admission
        self._metrics = metrics
        self._max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Admit or refuse one request."""
        if scope["type"] != "http" or not scope["path"].startswith(_KNOWN):
            await self._app(scope, receive, send)
            return
        ticket = None
        try:
            headers = dict(scope["headers"])
            scope["tandem.caller"] = caller = await self._identify(headers)
            if scope["method"] == "POST" and _COSTLY.fullmatch(scope["path"]):
                self._check_size(headers)
                ticket = await self._admission.enter(caller)
                scope["tandem.ticket"] = ticket
                receive = _counted(receive, self._max_body_bytes)
        except AppError as error:
            self._metrics.refused.inc(status=str(error.status))
            await _refuse(send, error)
            return
        try:
            await self._app(scope, receive, send)
        finally:
            if ticket is not None:
                await self._leave(ticket)

    async def _leave(self, ticket: Any) -> None:
        try:
            await self._admission.leave(ticket)
        except AppError as error:  # the answer is out: what could not be counted is only logged
            log.warning("quota_not_charged", tokens=ticket.tokens, reason=error.detail)

    async def _identify(self, headers: dict[bytes, bytes]) -> Caller:
        credentials = Credentials(
            headers.get(b"authorization", b"").decode("latin-1"),
            headers.get(b"x-tandem-workspace", _DEFAULTS.workspace.encode()).decode("latin-1"),
            headers.get(b"x-tandem-as", _DEFAULTS.acting_as.encode()).decode("latin-1"),
        )
        found = self._callers.remembered(credentials)
        if found is not None:
            return found
        return await to_thread.run_sync(self._callers.identify, credentials)

    def _check_size(self, headers: dict[bytes, bytes]) -> None:
        declared = headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > self._max_body_bytes:
            raise TooLarge(
                f"the request has {int(declared)} bytes, the limit is {self._max_body_bytes}"
            )


def _counted(receive: Receive, most: int) -> Receive:
    """The body, unless it grows larger than allowed: one sent in chunks declares no size."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > most:
            raise HTTPException(413, f"the request has more than {most} bytes")
        return message

    return counted


async def _refuse(send: Send, error: AppError) -> None:
    expected = as_app_error(error) or error
    body = json.dumps(problem(expected), ensure_ascii=False).encode()
    headers = [
        (b"content-type", b"application/problem+json"),
        (b"content-length", str(len(body)).encode()),
    ]
    if expected.retry_after is not None:
        headers.append((b"retry-after", str(expected.retry_after).encode()))
    await send({"type": "http.response.start", "status": expected.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
