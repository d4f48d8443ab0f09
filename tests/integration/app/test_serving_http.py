"""Serving over HTTP: cache, threshold, fallback, JSON answers, replay, quotas, metrics."""

import asyncio
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from factories import READER_DIGEST, write_jsonl

from app.answers.generating import Generator
from app.answers.openai_endpoints import _EventStream, _sse
from app.db.tables import AnswerChunk, CachedAnswer, Chunk
from app.engines.types import EngineError, Generation
from evals.runner import read_outputs
from retrieval.search import SearchOptions

PRICE = "What does the Ripple plan cost a month?"
HELMET = "How long can a helmet be returned after delivery?"


@pytest.fixture(scope="module")
def shared(service):
    return service.furnished()


@pytest.fixture
def tenant(shared):
    """A tenant whose documents nobody changes; options and limits are taken away afterwards."""
    yield shared
    options = shared.call("GET", "/api/v1/use-cases/support").json()["options"]
    set_options(shared, **dict.fromkeys(options))
    with shared.service.container.database.session() as session:
        session.query(CachedAnswer).filter_by(workspace_id=shared.id).delete()


@pytest.fixture
def fresh(service):
    return service.furnished()


@pytest.fixture
def engine(service):
    engine = service.container.engine
    yield engine
    engine.failure = None
    engine.piece_delay_s = 0.0
    engine.__dict__.pop("generate", None)
    engine.__dict__.pop("stream", None)


def set_options(tenant, **options):
    made = tenant.call("PATCH", "/api/v1/use-cases/support", json={"options": options})
    assert made.is_success, made.text


def info(reply):
    assert reply.status_code == 200, reply.text
    return reply.json()["tandem"]


def says(engine, text, finish="stop"):
    """Make the engine say a fixed text."""

    def generate(request):
        return Generation(text, finish, len(request.prompt_ids), 7, 0.0, 0.0)

    engine.generate = generate
    engine.stream = lambda request: iter([text, generate(request)])


def cached_rows(tenant):
    with tenant.service.container.database.reading() as session:
        return session.query(CachedAnswer).filter_by(workspace_id=tenant.id).count()


def metric(tenant, name):
    lines = tenant.service.client.get("/metrics").text.splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name))


# --- cache ---


def test_cache_is_off_unless_the_use_case_wants_it(tenant):
    assert [info(tenant.ask("support", PRICE))["cached_from"] for _ in range(2)] == [None, None]
    assert cached_rows(tenant) == 0


def test_equal_request_is_given_the_same_generation_without_the_engine(tenant, engine):
    set_options(tenant, cache="exact")
    first = tenant.ask("support", PRICE).json()
    prompts = len(engine.prompts)
    second = tenant.ask("support", PRICE).json()
    assert len(engine.prompts) == prompts
    assert second["tandem"]["cached_from"] == first["tandem"]["answer_id"]
    assert second["choices"][0]["message"] == first["choices"][0]["message"]
    assert second["tandem"]["answer_id"] != first["tandem"]["answer_id"]
    streamed = tenant.ask("support", PRICE, stream=True).text
    assert "49 euros" in streamed
    assert len(engine.prompts) == prompts
    replayed = tenant.call("POST", f"/api/v1/answers/{second['tandem']['answer_id']}/replay")
    assert replayed.json()["same"] is True


@pytest.mark.parametrize(
    "change",
    [
        {"messages": [{"role": "user", "content": PRICE + " Please"}]},
        {"tandem": {"arm": "rag"}},
        {"tandem": {"groups": ["staff"]}},
        {"max_tokens": 3},
        {"temperature": 0.5},
        {"messages": [{"role": "system", "content": "Hurry"}, {"role": "user", "content": PRICE}]},
    ],
)
def test_any_other_request_is_generated_anew(tenant, change):
    set_options(tenant, cache="exact")
    tenant.ask("support", PRICE)
    body = {"model": "support", "messages": [{"role": "user", "content": PRICE}]} | change
    assert info(tenant.call("POST", "/v1/chat/completions", json=body))["cached_from"] is None


