"""What every engine must do, asked of each with the real base model and the shipped reader.

llama.cpp in-process, transformers, and an OpenAI-compatible server: llama.cpp's own over loopback,
and vLLM where TANDEM_TEST_VLLM_URL names one (`make test-vllm` starts it).
"""

import json
import os
import threading
import time
from pathlib import Path

import pytest

from app.engines.llamacpp import LlamaCppEngine
from app.engines.openai_compatible import OpenAICompatibleEngine, ServerAddress
from app.engines.transformers import TransformersEngine
from app.engines.types import AdapterRef, EngineError, Generation, GenerationRequest
from app.errors import BadInput
from tuning.adapters import read_manifest
from tuning.prompt import Passage, encode, render_messages

pytestmark = pytest.mark.needs_models
READER = Path(__file__).parents[2] / "tuning" / "reader" / "adapter"
VLLM = os.environ.get("TANDEM_TEST_VLLM_URL")
WINDOW = 512
SCHEMA = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"type": "integer"}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def base(models_home):
    return models_home / "models" / "smollm2-135m-instruct"


@pytest.fixture(scope="module")
def tokenizer(base):
    from tuning.base_model import load_tokenizer

    return load_tokenizer(str(base / "hf"))


@pytest.fixture(scope="module")
def reader(base, tmp_path_factory):
    """The shipped reader for every engine; its GGUF is called by its digest."""
    from tuning.gguf_export import export_gguf

    digest = read_manifest(READER).digest
    gguf = tmp_path_factory.mktemp("reader") / f"{digest}.gguf"
    export_gguf(READER, str(base / "hf"), gguf)
    return AdapterRef(digest, gguf, READER)


@pytest.fixture(scope="module")
def prompt(tokenizer):
    return encode(tokenizer, render_messages("Name three colours of the rainbow."))


@pytest.fixture(scope="module")
def with_passage(tokenizer):
    passages = [Passage("Plans > Prices", "The Ripple plan costs 49 euros a month.")]
    return encode(tokenizer, render_messages("What does the Ripple plan cost?", passages))


@pytest.fixture(scope="module", params=["llamacpp", "transformers", "llama-server", "vllm"])
def engine(request, base, reader):
    if request.param == "vllm" and VLLM is None:
        pytest.skip("TANDEM_TEST_VLLM_URL is not set: `make test-vllm` starts one and sets it")
    server = None
    if request.param == "llamacpp":
        made = LlamaCppEngine(
            base / "base-q8_0.gguf",
            base_sha256="x",
            threads=1,
            slots=2,
            context_tokens=WINDOW,
            turn_end=2,
        )
    elif request.param == "transformers":
        made = TransformersEngine(str(base / "hf"), base_sha256="x", context_tokens=WINDOW)
    elif request.param == "vllm":
        address = ServerAddress(VLLM)
        made = OpenAICompatibleEngine(address, base_sha256="x", context_tokens=WINDOW)
    else:
        server = llama_server(base / "base-q8_0.gguf", reader.gguf)
        address = ServerAddress(server.listening_address, "base", "llamacpp", "contract-key")
        made = OpenAICompatibleEngine(address, base_sha256="x", context_tokens=WINDOW)
    yield made
    made.close()
    del server


def llama_server(model, adapter):
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx, params.n_parallel, params.warmup = 2 * WINDOW, 2, False
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, ["contract-key"]
    params.cache_ram_mib, params.verbosity = 0, -1
    params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(str(adapter), 0.0)]
    return xllamacpp.Server(params)


def ask(engine, ids, n=16, **fields):
    return engine.generate(GenerationRequest(ids, n, **fields))


def wait_until_idle(engine):
    deadline = time.monotonic() + 60
    while any(engine.load.values()):
        assert time.monotonic() < deadline, f"still busy: {engine.load}"
        time.sleep(0.02)


