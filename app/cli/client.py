"""How a command reaches the service: a running server, or the same application in this process.

An Edge shard and a SQLite file belong to one process. When a server holds the data directory the
command speaks HTTP to it; otherwise the command takes the directory and calls the application
through ASGI, so that both ways run the same code.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx
from anyio.from_thread import BlockingPortal, start_blocking_portal

from app.config import Settings
from app.errors import AppError, DependencyDown, JobFailed
from app.workspaces.operator import operator_secret

_PATIENCE_S = 3600.0


class RemoteError(AppError):
    """A problem the service reported; the sentence is the service's."""

    def __init__(self, detail: str, status: int) -> None:
        super().__init__(detail)
        self.status = status


class Api:
    """A connection to the service; use as a context manager."""

    def __init__(
        self, settings: Settings, *, workspace: str = "default", acting_as: str = ""
    ) -> None:
        self.settings = settings
        self._headers = {
            "Authorization": f"Bearer {_credentials(settings)}",
            # Headers are ASCII, names are not.
            "X-Tandem-Workspace": quote(workspace),
            "X-Tandem-As": quote(acting_as or "operator"),
        }
        self._stack = contextlib.ExitStack()
        self._portal: BlockingPortal | None = None
        self._http: httpx.Client | httpx.AsyncClient | None = None

    def __enter__(self) -> Api:
        url = running_server(self.settings)
        if url is not None:
            self._http = self._stack.enter_context(
                httpx.Client(base_url=url, headers=self._headers, timeout=_PATIENCE_S)
            )
            return self
        self._open_in_process()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    @property
    def in_process(self) -> bool:
        """Whether no server is running and this process does the work."""
        return self._portal is not None

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """One request; its JSON, or the service's sentence as an error."""
        if isinstance(self._http, httpx.Client):
            response = self._http.request(method, path, **kwargs)
        elif self._portal is not None and self._http is not None:
            http = self._http

            async def send() -> httpx.Response:
                return await http.request(method, path, **kwargs)

            response = self._portal.call(send)
        else:
            raise DependencyDown("the connection is not open")
        if response.status_code >= 400:
            raise RemoteError(_sentence(response), response.status_code)
        return response.json()

    def wait(self, job: dict[str, Any], show: Callable[[dict[str, Any]], None]) -> dict[str, Any]:
        """Follow a job to its end.

        Raises:
            JobFailed: With the job's reason.
        """
        while True:
            job = self.call("GET", f"/api/v1/jobs/{job['id']}")
            show(job)
            if job["state"] == "succeeded":
                return job
            if job["state"] == "failed":
                raise JobFailed(str(job["error"]))
            time.sleep(0.25)

    def _open_in_process(self) -> None:
        # Imported here: a command that talks to a server needs none of it.
        from app.bootstrap import Container, HomeLock
        from app.main import create_app

        lock = HomeLock(self.settings.root)
        lock.acquire()
        self._stack.callback(lock.release)
        app = create_app(Container(self.settings))
        self._portal = self._stack.enter_context(start_blocking_portal())
        self._stack.enter_context(
            self._portal.wrap_async_context_manager(app.router.lifespan_context(app))
        )
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        client = httpx.AsyncClient(
            transport=transport,
            base_url="http://tandem.local",
            headers=self._headers,
            timeout=_PATIENCE_S,
        )
        self._http = self._stack.enter_context(self._portal.wrap_async_context_manager(client))


def running_server(settings: Settings) -> str | None:
    """The address of the server that holds the data directory, if one answers."""
    try:
        record = json.loads((settings.root / "server.json").read_text("utf-8"))
        os.kill(int(record["pid"]), 0)
        url = str(record["url"])
        httpx.get(f"{url}/health", timeout=5).raise_for_status()
    except (OSError, ValueError, KeyError, httpx.HTTPError):
        return None
    return url


def _credentials(settings: Settings) -> str:
    if settings.api_key is not None:
        return settings.api_key.get_secret_value()
    return f"operator.{operator_secret(settings.root)}"


def _sentence(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError):
        return f"the service answered {response.status_code}: {response.text[:200]}"
