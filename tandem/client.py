"""Tandem over HTTP, synchronous and asynchronous: ask, stream, feedback, documents, search, replay.

Example: `Tandem("http://127.0.0.1:8000", key).ask("support", "What does Ripple cost?").text`
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

from tandem._wire import (
    Answer,
    Citation,
    Hit,
    TandemError,
    Turn,
    chat_body,
    document_params,
    document_path,
    raise_for,
    read_answer,
    read_event,
    read_hits,
)

Record = dict[str, Any]
"""A reply as it came."""

__all__ = ["Answer", "AsyncTandem", "Citation", "Hit", "Tandem", "TandemError"]

_CHAT = "/v1/chat/completions"
_TIMEOUT_S = 300.0


class Tandem:
    """A client for threads; use as a context manager or call `close`."""

    def __init__(self, url: str, key: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        """Nothing is sent yet.

        Args:
            url: the service, such as `http://127.0.0.1:8000`.
            key: an API key (`tandem keys create`).
            timeout_s: most seconds to wait for any one reply, or between two events of a stream.
        """
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx.Client(base_url=url, headers=headers, timeout=timeout_s)

    def ask(
        self,
        use_case: str,
        question: str,
        *,
        history: Sequence[Turn] = (),
        system: str = "",
        schema: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Answer:
        """A finished answer.

        Args:
            use_case: who answers.
            question: the user's words.
            history: earlier turns, `{"role": "user" or "assistant", "content": ...}`.
            system: more instructions, put after the use case's own.
            schema: JSON schema the answer must follow; read it with `Answer.data`.
            options: `arm`, `adapter`, `groups`, `as_of`, `where` as the API takes them.

        Raises:
            TandemError: The service refused, or did not answer.
        """
        body = chat_body(
            use_case, question, history=history, system=system, schema=schema, options=options
        )
        return read_answer(self._call("POST", _CHAT, json=body))

    def stream(
        self,
        use_case: str,
        question: str,
        *,
        history: Sequence[Turn] = (),
        system: str = "",
        **options: Any,
    ) -> Iterator[str | Answer]:
        """Pieces of text as they come, then the finished answer; closing it early cancels.

        Raises:
            TandemError: The service refused, or the answer failed midway.
        """
        body = chat_body(
            use_case, question, history=history, system=system, stream=True, options=options
        )
        finished = False
        try:
            with self._http.stream("POST", _CHAT, json=body) as response:
                if not response.is_success:
                    response.read()
                    raise_for(response)
                for line in response.iter_lines():
                    event = read_event(line)
                    if event is not None:
                        yield event
                    finished = finished or isinstance(event, Answer)
            if not finished:
                raise TandemError("the stream ended without an answer")
        except httpx.HTTPError as error:
            raise TandemError(f"the stream broke: {error}") from error

    def feedback(self, answer_id: str, rating: str, correction: str | None = None) -> Record:
        """Rate an answer `up` or `down`; a correction opens a review."""
        body = {"answer_id": answer_id, "rating": rating, "correction": correction}
        record: Record = self._call("POST", "/api/v1/feedback", json=body)
        return record

    def put_document(
        self,
        knowledge_base: str,
        document: str,
        content: bytes | str,
        *,
        groups: Iterable[str] | None = None,
        attributes: Mapping[str, str] | None = None,
        valid_from: str | None = None,
    ) -> Record:
        """Make `content` the document's content; it is answered from when this returns."""
        params = document_params(groups, attributes, valid_from)
        path = document_path(knowledge_base, document)
        record: Record = self._call("PUT", path, content=content, params=params)
        return record

    def documents(self, knowledge_base: str) -> list[Record]:
        """The documents that answers come from."""
        return list(self._call("GET", document_path(knowledge_base)))

    def get_document(self, knowledge_base: str, document: str) -> Record:
        """A document with its versions and chunks."""
        record: Record = self._call("GET", document_path(knowledge_base, document))
        return record

    def delete_document(self, knowledge_base: str, document: str) -> Record:
        """Delete a document; nothing of it is answered from when this returns."""
        record: Record = self._call("DELETE", document_path(knowledge_base, document))
        return record

    def search(
        self, knowledge_base: str, query: str, *, limit: int = 5, **narrowing: Any
    ) -> tuple[Hit, ...]:
        """The best passages; `groups`, `as_of` and `where` narrow what is searched."""
        path = f"/api/v1/knowledge-bases/{quote(knowledge_base, safe='')}/search"
        body = {"query": query, "limit": limit, **narrowing}
        return read_hits(self._call("POST", path, json=body))

    def get_answer(self, answer_id: str) -> Record:
        """Where an answer came from: passages, versions, adapter, examples, decision, identity."""
        record: Record = self._call("GET", f"/api/v1/answers/{quote(answer_id, safe='')}")
        return record

    def replay(self, answer_id: str) -> Record:
        """The answer generated again, and which parts of its identity changed."""
        record: Record = self._call("POST", f"/api/v1/answers/{quote(answer_id, safe='')}/replay")
        return record

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Tandem:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        try:
            response = self._http.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            raise TandemError(f"the service does not answer: {error}") from error
        raise_for(response)
        return response.json()