def test_question_of_the_same_meaning_is_given_the_generation(tenant, engine):
    set_options(tenant, cache="semantic", cache_similarity=0.9)
    first = info(tenant.ask("support", "What does the Ripple plan cost a month, please?"))
    prompts = len(engine.prompts)
    second = info(tenant.ask("support", "please, what does the Ripple plan cost a month"))
    assert second["cached_from"] == first["answer_id"]
    assert len(engine.prompts) == prompts
    other = tenant.ask("support", "What does the Torrent plan cost a month, please?").json()
    assert other["tandem"]["cached_from"] is None
    assert "79 euros" in other["choices"][0]["message"]["content"]
    negated = info(tenant.ask("support", "What does the Ripple plan not cost a month, please?"))
    assert negated["cached_from"] is None


def test_changed_document_evicts_exactly_the_answers_made_of_it(fresh):
    set_options(fresh, cache="exact")
    prices = info(fresh.ask("support", PRICE))
    set_options(fresh, abstain_below=None)
    helmet = info(fresh.ask("support", HELMET, tandem={"where": {}}))
    used = {
        which: {p["document"] for p in record["passages"]}
        for which, record in (
            (name, fresh.call("GET", f"/api/v1/answers/{asked['answer_id']}").json())
            for name, asked in (("prices", prices), ("helmet", helmet))
        )
    }
    before = cached_rows(fresh)
    assert before == 2
    gone = sum("hours.txt" in documents for documents in used.values())
    fresh.upload("docs", {"hours.txt": "Workshop hours\n\nThe workshop opens at 9:30.\n"})
    assert cached_rows(fresh) == before - gone
    fresh.call("DELETE", "/api/v1/knowledge-bases/docs/documents/plans.md")
    assert cached_rows(fresh) == sum(
        not documents & {"hours.txt", "plans.md"} for documents in used.values()
    )


def test_closing_a_document_evicts_and_hides_what_it_said(fresh):
    set_options(fresh, cache="exact")
    assert "49 euros" in fresh.ask("support", PRICE).text
    path = "/api/v1/knowledge-bases/docs/groups/plans.md"
    assert fresh.call("PUT", path, json={"groups": ["staff"]}).is_success
    assert cached_rows(fresh) == 0
    outside = fresh.ask("support", PRICE, tandem={"groups": ["guests"]})
    assert "49 euros" not in outside.json()["choices"][0]["message"]["content"]


def test_what_ended_between_search_and_answer_is_not_given(tenant):
    set_options(tenant, cache="exact")
    tenant.ask("support", PRICE)
    chain = tenant.service.container.answers.chain
    ports, stale = chain._ports, metric(tenant, "tandem_cache_stale_total")
    chain._ports = replace(ports, still_visible=lambda _request, _versions: False)
    try:
        assert info(tenant.ask("support", PRICE))["cached_from"] is None
    finally:
        chain._ports = ports
    assert metric(tenant, "tandem_cache_stale_total") == stale + 1


def test_no_stale_hit_while_documents_prompts_and_adapters_change_mid_traffic(fresh):
    """Every answer names the price that was current at some moment of its request."""
    set_options(fresh, cache="semantic")
    current, oldest_valid, stop, wrong = [49], {}, threading.Event(), []

    def keep_asking(number):
        count = 0
        while not stop.is_set():
            floor = current[0]
            arm = "rag" if (count + number) % 3 == 0 else "hybrid"
            reply = fresh.ask("support", PRICE, tandem={"arm": arm}).json()
            text = reply["choices"][0]["message"]["content"]
            said = [p for p in range(40, 80) if f"{p} euros" in text]
            if said and not floor <= said[0] <= current[-1]:
                wrong.append((floor, said, current[-1]))
            oldest_valid[number] = count = count + 1

    hits = metric(fresh, 'tandem_cache_lookups_total{outcome="exact"}')
    with ThreadPoolExecutor(3) as pool:
        asking = [pool.submit(keep_asking, n) for n in range(3)]
        for price in range(50, 56):
            text = f"# Plans\n\nThe Ripple plan costs {price} euros a month.\n"
            current.append(price)
            put = fresh.call(
                "PUT", "/api/v1/knowledge-bases/docs/documents/plans.md", content=text.encode()
            )
            assert put.is_success, put.text
            current.pop(0)
            fresh.call(
                "PATCH", "/api/v1/use-cases/support", json={"options": {"max_answer_tokens": price}}
            )
            threading.Event().wait(0.05)
        stop.set()
        for task in asking:
            task.result()
    assert wrong == []
    assert sum(oldest_valid.values()) >= 6
    assert metric(fresh, 'tandem_cache_lookups_total{outcome="exact"}') > hits


