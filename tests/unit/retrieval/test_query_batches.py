"""Questions share forward passes under load, each gets its own vector, alone it goes alone."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from retrieval.query_batches import QueryBatches


class Model:
    """Embeds a text as its length; a pass may be held up."""

    def __init__(self):
        self.passes = []
        self.inside = self.most_inside = 0
        self.go = threading.Event()
        self.go.set()
        self.began = threading.Event()
        self._lock = threading.Lock()

    def __call__(self, texts):
        with self._lock:
            self.passes.append(list(texts))
            self.inside += 1
            self.most_inside = max(self.inside, self.most_inside)
        self.began.set()
        assert self.go.wait(60)
        with self._lock:
            self.inside -= 1
        if "bad" in texts:
            raise ValueError("bad text")
        return np.array([[len(text)] for text in texts], dtype=np.float32)


def test_one_question_alone_is_a_pass_of_its_own():
    model = Model()
    batches = QueryBatches(model, passes=1, most=8)
    assert batches.embed("four").tolist() == [4.0]
    assert batches.embed("seven77").tolist() == [7.0]
    assert model.passes == [["four"], ["seven77"]]


def test_those_that_come_meanwhile_share_the_next_pass():
    model = Model()
    model.go.clear()
    batches = QueryBatches(model, passes=1, most=4)
    texts = ["x" * n for n in range(1, 7)]
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batches.embed, "first")
        assert model.began.wait(60)
        later = [pool.submit(batches.embed, text) for text in texts]
        while len(batches._line) < len(texts):
            assert not first.done()
        model.go.set()
        assert first.result(60).tolist() == [5.0]
        assert [f.result(60).tolist() for f in later] == [[float(n)] for n in range(1, 7)]
    assert [len(texts) for texts in model.passes] == [1, 4, 2]
    assert model.most_inside == 1


def test_many_threads_get_their_own_vectors_and_no_more_passes_than_allowed_run():
    model = Model()
    batches = QueryBatches(model, passes=2, most=8)
    texts = ["y" * (n % 40 + 1) for n in range(600)]
    with ThreadPoolExecutor(16) as pool:
        found = [vector.tolist() for vector in pool.map(batches.embed, texts)]
    assert found == [[float(len(text))] for text in texts]
    assert model.most_inside <= 2
    assert sum(map(len, model.passes)) == 600


def test_a_question_that_fails_takes_nobody_along():
    model = Model()
    model.go.clear()
    batches = QueryBatches(model, passes=1, most=8)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(batches.embed, "first")
        assert model.began.wait(60)
        bad = pool.submit(batches.embed, "bad")
        while not batches._line:
            assert not first.done()
        good = [pool.submit(batches.embed, "z" * n) for n in range(1, 5)]
        while len(batches._line) < 5:
            assert not first.done()
        model.go.set()
        with pytest.raises(ValueError, match="bad text"):
            bad.result(60)
        outcomes = [f.exception(60) or f.result(60).tolist() for f in good]
    # A question that ran a pass with the bad text in it shares its fate, the others do not.
    assert all(isinstance(o, ValueError) or o == [n] for n, o in enumerate(outcomes, start=1))
    assert batches.embed("after").tolist() == [5.0]
    assert not batches._line


@pytest.mark.parametrize(("passes", "most"), [(0, 1), (1, 0)])
def test_a_line_without_room_is_refused(passes, most):
    with pytest.raises(ValueError, match="at least 1"):
        QueryBatches(Model(), passes=passes, most=most)
