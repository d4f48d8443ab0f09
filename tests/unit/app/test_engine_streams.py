"""Streams that any thread may close, and text that is safe to show."""

import gc
import threading

import pytest
from fakes import make_byte_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from app.engines.streams import Cancelled, PieceStream, drain
from app.engines.transformers import TextPieces
from app.engines.types import EngineError, Generation
from app.errors import BadInput

DONE = Generation("ab", "stop", 1, 2, 0.0, 0.0)
TOKENIZER = make_byte_tokenizer()


def test_pieces_then_the_generation_then_the_end():
    def work(emit, cancellation):
        emit("a")
        emit("b")
        return DONE

    assert list(PieceStream(work, "test")) == ["a", "b", DONE]
    assert drain(PieceStream(work, "test")) is DONE


def test_closing_from_another_thread_wakes_the_reader_and_stops_the_worker():
    stopped, reading, ended = threading.Event(), threading.Event(), threading.Event()
    never = threading.Event()

    def work(emit, cancellation):
        cancellation.on_set(never.set)
        emit("a")
        never.wait(30)
        stopped.set()
        raise Cancelled

    stream = PieceStream(work, "test")

    def read():
        assert next(stream) == "a"
        reading.set()
        for _ in stream:
            pass
        ended.set()

    threading.Thread(target=read).start()
    assert reading.wait(30)
    stream.close()
    stream.close()
    assert ended.wait(30)
    assert stopped.wait(30)
    with pytest.raises(StopIteration):
        next(stream)


def test_abandoned_stream_is_cancelled():
    cancelled = threading.Event()

    def work(emit, cancellation):
        cancellation.on_set(cancelled.set)
        cancelled.wait(30)
        raise Cancelled

    PieceStream(work, "test")
    gc.collect()
    assert cancelled.wait(30)


@pytest.mark.parametrize(
    ("raised", "seen"),
    [(BadInput("long"), BadInput), (RuntimeError("x"), EngineError), (KeyError("x"), EngineError)],
)
def test_errors_reach_the_reader(raised, seen):
    def work(emit, cancellation):
        raise raised

    stream = PieceStream(work, "test")
    with pytest.raises(seen):
        next(stream)
    assert list(stream) == []


def test_silence_is_an_error_and_cancels():
    cancelled = threading.Event()

    def work(emit, cancellation):
        cancellation.on_set(cancelled.set)
        cancelled.wait(30)
        raise Cancelled

    with pytest.raises(EngineError, match="no token for"):
        next(PieceStream(work, "test", stall_s=0.01))
    assert cancelled.wait(30)


def feed_all(text, stop=()):
    pieces, shown = TextPieces(TOKENIZER, stop), []
    ids = TOKENIZER(text, add_special_tokens=False)["input_ids"]
    for n in range(1, len(ids) + 1):
        shown.append(pieces.feed(ids[:n]))
        if pieces.stopped:
            break
    return pieces, [*shown, pieces.finish()]


def test_a_character_of_several_tokens_is_shown_whole():
    pieces, shown = feed_all("a\u20ac\U0001f600b")
    assert [s for s in shown if s] == ["a", "\u20ac", "\U0001f600", "b"]
    assert pieces.text == "a\u20ac\U0001f600b"


def test_what_may_begin_a_stop_text_is_held_back_until_it_is_known():
    pieces, shown = feed_all("one STO two STOP three", stop=("STOP",))
    assert "".join(shown) == pieces.text == "one STO two "
    assert pieces.stopped


@given(
    st.text("abcé€", max_size=20), st.lists(st.text("abcé€", min_size=1, max_size=3), max_size=3)
)
def test_shown_text_is_the_text_before_the_first_stop(text, stop):
    """The stop text that is complete first counts, as in every engine that streams."""
    pieces, shown = feed_all(text, stop=tuple(stop))
    prefixes = (text[:n] for n in range(len(text) + 1))
    seen = next((p for p in prefixes if any(s in p for s in stop)), None)
    ends = [] if seen is None else [seen.find(s) for s in stop if s in seen]
    assert "".join(shown) == pieces.text == (text[: min(ends)] if ends else text)
    assert pieces.stopped == bool(ends)