# --- abstention, grounding, follow-ups ---


def test_coverage_below_the_threshold_abstains_without_the_engine(tenant, engine):
    set_options(tenant, abstain_below=1.0)
    prompts = len(engine.prompts)
    reply = info(tenant.ask("support", PRICE))
    assert (reply["abstained"], reply["made_by"]) == (True, "threshold")
    assert len(engine.prompts) == prompts
    assert reply["identity"]["abstain_below"] == 1.0
    set_options(tenant, abstain_below=0.0)
    assert info(tenant.ask("support", PRICE))["made_by"] == "engine"


def test_threshold_is_calibrated_from_samples_and_stored(tenant):
    path = "/api/v1/use-cases/support/calibration"
    sample = {"id": "s", "question": PRICE, "answers": ["49 euros"], "gold": []}
    unknown = {"id": "u", "question": "Which colour is the moon?", "answers": None, "gold": []}
    set_options(tenant, abstain_below=1.0)  # does not hold while calibrating
    judged = tenant.call("POST", f"{path}/outcomes", json={"samples": [sample, unknown]}).json()
    assert [(j["answered"], j["right"]) for j in judged] == [(True, True), (False, True)]
    outcomes = [judged[0] | {"coverage": 0.6 + i / 1000} for i in range(60)]
    wrong = {"coverage": 0.2, "answered": True, "right": False, "answerable": True}
    fitted = tenant.call("POST", path, json={"outcomes": [*outcomes, *[wrong] * 30]}).json()
    assert fitted["applied"] is True
    assert 0.2 < fitted["threshold"] <= 0.6 + 1e-9
    shown = tenant.call("GET", "/api/v1/use-cases/support").json()
    assert shown["options"]["abstain_below"] == fitted["threshold"]


def test_rated_answers_calibrate_too(tenant):
    for rating in ("up", "down"):
        answer = info(tenant.ask("support", PRICE))["answer_id"]
        body = {"answer_id": answer, "rating": rating}
        assert tenant.call("POST", "/api/v1/feedback", json=body).is_success
    fitted = tenant.call("POST", "/api/v1/use-cases/support/calibration", json={"rated": True})
    assert fitted.json()["n"] == 2
    assert fitted.json()["threshold"] is None
    assert fitted.json()["applied"] is False


def test_unsupported_value_abstains_where_the_use_case_must_ground(tenant, engine):
    says(engine, "The Ripple plan costs 59 euros [1].")
    flagged = info(tenant.ask("support", PRICE))
    assert (flagged["grounded"], flagged["abstained"]) == (False, False)
    set_options(tenant, must_ground=True)
    strict = tenant.ask("support", PRICE).json()
    assert strict["tandem"]["abstained"] is True
    assert "59" not in strict["choices"][0]["message"]["content"]
    assert "59 euros" in " ".join(strict["tandem"]["unsupported_values"])
    streamed = tenant.ask("support", PRICE, stream=True).text
    assert "59 euros [1]" not in streamed


def test_citation_is_attached_where_the_bare_model_left_it_out(tenant):
    reply = tenant.ask("support", PRICE, tandem={"arm": "rag"}).json()
    message = reply["choices"][0]["message"]
    assert "[1]" not in message["content"]
    (citation,) = reply["tandem"]["citations"]
    start, end = citation["attached_at"]
    assert "49 euros" in message["content"][start:end]
    place = message["annotations"][0]["url_citation"]
    assert [place["start_index"], place["end_index"]] == [start, end]


def test_follow_up_question_is_searched_with_what_it_leans_on(tenant):
    alone = info(tenant.ask("support", "And what does it cost a month?"))
    history = [
        {"role": "user", "content": "Tell me about the Torrent plan."},
        {"role": "assistant", "content": "The Torrent plan is one of our plans."},
    ]
    asked = {"role": "user", "content": "And what does it cost a month?"}
    body = {"model": "support", "messages": [*history, asked]}
    followed = info(tenant.call("POST", "/v1/chat/completions", json=body))
    assert followed["coverage"] > alone["coverage"]


# --- JSON answers ---

SCHEMA = {
    "type": "object",
    "properties": {"plan": {"type": "string"}, "euros": {"type": "integer"}},
    "required": ["plan", "euros"],
    "additionalProperties": False,
}


def as_schema(schema):
    return {"type": "json_schema", "json_schema": {"name": "price", "schema": schema}}


