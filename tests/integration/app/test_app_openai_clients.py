"""Unchanged clients against a real server: openai's own and LangChain's."""

import time

import openai
import pytest
from conftest import PAGES, Service
from factories import listening, make_container

from app.main import create_app

QUESTION = "What does the Ripple plan cost a month?"


class Live:
    def __init__(self, url, key, container):
        self.url, self.key, self.container = url, key, container


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    from starlette.testclient import TestClient

    container = make_container(tmp_path_factory.mktemp("home"))
    app = create_app(container)
    container.prepare()
    furnished = Service(container, TestClient(app), None).furnished(PAGES)
    with listening(app, patience_s=20) as url:
        yield Live(f"{url}/v1", furnished.keys["client"], container)


@pytest.fixture(scope="module")
def client(live):
    with openai.OpenAI(base_url=live.url, api_key=live.key, max_retries=0) as client:
        yield client


def ask(client, question=QUESTION, **more):
    messages = [{"role": "user", "content": question}]
    return client.chat.completions.create(model="support", messages=messages, **more)


def test_models_are_the_use_cases(client):
    assert [model.id for model in client.models.list()] == ["support"]


def test_completion_with_annotations(client):
    reply = ask(client)
    message = reply.choices[0].message
    assert "49 euros" in message.content
    assert message.annotations[0].url_citation.url.startswith("tandem://plans.md?version=1")
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens
    assert reply.model_extra["tandem"]["arm"] == "hybrid"


def test_stream_joins_to_the_whole_answer(client):
    whole = ask(client).choices[0].message.content
    pieces, last, usage = [], None, None
    for event in ask(client, stream=True, stream_options={"include_usage": True}):
        usage = event.usage or usage
        if event.choices:
            pieces.append(event.choices[0].delta.content or "")
            last = event if event.choices[0].finish_reason else last
    assert "".join(pieces).strip() == whole
    assert len(pieces) > 3
    annotations = last.choices[0].delta.model_extra["annotations"]
    assert annotations[0]["tandem"]["document"] == "plans.md"
    assert usage.completion_tokens > 0


def test_arm_is_chosen_with_extra_body(client):
    reply = ask(client, extra_body={"tandem": {"arm": "prompt"}})
    assert reply.model_extra["tandem"]["arm"] == "prompt"


@pytest.mark.parametrize(
    ("change", "error", "said"),
    [
        ({"model": "nobody"}, openai.NotFoundError, "there are support"),
        ({"n": 3}, openai.BadRequestError, "one choice"),
        ({"temperature": 7}, openai.UnprocessableEntityError, "temperature"),
    ],
)
def test_errors_are_the_clients_own_with_our_sentence(client, change, error, said):
    body = {"model": "support", "messages": [{"role": "user", "content": "Hi"}]} | change
    with pytest.raises(error, match=said):
        client.chat.completions.create(**body)


def test_wrong_key_is_an_authentication_error(live):
    with (
        openai.OpenAI(base_url=live.url, api_key="tdm.no.no", max_retries=0) as client,
        pytest.raises(openai.AuthenticationError, match="not valid"),
    ):
        client.models.list()


def test_error_midway_in_a_stream_reaches_the_client(live, client):
    from app.engines.types import EngineError

    live.container.engine.failure = EngineError("the model lost its mind")
    try:
        with pytest.raises(openai.APIError, match="lost its mind"):
            list(ask(client, stream=True))
    finally:
        live.container.engine.failure = None


def test_client_that_hangs_up_stops_the_generation(live, client):
    engine = live.container.engine
    before = engine.cancelled
    engine.piece_delay_s = 0.1
    try:
        with ask(client, stream=True) as stream:
            next(iter(stream))
            next(iter(stream))
        deadline = time.monotonic() + 5
        while engine.cancelled == before and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        engine.piece_delay_s = 0.0
    assert engine.cancelled == before + 1
    assert engine.active == 0


def test_many_clients_at_once_all_get_their_own_answer(client):
    from concurrent.futures import ThreadPoolExecutor

    wanted = {
        QUESTION: "49 euros",
        "What does the Torrent plan cost?": "79 euros",
        "How long can a helmet be returned after delivery?": "21 days",
    }
    questions = list(wanted) * 5
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda q: ask(client, q).choices[0].message.content, questions))
    assert all(wanted[q] in reply for q, reply in zip(questions, replies, strict=True))


def test_langchain_chat_model_answers_and_streams(live):
    from langchain_openai import ChatOpenAI

    chat = ChatOpenAI(model="support", base_url=live.url, api_key=live.key, max_retries=0)
    whole = chat.invoke(QUESTION)
    assert "49 euros" in whole.content
    streamed = list(chat.stream(QUESTION))
    assert "".join(str(piece.content) for piece in streamed).strip() == whole.content
    assert whole.usage_metadata["output_tokens"] > 0


def test_langchain_chat_model_answers_asynchronously(live):
    import asyncio

    from langchain_openai import ChatOpenAI

    async def both():
        chat = ChatOpenAI(model="support", base_url=live.url, api_key=live.key, max_retries=0)
        whole = await chat.ainvoke(QUESTION)
        return whole.content, [piece.content async for piece in chat.astream(QUESTION)]

    whole, pieces = asyncio.run(both())
    assert "".join(pieces).strip() == whole


def test_retriever_is_a_langchain_retriever(live):
    from app.db.tables import KnowledgeBase
    from app.knowledge import service

    container = live.container
    with container.database.session() as session:
        kb = session.query(KnowledgeBase).filter_by(name="docs").one()
    question = service.Question(kb.workspace_id, (kb.id,), "", 2)
    retriever = service.retriever(container.database, container.knowledge, question)
    documents = retriever.invoke(QUESTION)
    assert "49 euros" in documents[0].page_content
    assert len(documents) <= 2
