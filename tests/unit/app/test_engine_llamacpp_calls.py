"""A streamed completion of llama.cpp, driven by a server object that plays a script of events."""

import pytest

from app.engines.llamacpp_calls import stream_completion
from app.engines.streams import Cancellation, Cancelled
from app.engines.types import EngineError
from app.errors import BadInput


class Server:
    def __init__(self, events):
        self.events, self.given, self.bodies = events, 0, []

    def handle_completions(self, body, on_event):
        self.bodies.append(body)
        for event in self.events:
            self.given += 1
            if callable(event):
                event = event()
            if on_event(event):
                return


def progress(processed):
    counts = {"total": 600, "cache": 0, "processed": processed, "time_ms": 1}
    return {"choices": [{"text": "", "finish_reason": None}], "prompt_progress": counts}


def piece(text, reason=None):
    usage = {"prompt_tokens": 600, "completion_tokens": 2}
    return {"choices": [{"text": text, "finish_reason": reason}], "usage": usage}


def test_prompt_is_ended_between_two_batches_when_cancelled():
    cancellation = Cancellation()

    def cancelled_meanwhile():
        cancellation.set()
        return progress(256)

    server = Server([progress(0), cancelled_meanwhile, progress(512), piece("never")])
    heard = []
    with pytest.raises(Cancelled):
        stream_completion(server, {"prompt": [1]}, heard.append, cancellation)
    assert heard == []
    assert server.given == 2
    assert server.bodies == [{"prompt": [1], "stream": True, "return_progress": True}]


def test_progress_is_no_piece_and_the_last_event_makes_the_generation():
    heard = []
    server = Server([progress(0), progress(600), piece("one "), piece("two"), piece("", "stop")])
    done = stream_completion(server, {}, heard.append, Cancellation())
    assert heard == ["one ", "two"]
    assert (done.text, done.finish_reason, done.prompt_tokens) == ("one two", "stop", 600)


@pytest.mark.parametrize(("code", "kind"), [(400, BadInput), (500, EngineError)])
def test_error_event_is_raised_with_its_message(code, kind):
    error = {"error": {"code": code, "message": "no room"}}
    with pytest.raises(kind, match="no room"):
        stream_completion(Server([progress(0), error]), {}, [].append, Cancellation())