def test_schema_reaches_the_engine_and_the_answer_is_checked(tenant, engine):
    seen = []
    says(engine, '{"plan": "Ripple", "euros": 49}')
    stream = engine.stream
    engine.stream = lambda request: (seen.append(request), stream(request))[1]
    reply = tenant.ask("support", PRICE, response_format=as_schema(SCHEMA)).json()
    assert json.loads(reply["choices"][0]["message"]["content"]) == {"plan": "Ripple", "euros": 49}
    assert reply["tandem"]["grounded"] is True
    assert dict(seen[0].json_schema) == SCHEMA


@pytest.mark.parametrize("stream", [False, True])
def test_answer_that_does_not_follow_its_schema_is_an_error(tenant, engine, stream):
    says(engine, '{"plan": "Ripple"}')
    reply = tenant.ask("support", PRICE, response_format=as_schema(SCHEMA), stream=stream)
    assert "lacks 'euros'" in reply.text
    assert "Ripple" not in reply.text
    assert reply.status_code == (200 if stream else 503)
    says(engine, '{"plan": "Rip', finish="length")
    cut = tenant.ask("support", PRICE, response_format=as_schema(SCHEMA))
    assert "cut at 7 tokens" in cut.json()["detail"]


def test_use_case_may_have_a_schema_of_its_own(tenant, engine):
    set_options(tenant, json_schema=SCHEMA)
    says(engine, '{"plan": "Ripple", "euros": 50}')
    reply = info(tenant.ask("support", PRICE))
    assert reply["grounded"] is False
    assert reply["unsupported_values"] == ["50"]


@pytest.mark.parametrize("stream", [False, True])
def test_json_answer_abstains_too_where_the_use_case_must_ground(tenant, engine, stream):
    set_options(tenant, json_schema=SCHEMA, must_ground=True)
    says(engine, '{"plan": "Ripple", "euros": 50}')
    reply = tenant.ask("support", PRICE, stream=stream).text
    assert "I could not find this" in reply
    assert "50}" not in reply.replace("\\", "")
    says(engine, '{"plan": "Ripple", "euros": 49}')
    assert info(tenant.ask("support", PRICE))["abstained"] is False


def test_wrong_citation_is_corrected_and_said_unless_switched_off(tenant, engine):
    asked = info(tenant.ask("support", PRICE))["answer_id"]
    passages = tenant.call("GET", f"/api/v1/answers/{asked}").json()["passages"]
    (right,) = [p["number"] for p in passages if "49 euros" in p["text"]]
    wrong = next(p["number"] for p in passages if "49 euros" not in p["text"])
    says(engine, f"The Ripple plan costs 49 euros a month [{wrong}].")
    reply = tenant.ask("support", PRICE).json()
    message = reply["choices"][0]["message"]
    assert message["content"] == f"The Ripple plan costs 49 euros a month [{right}]."
    (citation,) = reply["tandem"]["citations"]
    assert (citation["number"], citation["corrected_from"]) == (right, wrong)
    place = message["annotations"][0]["url_citation"]
    assert message["content"][place["start_index"] : place["end_index"]] == f"[{right}]"
    assert replay(tenant, reply["tandem"]["answer_id"])["same"] is True
    set_options(tenant, correct_citations=False)
    as_said = tenant.ask("support", PRICE).json()
    assert f"[{wrong}]" in as_said["choices"][0]["message"]["content"]
    assert as_said["tandem"]["grounded"] is False


def test_schema_that_cannot_be_checked_is_refused(tenant):
    reply = tenant.ask("support", PRICE, response_format=as_schema({"not": {}}))
    assert reply.status_code == 400
    assert "'not'" in reply.json()["detail"]


# --- fallback, timeouts, streams ---


def test_fallback_is_tried_in_order_and_said_in_the_answer(tenant, engine):
    set_options(tenant, fallback=["rag", "passage"])
    stream = engine.stream

    def only_bare(request):
        if request.adapter is not None:
            raise EngineError("the adapter is broken")
        return stream(request)

    engine.stream = only_bare
    reply = info(tenant.ask("support", PRICE))
    assert reply["arm"] == "rag"
    reason = "the adapter is broken"
    told = {"wanted": "hybrid", "used": "rag", "reason": reason, "engine": None}
    assert reply["fallback"] == told
    record = tenant.call("GET", f"/api/v1/answers/{reply['answer_id']}").json()
    assert record["fallback"] == told


