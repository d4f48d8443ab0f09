"""The OpenAI-compatible engine against real sockets: retries, cuts, timeouts, hanging up."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from app.engines import openai_compatible
from app.engines.openai_compatible import OpenAICompatibleEngine, ServerAddress
from app.engines.types import AdapterRef, EngineError, Generation, GenerationRequest
from app.errors import BadInput

SCHEMA = {"type": "object"}


class Handler(BaseHTTPRequestHandler):
    """Answers by the script of its server: one entry per completion request."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_GET(self):
        self.server.seen.append((self.path, None))
        known = {
            "/v1/models": {"data": [{"id": self.server.base}, *self.server.models]},
            "/version": {"version": self.server.version},
            "/lora-adapters": [{"id": 3, "path": f"/adapters/{'d' * 64}.gguf", "scale": 0.0}],
        }
        self.answer(200 if self.path in known else 404, known.get(self.path, {}))

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, body))
        if self.path.endswith("lora_adapter"):
            self.answer(*self.server.adapter_reply)
            return
        step = self.server.script.pop(0) if self.server.script else "answer"
        if isinstance(step, tuple):
            self.answer(*step)
        elif step == "drop":
            self.close_connection = True
            self.connection.close()
        else:
            self.stream(step, body)

    def stream(self, step, body):
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if step == "silent":
            self.server.release.wait(30)
        try:
            for word in ("one ", "two ", "three"):
                self.event({"choices": [self.choice(word, None)]})
                if step == "cut":
                    self.close_connection = True
                    self.connection.close()
                    return
                if step == "endless":
                    while not self.server.release.wait(0.01):
                        self.event({"choices": [self.choice("more ", None)]})
            self.event({"choices": [self.choice("", "stop")]})
            usage = {"prompt_tokens": 4, "completion_tokens": 3}
            self.event({"choices": [], "usage": usage})
            self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")
        except OSError:
            self.server.hung_up.set()
            self.close_connection = True

    def choice(self, text, reason):
        chat = self.path.endswith("chat/completions")
        words = {"delta": {"content": text}} if chat else {"text": text}
        return words | {"index": 0, "finish_reason": reason}

    def event(self, event):
        self.chunk(f"data: {json.dumps(event)}\n\n".encode())

    def chunk(self, data):
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def answer(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.script, server.seen, server.models = [], [], []
    server.version, server.base = "1.2.3", "base"
    server.adapter_reply = (200, {})
    server.release, server.hung_up = threading.Event(), threading.Event()
    server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def make(server, monkeypatch):
    monkeypatch.setattr(openai_compatible, "_PAUSE_S", 0.0)
    made = []

    def make(dialect="vllm", max_adapters=16, **fields):
        address = ServerAddress(server.url, fields.pop("model", "base"), dialect, **fields)
        engine = OpenAICompatibleEngine(
            address, base_sha256="b" * 64, context_tokens=64, max_adapters=max_adapters
        )
        made.append(engine)
        return engine

    yield make
    for engine in made:
        engine.close()


def request(**fields):
    return GenerationRequest([1, 2, 3, 4], 8, **fields)


def posts(server, path="completions"):
    return [body for where, body in server.seen if body is not None and where.endswith(path)]


def test_answer_streams_with_usage_and_is_asked_for_by_token_ids(server, make):
    *pieces, last = make().stream(request(stop=("x",), temperature=0.5, seed=7, cache_salt="w"))
    assert pieces == ["one ", "two ", "three"]
    assert isinstance(last, Generation)
    assert (last.text, last.finish_reason) == ("one two three", "stop")
    assert (last.prompt_tokens, last.completion_tokens) == (4, 3)
    (body,) = posts(server)
    assert body["prompt"] == [1, 2, 3, 4]
    assert (body["seed"], body["stop"], body["cache_salt"]) == (7, ["x"], "w")
    assert body["model"] == "base"


@pytest.mark.parametrize("failure", [(503, {}), (429, {}), (502, {}), "drop"])
def test_failure_before_the_first_byte_is_tried_again(server, make, failure):
    server.script = [failure, failure, "answer"]
    assert make().generate(request()).text == "one two three"
    assert len(posts(server)) == 3


def test_third_failure_is_said(server, make):
    server.script = [(503, {"error": {"message": "loading"}})] * 3
    with pytest.raises(EngineError, match="503 loading"):
        make().generate(request())
    assert len(posts(server)) == 3


def test_nothing_is_tried_again_after_the_first_byte(server, make):
    server.script = ["cut"]
    stream = make().stream(request())
    assert next(stream) == "one "
    with pytest.raises(EngineError):
        list(stream)
    assert len(posts(server)) == 1


def test_silent_server_times_out_without_another_try(server, make):
    server.script = ["silent"]
    with pytest.raises(EngineError, match="timed out"):
        make(token_s=0.3).generate(request())
    assert len(posts(server)) == 1


def test_refusals_are_the_callers_fault_or_the_servers(server, make):
    server.script = [(400, {"message": "schema is wrong"}), (500, {"detail": "broken"})]
    engine = make()
    with pytest.raises(BadInput, match="schema is wrong"):
        engine.generate(request())
    with pytest.raises(EngineError, match="broken"):
        engine.generate(request())
    with pytest.raises(BadInput, match="100 tokens, the model reads at most 64"):
        engine.generate(GenerationRequest([1] * 100, 8))


def test_no_server_is_said_with_its_address(make, server):
    engine = OpenAICompatibleEngine(
        ServerAddress("http://127.0.0.1:1", "base"), base_sha256="b", context_tokens=64
    )
    with pytest.raises(EngineError, match=r"http://127.0.0.1:1: .*refused"):
        engine.generate(request())
    engine.close()


@pytest.mark.parametrize("step", ["endless", "silent"])
def test_closing_hangs_up_even_while_the_server_is_silent(server, make, step):
    server.script = [step]
    engine = make()
    stream = engine.stream(request())
    if step == "endless":
        next(stream)
    else:
        deadline = time.monotonic() + 30
        while not posts(server):
            assert time.monotonic() < deadline
            time.sleep(0.01)
    ended = threading.Event()

    def read():
        for _ in stream:
            pass
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    stream.close()
    assert ended.wait(30)
    deadline = time.monotonic() + 30
    while any(engine.load.values()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(engine.load.values())
    if step == "endless":
        assert server.hung_up.wait(30)
    server.release.set()
    assert engine.generate(request()).text == "one two three"


def test_connections_are_used_again(server, make):
    engine = make()
    for _ in range(5):
        engine.generate(request())
    pool = engine._client._transport._pool
    assert len(pool.connections) == 1


def adapter(letter, folder=Path("/adapters/a")):
    return AdapterRef(letter * 64, Path("none.gguf"), folder)


def test_vllm_adapters_are_loaded_by_content_and_dropped_by_use(server, make):
    engine = make(max_adapters=2)
    for letter in "abac":
        engine.generate(request(adapter=adapter(letter)))
    names = [body["lora_name"] for body in posts(server, "/load_lora_adapter")]
    assert names == [f"tandem-{letter * 32}" for letter in "abc"]
    assert [b["model"] for b in posts(server)][:2] == names[:2]
    gone = [body["lora_name"] for body in posts(server, "/unload_lora_adapter")]
    assert gone == [names[1]]
    assert engine.adapters == ("a" * 64, "c" * 64)


def test_adapter_loaded_before_us_is_fine_and_a_refused_one_is_said(server, make):
    engine = make()
    server.adapter_reply = (400, {"message": "adapter has already been loaded"})
    engine.load_adapter(adapter("a"))
    server.adapter_reply = (500, {"message": "rank 64 is greater than max_lora_rank 16"})
    with pytest.raises(EngineError, match="max_lora_rank 16"):
        engine.load_adapter(adapter("b"))
    server.adapter_reply = (404, {"detail": "Not Found"})
    with pytest.raises(EngineError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING"):
        engine.load_adapter(adapter("c"))
    assert engine.adapters == ("a" * 64,)


def test_adapter_that_another_request_pushed_out_is_loaded_again(server, make):
    engine = make()
    engine.load_adapter(adapter("a"))
    refused = engine._refused

    def pushed_out(response, asked):
        engine.drop_adapter(asked.adapter.digest)  # between its loading and the server's answer
        refused(response, asked)

    engine._refused = pushed_out
    server.script = [(404, {"message": "model not found"})]
    assert engine.generate(request(adapter=adapter("a"))).text == "one two three"


def test_restarted_server_is_given_its_adapter_again(server, make):
    engine = make()
    engine.generate(request(adapter=adapter("a")))
    server.script = [(404, {"message": "model not found"})]
    assert engine.generate(request(adapter=adapter("a"))).text == "one two three"
    assert len(posts(server, "/load_lora_adapter")) == 2


def test_llama_server_takes_the_adapter_it_was_started_with(server, make):
    engine = make("llamacpp")
    engine.generate(request(json_schema=SCHEMA))
    engine.generate(request(adapter=adapter("d")))
    plain, adapted = posts(server)
    assert plain["lora"] == []
    assert plain["json_schema"] == SCHEMA
    assert adapted["lora"] == [{"id": 3, "scale": 1.0}]
    with pytest.raises(EngineError, match=r"add --lora e+\.gguf"):
        engine.generate(request(adapter=adapter("e")))


def test_chat_servers_get_messages_and_response_format(server, make):
    turns = ({"role": "user", "content": "hi"},)
    engine = make("chat")
    assert engine.generate(request(messages=turns, json_schema=SCHEMA)).text == "one two three"
    (body,) = posts(server, "chat/completions")
    assert body["messages"] == list(turns)
    assert "prompt" not in body
    assert body["response_format"]["json_schema"]["schema"] == SCHEMA
    with pytest.raises(BadInput, match="chat messages"):
        engine.generate(request())
    with pytest.raises(EngineError, match="has no model 'tandem-"):
        engine.generate(request(messages=turns, adapter=adapter("a")))
    server.models = [{"id": f"tandem-{'a' * 32}"}]
    engine.generate(request(messages=turns, adapter=adapter("a")))
    assert posts(server, "chat/completions")[-1]["model"] == f"tandem-{'a' * 32}"


def test_identity_asks_the_server(make):
    assert make(model=None).identity == {
        "engine": "openai_compatible/vllm",
        "engine_version": "1.2.3",
        "base_sha256": "b" * 64,
        "file": "base",
    }


def test_identity_is_asked_for_again_when_the_connection_had_to_be_made_anew(server, make):
    engine = make(model=None)
    assert engine.identity["engine_version"] == "1.2.3"
    asked = [where for where, _ in server.seen].count("/version")
    engine.generate(request())
    engine.generate(request())
    assert engine.identity["engine_version"] == "1.2.3"
    assert [where for where, _ in server.seen].count("/version") == asked
    server.version, server.base = "2.0.0", "other"
    assert engine.identity["engine_version"] == "1.2.3"
    server.script = ["drop"]  # as a server that is started anew does to its connections
    engine.generate(request())
    assert engine.identity["engine_version"] == "2.0.0"
    assert engine.identity["file"] == "other"


def test_a_model_that_another_one_was_listed_before_is_still_the_one_asked(
    server, make, monkeypatch
):
    monkeypatch.setattr(openai_compatible, "_TOLD_S", 0.0)
    engine = make(model=None)
    assert engine.identity["file"] == "base"
    server.base, server.models = "pulled later", [{"id": "base"}]
    assert engine.identity["file"] == "base"
    engine.generate(request())
    assert posts(server)[-1]["model"] == "base"


def test_identity_is_asked_for_again_after_a_while_and_stays_while_the_server_is_away(
    server, make, monkeypatch
):
    monkeypatch.setattr(openai_compatible, "_TOLD_S", 0.0)
    engine = make()
    assert engine.identity["engine_version"] == "1.2.3"
    server.version = "2.0.0"
    assert engine.identity["engine_version"] == "2.0.0"
    engine._client.close()
    engine._client = httpx.Client(base_url="http://127.0.0.1:9")
    assert engine.identity["engine_version"] == "2.0.0"


def test_identity_of_a_server_that_is_down_can_be_recorded():
    engine = OpenAICompatibleEngine(ServerAddress("http://127.0.0.1:9"), base_sha256="0" * 64)
    assert engine.identity["file"] == "unknown"
    engine.close()


def test_unknown_dialect_is_refused_by_name():
    with pytest.raises(BadInput, match="'tgi' is unknown: choose vllm, llamacpp, chat"):
        OpenAICompatibleEngine(ServerAddress("http://x", dialect="tgi"), base_sha256="b")