def test_same_prompt_and_adapter_give_the_same_greedy_answer(engine, with_passage, reader):
    assert ask(engine, with_passage, 24, adapter=reader).text.strip() == "49 euros [1]"


def test_the_base_answers_without_the_adapter_before_and_after_it(engine, prompt, reader):
    before = ask(engine, prompt, 12).text
    assert before.startswith("The rainbow is often associated with three colours")
    ask(engine, prompt, 4, adapter=reader)
    assert ask(engine, prompt, 12).text == before


def test_stream_comes_in_pieces_and_equals_the_whole(engine, prompt):
    *pieces, last = engine.stream(GenerationRequest(prompt, 16))
    assert isinstance(last, Generation)
    assert len(pieces) > 4
    assert "".join(pieces) == last.text == ask(engine, prompt).text
    assert last.prompt_tokens == len(prompt)
    assert last.finish_reason == "length"
    assert last.completion_tokens == 16


@pytest.mark.parametrize("stop", ["three colours", "ours: b", "d with t"])
def test_stop_text_over_several_tokens_ends_the_answer_and_never_shows(engine, prompt, stop):
    whole = ask(engine, prompt, 20).text
    *pieces, last = engine.stream(GenerationRequest(prompt, 20, stop=(stop, "never said")))
    assert "".join(pieces) == last.text == whole[: whole.index(stop)]
    assert last.finish_reason == "stop"


def test_max_tokens_ends_the_answer_and_the_window_bounds_it(engine, prompt):
    short = ask(engine, prompt, 3)
    assert (short.completion_tokens, short.finish_reason) == (3, "length")
    near_full = (prompt * 20)[: WINDOW - 4]
    assert ask(engine, near_full, 100).completion_tokens <= 4
    with pytest.raises(BadInput, match=f"600 tokens, the model reads at most {WINDOW}"):
        ask(engine, [5] * 600)