@pytest.mark.parametrize("stream", [False, True])
def test_last_fallback_quotes_the_best_passage(tenant, engine, stream):
    set_options(tenant, fallback=["rag", "passage"])
    engine.failure = EngineError("the model is gone")
    reply = tenant.ask("support", PRICE, stream=stream)
    assert reply.status_code == 200
    assert "The Ripple plan costs 49 euros a month." in reply.text
    assert "not available" in reply.text
    assert '"made_by": "passage"' in reply.text or '"made_by":"passage"' in reply.text


def test_evaluation_measures_the_arm_it_names_and_no_fallback(tenant, engine, tmp_path):
    service = tenant.service
    set_options(tenant, fallback=["rag", "passage"])
    stream = engine.stream

    def only_bare(request):
        if request.adapter is not None:
            raise EngineError("the adapter is broken")
        return stream(request)

    engine.stream = only_bare
    rows = [{"id": "ripple", "question": PRICE, "answers": ["49 euros"]}]
    samples = write_jsonl(tmp_path / "samples.jsonl", rows)
    body = {"use_case": "support", "samples": str(samples), "arms": ["hybrid", "rag"]}
    job = tenant.wait(
        service.operator_in(tenant, "POST", "/api/v1/evaluations", json=body).json()["id"]
    )
    assert job["state"] == "succeeded", job
    outputs = {o.arm: o for o in read_outputs(Path(job["result"]["path"]) / "outputs.jsonl")}
    assert "the adapter is broken" in outputs["hybrid"].error
    assert outputs["hybrid"].text == ""
    assert "49 euros" in outputs["rag"].text


@pytest.mark.parametrize("stream", [False, True])
def test_another_engine_answers_where_the_first_fails(tenant, engine, stream, monkeypatch):
    service = tenant.service.container.answers
    spare = type(engine)(engine._tokenizer)
    broken = type(engine)(engine._tokenizer)
    for other, version in ((spare, "spare"), (broken, "broken")):
        named = engine.identity | {"engine_version": version}
        monkeypatch.setattr(other, "__class__", type("Other", (type(engine),), {"identity": named}))
    broken.failure = EngineError("out of order")
    chains = [service.chain.on(Generator(e, 2)) for e in (broken, spare)]
    monkeypatch.setattr(service, "spares", tuple(chains))
    monkeypatch.setattr(service, "_chains", (service.chain, *chains))
    set_options(tenant, fallback=["prompt"])
    engine.failure = EngineError("the model is gone")
    reply = tenant.ask("support", PRICE, stream=stream)
    assert "49 euros" in reply.text
    if stream:
        assert '"engine": "fake spare"' in reply.text
        return
    told = {"wanted": "hybrid", "used": "hybrid", "reason": "out of order", "engine": "fake spare"}
    assert info(reply)["fallback"] == told
    assert info(reply)["identity"]["engine_version"] == "spare"
    engine.failure = None
    prompts = len(spare.prompts)
    replayed = replay(tenant, info(reply)["answer_id"])
    assert (replayed["same"], replayed["changed"]) == (True, [])
    assert len(spare.prompts) == prompts + 1  # asked of the engine that made it


def test_answer_of_a_server_replaced_meanwhile_names_the_new_one(tenant, engine, monkeypatch):
    set_options(tenant, cache="exact")
    told, stream = [engine.identity | {"engine_version": "old"}], engine.stream
    named = {"identity": property(lambda _: told[-1])}
    monkeypatch.setattr(engine, "__class__", type("Replaced", (type(engine),), named))

    def replaced(request):
        told.append(told[0] | {"engine_version": "new"})
        return stream(request)

    engine.stream = replaced
    assert info(tenant.ask("support", PRICE))["identity"]["engine_version"] == "new"
    assert info(tenant.ask("support", PRICE))["cached_from"] is None  # its key was the old one's
    assert info(tenant.ask("support", PRICE))["cached_from"] is not None


def test_no_second_text_follows_a_stream_that_broke(tenant, engine):
    set_options(tenant, fallback=["passage"])

    def breaks(request):
        yield "The Ripple"
        raise EngineError("broke midway")

    engine.stream = breaks
    text = tenant.ask("support", PRICE, stream=True).text
    assert "The Ripple" in text
    assert "broke midway" in text
    assert "49 euros" not in text
    assert "[DONE]" not in text


