"""What the clients make of replies that no healthy service sends, and of LangChain's messages."""

import asyncio
import json

import httpx
import pytest
from langchain_core.messages import AIMessageChunk, HumanMessage, SystemMessage

from tandem.client import AsyncTandem, Tandem, TandemError
from tandem.langchain import _asked

PIECE = {"choices": [{"delta": {"content": "Ripple costs"}}]}


def cut_short(_request):
    return httpx.Response(200, text=f"data: {json.dumps(PIECE)}\n\n")


def test_stream_that_ends_without_an_answer_is_an_error():
    with Tandem("http://test", "key") as client:
        client._http = httpx.Client(
            base_url="http://test", transport=httpx.MockTransport(cut_short)
        )
        with pytest.raises(TandemError, match="without an answer"):
            list(client.stream("support", "price?"))


def test_asynchronous_stream_that_ends_without_an_answer_is_an_error():
    async def read():
        async with AsyncTandem("http://test", "key") as client:
            client._http = httpx.AsyncClient(
                base_url="http://test", transport=httpx.MockTransport(cut_short)
            )
            return [event async for event in client.stream("support", "price?")]

    with pytest.raises(TandemError, match="without an answer"):
        asyncio.run(read())


def test_wait_that_a_proxy_names_as_a_date_is_no_failure_of_its_own():
    def refuse(_request):
        when = {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}
        return httpx.Response(503, json={"detail": "too many"}, headers=when)

    with Tandem("http://test", "key") as client:
        client._http = httpx.Client(base_url="http://test", transport=httpx.MockTransport(refuse))
        with pytest.raises(TandemError, match="too many") as seen:
            client.ask("support", "price?")
    assert seen.value.retry_after is None


def test_added_up_pieces_of_an_answer_stay_in_the_history():
    said = AIMessageChunk("49 ") + AIMessageChunk("euros")
    asked = _asked([SystemMessage("Be brief"), HumanMessage("Price?"), said, HumanMessage("Why?")])
    assert asked["history"] == [
        {"role": "user", "content": "Price?"},
        {"role": "assistant", "content": "49 euros"},
    ]
    assert asked["system"] == "Be brief"