class AsyncTandem:
    """The same client for asyncio; use as an asynchronous context manager or call `close`."""

    def __init__(self, url: str, key: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        """Nothing is sent yet; arguments as `Tandem`."""
        headers = {"Authorization": f"Bearer {key}"}
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout_s)

    async def ask(
        self,
        use_case: str,
        question: str,
        *,
        history: Sequence[Turn] = (),
        system: str = "",
        schema: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Answer:
        """A finished answer; arguments as `Tandem.ask`."""
        body = chat_body(
            use_case, question, history=history, system=system, schema=schema, options=options
        )
        return read_answer(await self._call("POST", _CHAT, json=body))

    async def stream(
        self,
        use_case: str,
        question: str,
        *,
        history: Sequence[Turn] = (),
        system: str = "",
        **options: Any,
    ) -> AsyncIterator[str | Answer]:
        """Pieces of text as they come, then the finished answer; closing it early cancels."""
        body = chat_body(
            use_case, question, history=history, system=system, stream=True, options=options
        )
        finished = False
        try:
            async with self._http.stream("POST", _CHAT, json=body) as response:
                if not response.is_success:
                    await response.aread()
                    raise_for(response)
                async for line in response.aiter_lines():
                    event = read_event(line)
                    if event is not None:
                        yield event
                    finished = finished or isinstance(event, Answer)
            if not finished:
                raise TandemError("the stream ended without an answer")
        except httpx.HTTPError as error:
            raise TandemError(f"the stream broke: {error}") from error

    async def feedback(self, answer_id: str, rating: str, correction: str | None = None) -> Record:
        """Rate an answer `up` or `down`; a correction opens a review."""
        body = {"answer_id": answer_id, "rating": rating, "correction": correction}
        record: Record = await self._call("POST", "/api/v1/feedback", json=body)
        return record

    async def put_document(
        self,
        knowledge_base: str,
        document: str,
        content: bytes | str,
        *,
        groups: Iterable[str] | None = None,
        attributes: Mapping[str, str] | None = None,
        valid_from: str | None = None,
    ) -> Record:
        """Make `content` the document's content; it is answered from when this returns."""
        params = document_params(groups, attributes, valid_from)
        path = document_path(knowledge_base, document)
        record: Record = await self._call("PUT", path, content=content, params=params)
        return record

    async def documents(self, knowledge_base: str) -> list[Record]:
        """The documents that answers come from."""
        return list(await self._call("GET", document_path(knowledge_base)))

    async def get_document(self, knowledge_base: str, document: str) -> Record:
        """A document with its versions and chunks."""
        record: Record = await self._call("GET", document_path(knowledge_base, document))
        return record

    async def delete_document(self, knowledge_base: str, document: str) -> Record:
        """Delete a document; nothing of it is answered from when this returns."""
        record: Record = await self._call("DELETE", document_path(knowledge_base, document))
        return record

    async def search(
        self, knowledge_base: str, query: str, *, limit: int = 5, **narrowing: Any
    ) -> tuple[Hit, ...]:
        """The best passages; `groups`, `as_of` and `where` narrow what is searched."""
        path = f"/api/v1/knowledge-bases/{quote(knowledge_base, safe='')}/search"
        body = {"query": query, "limit": limit, **narrowing}
        return read_hits(await self._call("POST", path, json=body))

    async def get_answer(self, answer_id: str) -> Record:
        """Where an answer came from."""
        record: Record = await self._call("GET", f"/api/v1/answers/{quote(answer_id, safe='')}")
        return record

    async def replay(self, answer_id: str) -> Record:
        """The answer generated again, and which parts of its identity changed."""
        record: Record = await self._call(
            "POST", f"/api/v1/answers/{quote(answer_id, safe='')}/replay"
        )
        return record

    async def close(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncTandem:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _call(self, method: str, path: str, **kwargs: Any) -> Any:
        try:
            response = await self._http.request(method, path, **kwargs)
        except httpx.HTTPError as error:
            raise TandemError(f"the service does not answer: {error}") from error
        raise_for(response)
        return response.json()