def test_stream_that_fails_unforeseen_says_so(tenant, monkeypatch):
    def broken(*_):
        raise sa.exc.OperationalError("INSERT", {}, Exception("the connection was lost"))

    monkeypatch.setattr(tenant.service.container.answers._recorder, "write", broken)
    text = tenant.ask("support", PRICE, stream=True).text
    assert "an unexpected error; the log has it" in text
    assert "connection was lost" not in text
    assert "[DONE]" not in text


def test_whole_answer_nobody_waits_for_is_stopped_too(tenant, engine):
    set_options(tenant, timeout_s=0.1)
    engine.piece_delay_s = 0.1
    before = engine.cancelled
    assert tenant.ask("support", PRICE).status_code == 504
    for _ in range(200):
        if engine.cancelled > before:
            break
        time.sleep(0.02)
    assert engine.cancelled == before + 1


@pytest.mark.parametrize("stream", [False, True])
def test_answer_that_takes_too_long_ends_and_its_engine_is_told(tenant, engine, stream):
    set_options(tenant, timeout_s=0.2)
    engine.piece_delay_s = 0.15
    reply = tenant.ask("support", PRICE, stream=stream)
    assert "no answer within 0.2 s" in reply.text
    assert reply.status_code == (200 if stream else 504)


def test_silent_stream_carries_comments(tenant, engine):
    container = tenant.service.container
    held = container.settings
    container.settings = held.model_copy(update={"heartbeat_s": 0.02})
    engine.piece_delay_s = 0.1
    try:
        lines = tenant.ask("support", PRICE, stream=True).text.split("\n\n")
    finally:
        container.settings = held
    assert sum(line.startswith(": ") for line in lines) >= 3
    assert lines[-2] == "data: [DONE]"


# --- lineage and replay ---


def replay(tenant, answer_id):
    reply = tenant.call("POST", f"/api/v1/answers/{answer_id}/replay")
    assert reply.status_code == 200, reply.text
    return reply.json()


@pytest.mark.parametrize("arm", ["prompt", "rag", "tuned", "hybrid"])
def test_replay_gives_the_same_text(tenant, arm):
    history = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi!"}]
    messages = [
        {"role": "system", "content": "Be brief."},
        *history,
        {"role": "user", "content": "When does the workshop in Harbour Street open?"},
    ]
    body = {"model": "support", "messages": messages, "tandem": {"arm": arm}, "max_tokens": 40}
    asked = info(tenant.call("POST", "/v1/chat/completions", json=body))
    replayed = replay(tenant, asked["answer_id"])
    assert replayed["changed"] == []
    assert replayed["same"] is True
    assert replayed["text"] == replayed["recorded"]


def test_replay_reads_the_versions_that_were_used(fresh):
    answer_id = info(fresh.ask("support", PRICE))["answer_id"]
    fresh.upload("docs", {"plans.md": "# Plans\n\nThe Ripple plan costs 99 euros a month.\n"})
    fresh.call("PATCH", "/api/v1/use-cases/support", json={"arm": "rag"})
    replayed = replay(fresh, answer_id)
    assert replayed["same"] is True
    assert "49 euros" in replayed["text"]


def test_replay_reads_the_neighbours_that_a_passage_was_joined_with(fresh, monkeypatch):
    lines = [
        f"Step {n}: turn the {word} screw until the {word} lamp is lit and wait a while."
        for n, word in enumerate(("brass", "steel", "copper", "silver", "golden"), 1)
    ]
    fresh.upload("docs", {"steps.md": "# Steps\n\n" + "\n\n".join(lines * 3) + "\n"})
    container = fresh.service.container
    searcher = container.knowledge.by_source(None).searcher
    monkeypatch.setattr(searcher, "_options", SearchOptions(neighbours=1))
    answer_id = info(fresh.ask("support", "Which screw is turned until the copper lamp is lit?"))
    answer_id = answer_id["answer_id"]
    shown = fresh.call("GET", f"/api/v1/answers/{answer_id}").json()["passages"]
    prompt = container.engine.prompts[-1]
    with container.database.reading() as session:
        used = session.query(AnswerChunk).filter_by(answer_id=answer_id).all()
        own = {row.number: session.get(Chunk, row.chunk_id).text for row in used}
    assert any(len(p["text"]) > len(own[p["number"]]) for p in shown)  # some were joined
    assert all(p["text"] in prompt for p in shown)
    monkeypatch.setattr(searcher, "_options", SearchOptions())
    replayed = replay(fresh, answer_id)
    assert (replayed["same"], replayed["changed"]) == (True, [])
    joined = next(p for p in shown if len(p["text"]) > len(own[p["number"]]))
    with container.database.session() as session:
        row = next(row for row in used if row.number == joined["number"])
        session.query(Chunk).filter(
            Chunk.version_id == row.version_id, Chunk.id != row.chunk_id
        ).delete()
    (change,) = replay(fresh, answer_id)["changed"][:1]
    assert change["part"] == "passages"
    assert "joined" in change["recorded"]