def test_seed_decides_above_temperature_0(engine, prompt):
    texts = [ask(engine, prompt, temperature=1.0, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_json_schema_holds_or_is_refused_by_name(engine, prompt):
    if isinstance(engine, TransformersEngine):
        with pytest.raises(BadInput, match="llamacpp, or an openai_compatible server"):
            ask(engine, prompt, 40, json_schema=SCHEMA)
        return
    answer = json.loads(ask(engine, prompt, 60, json_schema=SCHEMA).text)
    assert set(answer) == {"colour", "count"}
    assert answer["colour"] in ("red", "blue")
    assert isinstance(answer["count"], int)


def test_closed_streams_free_their_slots(engine, prompt):
    for _ in range(5):
        stream = engine.stream(GenerationRequest(prompt, 300))
        next(stream)
        stream.close()
        with pytest.raises(StopIteration):
            next(stream)
    wait_until_idle(engine)
    assert ask(engine, prompt, 2).completion_tokens == 2


def test_another_thread_may_close_a_stream_that_waits(engine, prompt):
    streams = [engine.stream(GenerationRequest(prompt, 300)) for _ in range(4)]
    ended = []

    def read(stream):
        ended.append(sum(1 for _ in stream))

    readers = [threading.Thread(target=read, args=(stream,)) for stream in streams]
    for thread in readers:
        thread.start()
    for stream in streams:
        stream.close()
    for thread in readers:
        thread.join(60)
    assert len(ended) == 4
    assert max(ended) < 300
    wait_until_idle(engine)


def test_dropped_adapter_comes_back_when_asked_for(engine, with_passage, reader):
    engine.load_adapter(reader)
    assert reader.digest in engine.adapters
    engine.drop_adapter(reader.digest)
    engine.drop_adapter(reader.digest)
    assert reader.digest not in engine.adapters
    assert ask(engine, with_passage, 24, adapter=reader).text.strip() == "49 euros [1]"


def test_adapter_that_is_not_there_is_refused_and_serving_goes_on(engine, prompt, tmp_path):
    nowhere = AdapterRef("0" * 64, tmp_path / "none.gguf", tmp_path / "none")
    expected = ask(engine, prompt, 4).text
    with pytest.raises(EngineError):
        ask(engine, prompt, 4, adapter=nowhere)
    assert ask(engine, prompt, 4).text == expected


def test_identity_names_engine_version_base_and_file(engine):
    assert set(engine.identity) >= {"engine", "engine_version", "base_sha256", "file"}
    assert all(engine.identity.values())


def test_a_kept_system_text_saves_its_tokens_and_changes_no_answer(base, tokenizer, reader):
    """Every order of asking gives the answer that a fresh engine gives."""
    system = "You are a helpful support assistant. " + "Answer briefly and kindly. " * 6
    asked = [
        encode(tokenizer, render_messages(question, [Passage("Plans", text)], system=system))
        for question in ("What does the Ripple plan cost?", "What does the Ripple plan include?")
        for text in ("The Ripple plan costs 49 euros a month.", "The Wave plan has 5 seats.")
    ]
    engine = LlamaCppEngine(
        base / "base-q8_0.gguf",
        base_sha256="x",
        threads=1,
        slots=1,
        context_tokens=WINDOW,
        turn_end=tokenizer.eos_token_id,
    )
    answers = {}
    for number in (0, 1, 2, 3, 2, 2, 0, 3, 1):
        for adapter in (None, reader) if number % 2 else (None,):
            done = ask(engine, asked[number], 10, adapter=adapter)
            answers.setdefault((number, adapter), set()).add(done.text)
            assert 40 < done.details["cached_tokens"] < len(asked[number]) - 20
    engine.close()
    assert all(len(texts) == 1 for texts in answers.values())


def test_merged_adapters_answer_alike_and_give_their_place_up(base, reader, prompt, with_passage):
    engine = LlamaCppEngine(
        base / "base-q8_0.gguf",
        base_sha256="x",
        threads=1,
        slots=2,
        context_tokens=WINDOW,
        max_adapters=1,
        merged=True,
    )
    try:
        before = ask(engine, prompt, 12).text
        assert ask(engine, with_passage, 24, adapter=reader).text.strip() == "49 euros [1]"
        assert ask(engine, prompt, 12).text == before
        assert engine.identity["adapters"] == "merged into the base"
        other = AdapterRef("another", reader.gguf)
        assert ask(engine, with_passage, 24, adapter=other).text.strip() == "49 euros [1]"
        assert engine.adapters == ("another",)
        engine.drop_adapter("another")
        assert engine.adapters == ()
        with pytest.raises(EngineError, match="is no adapter file"):
            engine.load_adapter(AdapterRef("base", base / "base-q8_0.gguf"))
    finally:
        engine.close()


def test_identity_tells_the_served_bytes_apart(base, tmp_path):
    import hashlib

    file = base / "base-q8_0.gguf"
    engine = LlamaCppEngine(file, base_sha256="x", threads=1, slots=1, context_tokens=WINDOW)
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert engine.identity["file"] == f"{file.name}@{digest[:16]}"
        assert "adapters" not in engine.identity
    finally:
        engine.close()


def test_llamacpp_tells_of_a_prompt_batch_by_batch(base):
    from app.engines.llamacpp_server import BATCH_TOKENS, ServerMaker

    server = ServerMaker(base / "base-q8_0.gguf", 1, 1, 2048).beside(()).server
    ids, seen = [100 + i for i in range(2 * BATCH_TOKENS + 40)], []

    def on_event(event):
        seen.append(event["prompt_progress"]["processed"])
        return len(seen) == 2

    body = {"prompt": ids, "n_predict": 4, "stream": True, "return_progress": True}
    server.handle_completions(body | {"cache_prompt": False, "lora": []}, on_event)
    assert seen == [0, BATCH_TOKENS]
    short = server.handle_completions({"prompt": ids[:8], "n_predict": 1, "lora": []})
    assert short["usage"]["completion_tokens"] == 1
