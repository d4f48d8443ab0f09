"""The real base model, the shipped reader and the real embedder, end to end."""

import json
import shutil
import threading
import time
from pathlib import Path

import pytest

from app.answers.openai_schemas import ChatRequest
from app.answers.types import AnswerRequest
from app.engines.llamacpp import LlamaCppEngine
from app.engines.types import AdapterRef, EngineError, Generation, GenerationRequest
from app.errors import BadInput
from tuning.prompt import Passage, encode, render_messages

pytestmark = pytest.mark.needs_models
ROOT = Path(__file__).parents[2]
PAGES = ("plans.md", "returns-and-refunds.md", "contact-and-hours.txt")


@pytest.fixture(scope="module")
def base(models_home):
    return models_home / "models" / "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def tokenizer(base):
    from tuning.base_model import load_tokenizer

    return load_tokenizer(str(base / "hf"))


@pytest.fixture(scope="module")
def reader(base, tmp_path_factory):
    """The shipped reader as a GGUF file."""
    from tuning.gguf_export import export_gguf

    target = tmp_path_factory.mktemp("reader") / "reader.gguf"
    export_gguf(ROOT / "tuning" / "reader" / "adapter", str(base / "hf"), target)
    return AdapterRef("reader", target)


@pytest.fixture(scope="module")
def engine(base):
    engine = LlamaCppEngine(
        base / "base-q8_0.gguf",
        base_sha256="x",
        threads=1,  # more crawl when the machine has other work, they wait for each other spinning
        slots=2,
        context_tokens=1024,
        max_adapters=2,
    )
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def ids(tokenizer):
    return encode(tokenizer, render_messages("Name three colours of the rainbow."))


def request(ids, n=24, **fields):
    return GenerationRequest(ids, max_tokens=n, **fields)


def test_greedy_answer_is_the_same_whatever_was_asked_before(engine, tokenizer, ids):
    passages = [Passage("Plans", "The Ripple plan costs 49 euros a month.")]
    others = [
        encode(tokenizer, render_messages(question, passages))
        for question in ("What does Ripple cost?", "Name three colours of the rainbow.")
    ]
    texts = set()
    for between in (ids, *others, ids, *others):
        texts.add(engine.generate(request(ids)).text)
        engine.generate(request(between, n=8))
    assert len(texts) == 1
    assert texts.pop().strip()


def test_stream_gives_the_text_of_the_whole_answer(engine, ids):
    whole = engine.generate(request(ids))
    *pieces, last = engine.stream(request(ids))
    assert isinstance(last, Generation)
    assert "".join(pieces) == last.text == whole.text
    assert (last.completion_tokens, last.prompt_tokens) == (whole.completion_tokens, len(ids))
    assert last.finish_reason == whole.finish_reason == "length"