def test_replay_names_what_was_deleted(fresh):
    answer_id = info(fresh.ask("support", PRICE))["answer_id"]
    fresh.call("DELETE", "/api/v1/knowledge-bases/docs/documents/plans.md")
    replayed = replay(fresh, answer_id)
    assert (replayed["same"], replayed["text"]) == (None, None)
    assert any("plans.md version 1 was deleted" in c["recorded"] for c in replayed["changed"])


def test_replay_names_another_engine_base_and_template(tenant, engine, monkeypatch):
    answer_id = info(tenant.ask("support", PRICE))["answer_id"]
    changed = engine.identity | {"engine_version": "2", "base_sha256": "1" * 64}
    monkeypatch.setattr(type(engine), "identity", property(lambda _self: changed))
    monkeypatch.setattr(tenant.service.container.answers.chain, "_template", "other")
    replayed = replay(tenant, answer_id)
    assert {c["part"] for c in replayed["changed"]} == {"engine", "base", "template"}
    assert replayed["same"] is True  # the text happens to be the same: the parts are still named


def test_replay_names_another_adapter(fresh):
    from app.db.tables import Adapter

    answer_id = info(fresh.ask("support", PRICE))["answer_id"]
    with fresh.service.container.database.session() as session:
        for row in session.query(Adapter).filter_by(workspace_id=fresh.id):
            row.digest = "cd" * 32
    (change,) = replay(fresh, answer_id)["changed"]
    assert change == {"part": "adapter", "recorded": READER_DIGEST, "now": "cd" * 32}


def test_answers_of_others_are_neither_shown_nor_replayed(tenant, service):
    answer_id = info(tenant.ask("support", PRICE))["answer_id"]
    other = service.tenant()
    assert other.call("GET", f"/api/v1/answers/{answer_id}").status_code == 404
    assert other.call("POST", f"/api/v1/answers/{answer_id}/replay").status_code == 404


# --- admission ---


def limit(tenant, key="client-person", **limits):
    made = tenant.call("PATCH", f"/api/v1/keys/{key}/limits", json=limits)
    assert made.status_code == 200, made.text


def test_requests_a_minute_are_refused_before_the_body_is_read(fresh):
    limit(fresh, requests_per_minute=2)
    assert [fresh.ask("support", PRICE).status_code for _ in range(3)] == [200, 200, 429]
    refused = fresh.call("POST", "/v1/chat/completions", "client", content=b"not even json")
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert refused.json()["error"]["type"] == "QuotaExceeded"
    # other keys, and what costs little, go on
    assert fresh.ask("support", PRICE, "owner").status_code == 200
    assert fresh.call("GET", "/v1/models", "client").status_code == 200
    limit(fresh, requests_per_minute=None)
    assert fresh.ask("support", PRICE).status_code == 200


def test_tokens_of_a_day_are_counted_also_those_before_the_limit(fresh):
    used = fresh.ask("support", PRICE).json()["usage"]["total_tokens"]
    limit(fresh, tokens_per_day=used + 1)
    assert fresh.ask("support", PRICE).status_code == 200
    refused = fresh.ask("support", PRICE)
    assert refused.status_code == 429
    assert "tokens a day" in refused.json()["detail"]


def test_a_replay_is_charged(fresh):
    answered = fresh.ask("support", PRICE, "ml").json()
    limit(fresh, tokens_per_day=1)
    path = f"/api/v1/answers/{answered['tandem']['answer_id']}/replay"
    assert fresh.call("POST", path, "client").status_code == 200
    assert fresh.call("POST", path, "client").status_code == 429


def test_judging_samples_is_admitted_as_asking_is(fresh):
    limit(fresh, "ml-person", requests_per_minute=1)
    assert fresh.ask("support", PRICE, "ml").status_code == 200
    path = "/api/v1/use-cases/support/calibration/outcomes"
    assert fresh.call("POST", path, "ml", json={"samples": []}).status_code == 429


def test_stream_that_hangs_up_unread_is_charged_before_its_request_ends():
    ended = []

    class Run:
        def end(self, result):
            ended.append(result)

        @property
        def events(self):
            async def pieces():
                for _ in range(3):
                    yield "piece"

            return pieces()

    async def send(message):
        if b"piece" in message.get("body", b""):
            raise asyncio.CancelledError

    async def scene():
        response = _EventStream(_sse(Run(), "support", False))
        held = response.body_iterator  # as a traceback may hold it
        with pytest.raises(asyncio.CancelledError):
            await response.stream_response(send)
        assert ended == [None]
        return held

    asyncio.run(scene())


def test_answer_is_given_though_another_process_kept_the_same_generation(tenant, monkeypatch):
    def taken(*_):
        raise sa.exc.IntegrityError("INSERT", {}, Exception("key_sha256"))

    set_options(tenant, cache="exact")
    monkeypatch.setattr("app.answers.recorder.store", taken)
    told = info(tenant.ask("support", PRICE))
    assert tenant.call("GET", f"/api/v1/answers/{told['answer_id']}").status_code == 200
    assert cached_rows(tenant) == 0


def test_limits_of_a_workspace_hold_for_all_its_keys(fresh, service):
    path = f"/api/v1/workspaces/{fresh.name}/limits"
    assert fresh.call("PATCH", path, json={"requests_per_minute": 1}).status_code == 403
    done = service.client.patch(path, headers=service.operator, json={"requests_per_minute": 1})
    assert done.json()["limits"]["requests_per_minute"] == 1
    codes = [fresh.ask("support", PRICE, role).status_code for role in ("client", "ml")]
    assert codes == [200, 429]


def test_requests_at_once_are_given_back_also_by_streams_that_hang_up(fresh, engine):
    limit(fresh, concurrency=1)
    for _ in range(3):
        assert fresh.ask("support", PRICE, stream=True).status_code == 200


@pytest.mark.parametrize(
    ("body", "said"),
    [({"concurrency": 0}, "concurrency is 0"), ({"speed": 3}, "speed")],
)
def test_limits_that_cannot_be_are_refused(tenant, body, said):
    reply = tenant.call("PATCH", "/api/v1/keys/client-person/limits", json=body)
    assert reply.status_code in (400, 422)
    assert said in reply.json()["detail"]


def test_without_a_key_no_body_is_read(service):
    reply = service.client.post("/v1/chat/completions", content=b"\xff not json")
    assert reply.status_code == 401
    huge = service.client.post(
        "/v1/chat/completions", headers=service.operator, content=b"x" * (1024 * 1024 + 1)
    )
    assert huge.status_code == 413
    in_chunks = service.client.post(
        "/v1/chat/completions",
        headers=service.operator,
        content=(b"x" * 65_536 for _ in range(17)),
    )
    assert in_chunks.status_code == 413
    assert "1048576 bytes" in in_chunks.json()["detail"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"cache": "always"}, "off, exact, semantic"),
        ({"cache_similarity": 0.2}, "from 0.8 to 1"),
        ({"fallback": ["best"]}, "passage"),
        ({"fallback": ["passage", "rag"]}, "put it last"),
        ({"abstain_below": 2}, "from 0 to 1"),
        ({"must_ground": "yes"}, "true or false"),
        ({"json_schema": {"if": {}}}, "'if'"),
    ],
)
def test_options_that_cannot_be_are_refused(tenant, options, said):
    reply = tenant.call("PATCH", "/api/v1/use-cases/support", json={"options": options})
    assert reply.status_code == 400
    assert said in reply.json()["detail"]


def test_metrics_count_answers_and_tokens(tenant):
    answers = metric(tenant, 'tandem_answers_total{arm="hybrid"')
    tokens = metric(tenant, 'tandem_tokens_total{kind="prompt"}')
    used = tenant.ask("support", PRICE).json()["usage"]
    assert metric(tenant, 'tandem_answers_total{arm="hybrid"') == answers + 1
    assert metric(tenant, 'tandem_tokens_total{kind="prompt"}') == tokens + used["prompt_tokens"]
    assert metric(tenant, "tandem_requests_inside") == 0