def test_seed_counts_above_temperature_0(engine, ids):
    texts = [engine.generate(request(ids, temperature=1.0, seed=s)).text for s in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_stop_text_ends_the_answer(engine, ids):
    whole = engine.generate(request(ids)).text
    word = whole.split()[3]
    assert word not in engine.generate(request(ids, stop=(word,))).text


def test_closed_streams_give_their_slots_back(engine, ids):
    for _ in range(5):  # more than the two slots
        stream = engine.stream(request(ids, n=40))
        next(stream)
        stream.close()
    assert engine.generate(request(ids, n=4)).completion_tokens == 4
    deadline = time.monotonic() + 60
    while engine._current.users:
        assert time.monotonic() < deadline, "a closed stream holds its slot"
        time.sleep(0.05)


def test_too_long_prompt_is_said_in_tokens(engine):
    with pytest.raises(BadInput, match="1500 tokens, the model reads at most 1024"):
        engine.generate(request([5] * 1500))
    with pytest.raises(BadInput, match="1500 tokens"):
        list(engine.stream(request([5] * 1500)))


def test_answer_ends_where_the_window_ends(engine, tokenizer):
    ids = encode(tokenizer, render_messages("word " * 960))[:1010]
    assert engine.generate(request(ids, n=100)).completion_tokens <= 14


def test_adapter_changes_the_answer_and_the_base_stays_itself(engine, tokenizer, reader):
    passages = [Passage("Plans > Prices", "The Ripple plan costs 49 euros a month.")]
    ids = encode(tokenizer, render_messages("What does the Ripple plan cost?", passages))
    before = engine.generate(request(ids)).text
    adapted = engine.generate(request(ids, adapter=reader)).text
    assert "49 euros" in adapted
    assert "[1]" in adapted
    assert engine.generate(request(ids)).text == before != adapted


def test_adapter_is_loaded_under_traffic_without_a_failed_request(base, ids, reader, tmp_path):
    engine = LlamaCppEngine(
        base / "base-q8_0.gguf",
        base_sha256="x",
        threads=1,
        slots=3,
        context_tokens=512,
        max_adapters=1,
    )
    other = AdapterRef("other", tmp_path / "other.gguf")
    shutil.copyfile(reader.gguf, other.gguf)
    stop, failures, texts = threading.Event(), [], []

    def keep_asking(adapter):
        while not stop.is_set():
            try:
                texts.append((adapter, engine.generate(request(ids, n=6, adapter=adapter)).text))
            except Exception as error:  # noqa: BLE001 - any failure is the finding
                failures.append(error)
                return

    threads = [threading.Thread(target=keep_asking, args=(a,)) for a in (None, None, reader)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        time.sleep(0.4)
        engine.load_adapter(other)
        time.sleep(0.4)
        engine.load_adapter(reader)
    stop.set()
    for thread in threads:
        thread.join(60)
    engine.close()
    assert failures == []
    assert len(texts) > 6
    assert len({text for adapter, text in texts if adapter is None}) == 1
    assert len(engine._current.adapters) <= 1
    with pytest.raises(EngineError, match="shutting down"):
        engine.generate(request(ids))


@pytest.mark.parametrize("content", [b"", b"not a gguf file", None])
def test_bad_adapter_is_refused_and_serving_goes_on(engine, ids, tmp_path, content):
    bad = AdapterRef(f"bad-{content!r}", tmp_path / "bad.gguf")
    if content is not None:
        bad.gguf.write_bytes(content)
    expected = engine.generate(request(ids)).text
    with pytest.raises(EngineError):
        engine.load_adapter(bad)
    with pytest.raises(EngineError):
        engine.generate(request(ids, adapter=bad))
    assert engine.generate(request(ids)).text == expected


def test_adapter_cut_in_half_is_refused(engine, ids, reader, tmp_path):
    cut = AdapterRef("cut", tmp_path / "cut.gguf")
    cut.gguf.write_bytes(reader.gguf.read_bytes()[: reader.gguf.stat().st_size // 2])
    with pytest.raises(EngineError):
        engine.load_adapter(cut)
    assert engine.generate(request(ids)).text.strip()


def test_probe_process_answers_and_refuses(base, reader, tmp_path):
    from app.models.service import BaseModel
    from app.tuning_runs.adapters import probe

    model = BaseModel("base", "x", str(base / "hf"), base / "base-q8_0.gguf")
    smoke = probe(model, reader.gguf)
    assert all(text.strip() for text in smoke.values())
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF" + b"\x00" * 64)
    with pytest.raises(BadInput, match="its probe failed"):
        probe(model, bad)


@pytest.fixture(scope="module")
def service(models_home, tmp_path_factory):
    """A container over real models; its own data directory."""
    from app.bootstrap import Container
    from app.config import Settings
    from app.workspaces import service as workspaces

    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(models_home / "models")
    container = Container(Settings(_env_file=None, home=home, slots=2, threads=1))
    container.prepare()
    with container.database.session() as session:
        container.workspace = workspaces.ensure_default_workspace(session).id
    yield container
    container.close()


@pytest.fixture(scope="module")
def furnished(service):
    """Three pages of the sample company in `docs`, and a use case over them."""
    from app.db.tables import Job
    from app.knowledge import service as knowledge
    from app.use_cases import service as use_cases

    pages = service.settings.root / "pages"
    pages.mkdir()
    for name in PAGES:
        shutil.copyfile(ROOT / "samples" / "knowledge" / "v1" / name, pages / name)
    with service.database.session() as session:
        kb = knowledge.create(session, service.workspace, "docs", service.embedder_name)
        use_cases.create(session, service.workspace, "support", knowledge_bases=["docs"])
        payload = {
            "knowledge_base_id": kb.id,
            "paths": [str(pages)],
            "sync": False,
            "valid_from": None,
        }
        job = Job(workspace_id=service.workspace, kind="ingest", payload=payload, created_by="test")
        session.add(job)
        session.flush()
    service.jobs.submit(job.id, "ingest")
    deadline = time.monotonic() + 120
    while service.jobs.has_unfinished():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with service.database.session() as session:
        assert session.get(Job, job.id).result["counts"]["added"] == len(PAGES)
    return service


def ask(container, question, **fields):
    return container.answers.answer(
        AnswerRequest(container.workspace, "support", question, asked_by="test", **fields)
    )


def test_whole_loop_answers_with_a_citation(furnished):
    result = ask(furnished, "What does the Ripple plan cost a month?")
    assert result.arm == "hybrid"
    assert "49 euros" in result.text
    assert result.citations[0].document == "plans.md"
    assert "49 euros" in result.citations[0].quote
    again = ask(furnished, "What does the Ripple plan cost a month?")
    assert (again.text, again.identity_sha256) == (result.text, result.identity_sha256)


def test_stream_of_the_whole_loop_is_the_same_answer(furnished):
    question = "What does the Ripple plan cost a month?"
    *pieces, last = furnished.answers.stream(
        AnswerRequest(furnished.workspace, "support", question)
    )
    assert last.text == ask(furnished, question).text
    assert "".join(pieces).strip() == last.text


def test_reader_answers_from_passages_and_abstains_without_gold(furnished):
    """On the answerable sample questions of three pages; a floor, not a benchmark."""
    lines = (ROOT / "samples" / "questions.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    rows = [r for r in rows if r["answers"] and r["gold"] and r["gold"][0] in PAGES][:12]
    assert len(rows) >= 8
    answered = [ask(furnished, r["question"], record=False) for r in rows]
    right = sum(
        any(c.document in r["gold"] for c in a.citations)
        for r, a in zip(rows, answered, strict=True)
    )
    bare = [ask(furnished, r["question"], record=False, without_documents=PAGES) for r in rows]
    assert right >= len(rows) // 4
    assert all(not a.passages for a in bare)
    hidden = [
        ask(furnished, r["question"], record=False, without_documents=tuple(r["gold"]))
        for r in rows
    ]
    assert sum(a.abstained for a in hidden) >= len(rows) // 3


def test_long_history_is_shortened_and_a_too_long_question_is_refused(furnished):
    turns = [{"role": r, "content": "lorem ipsum " * 200} for r in ("user", "assistant")] * 6
    assert ask(furnished, "How much is a helmet?", history=tuple(turns)).text
    with pytest.raises(BadInput, match="the model reads at most"):
        ask(furnished, "why " * 4000)


def test_openai_request_runs_against_the_real_service(furnished):
    from app.workspaces.policy import Principal

    body = ChatRequest(model="support", messages=[{"role": "user", "content": "Opening hours?"}])
    principal = Principal(furnished.workspace, "default", "ada", "client")
    assert furnished.answers.answer(body.to_answer_request(principal)).text
