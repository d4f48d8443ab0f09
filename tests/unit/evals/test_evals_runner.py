"""A run: turns, durability, resuming after a kill, expected and unexpected errors."""

import json
from dataclasses import replace

import pytest

from evals.errors import EvalError, OutputError, RunStoreError
from evals.outputs import Output, output_line, output_record, outputs_digest, parse_output
from evals.runner import RunOptions, read_outputs, run_arms
from evals.samples import Sample

SAMPLES = tuple(Sample(f"q{i}", "?", (f"v{i}",), (f"d{i}",)) for i in range(4))


class Arm:
    def __init__(self, name, log, fail_on=(), error=TimeoutError):
        self.name, self.log, self.fail_on, self.error = name, log, fail_on, error

    def __call__(self, sample):
        self.log.append((sample.id, self.name))
        if sample.id in self.fail_on:
            raise self.error("no answer in time")
        return Output(sample.id, self.name, "v" + sample.id[1:], latency_s=0.5, meta={"x": [1]})


def arms(log, names="abc", **options):
    return {name: Arm(name, log, **options) for name in names}


def test_an_output_reads_back_from_its_line():
    output = Output(
        "q", "rag", 'ünï\n"x"\ud800', ("a",), ("a", "b"), True, 0.1, 3, 4, "e", {"k": [1]}
    )
    assert parse_output(json.loads(output_line(output))) == output


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"text": None}, "text"),
        ({"abstained": 1}, "abstained"),
        ({"prompt_tokens": True}, "prompt_tokens"),
        ({"citations": "d1"}, "citations"),
        ({"error": 5}, "error"),
        ({"meta": []}, "meta"),
        ({"latency_s": -1}, "latency_s"),
    ],
)
def test_a_wrong_output_record_is_refused_by_field(change, field):
    with pytest.raises(OutputError, match=field):
        parse_output(output_record(Output("q", "a", "t")) | change)


def test_an_output_that_is_no_json_is_refused_and_digest_ignores_order():
    with pytest.raises(OutputError, match="'rag'"):
        output_line(Output("q", "rag", "t", meta={"x": object()}))
    a, b = Output("q", "a", "1"), Output("q", "b", "2")
    assert (
        outputs_digest([a, b])
        == outputs_digest([b, a])
        != outputs_digest([a, replace(b, text="3")])
    )


def test_arms_take_turns_on_every_sample_and_the_first_rotates(tmp_path):
    log = []
    run_arms(SAMPLES, arms(log), store=tmp_path / "run.jsonl")
    assert ["".join(arm for q, arm in log if q == s.id) for s in SAMPLES] == [
        "abc",
        "bca",
        "cab",
        "abc",
    ]


def test_a_finished_run_is_read_back_without_asking_again(tmp_path):
    store, log = tmp_path / "new" / "run.jsonl", []
    first = run_arms(SAMPLES, arms(log), store=store)
    again = run_arms(SAMPLES, arms(log), store=store)
    assert len(log) == 12
    assert first == again
    assert len(read_outputs(store)) == 12


@pytest.mark.parametrize("cut", [1, 7, 40, 400])
def test_a_run_killed_while_writing_resumes_with_the_same_result(tmp_path, cut):
    store, log = tmp_path / "run.jsonl", []
    whole = run_arms(SAMPLES, arms(log), store=store)
    data = store.read_bytes()
    store.write_bytes(data[:-cut])
    lost = 12 - (data[:-cut].count(b"\n") - 1)
    again = []
    assert run_arms(SAMPLES, arms(again), store=store) == whole
    assert len(again) == lost
    assert store.read_bytes().count(b"\n") == 13


def test_a_file_torn_inside_its_header_starts_over(tmp_path):
    store = tmp_path / "run.jsonl"
    store.write_bytes(b'{"store": 1, "sam')
    assert len(run_arms(SAMPLES, arms([]), store=store)) == 12
    assert len(read_outputs(store)) == 12


def test_a_garbled_last_line_is_dropped_but_damage_before_it_is_not(tmp_path):
    store, log = tmp_path / "run.jsonl", []
    run_arms(SAMPLES, arms(log), store=store)
    lines = store.read_bytes().split(b"\n")
    store.write_bytes(b"\n".join([*lines[:-2], b"\x00\x00\x00", b""]))
    run_arms(SAMPLES, arms(log), store=store)
    assert len(log) == 13
    store.write_bytes(b"\n".join([lines[0], b"{garbled", *lines[2:]]))
    with pytest.raises(RunStoreError, match="line 2 is damaged"):
        run_arms(SAMPLES, arms(log), store=store)


def test_a_store_of_other_samples_is_refused_untouched(tmp_path):
    store = tmp_path / "run.jsonl"
    run_arms(SAMPLES, arms([]), store=store)
    before = store.read_bytes()
    with pytest.raises(RunStoreError, match="other samples"):
        run_arms(SAMPLES[:2], arms([]), store=store)
    assert store.read_bytes() == before


def test_an_arm_added_later_is_run_alone(tmp_path):
    store, log = tmp_path / "run.jsonl", []
    run_arms(SAMPLES, arms([], "ab"), store=store)
    outputs = run_arms(SAMPLES, arms(log, "abc"), store=store)
    assert {arm for _, arm in log} == {"c"}
    assert len(outputs) == 12


def test_expected_errors_become_outputs_and_can_be_retried(tmp_path):
    store, log = tmp_path / "run.jsonl", []
    failing = arms(log, "a", fail_on=("q1",))
    outputs = run_arms(SAMPLES, failing, store=store, expected_errors=(TimeoutError,))
    assert [o.error for o in outputs] == [None, "TimeoutError: no answer in time", None, None]
    retried = run_arms(SAMPLES, arms(log, "a"), store=store, options=RunOptions(retry_errors=True))
    assert [o.error for o in retried] == [None] * 4
    assert len(log) == 5
    assert [o.error for o in run_arms(SAMPLES, arms(log, "a"), store=store)] == [None] * 4


def test_an_unexpected_error_ends_the_run_and_keeps_what_was_answered(tmp_path):
    store, log = tmp_path / "run.jsonl", []
    with pytest.raises(ValueError, match="no answer"):
        run_arms(
            SAMPLES,
            arms(log, "a", fail_on=("q2",), error=ValueError),
            store=store,
            expected_errors=(TimeoutError,),
        )
    assert [o.sample_id for o in read_outputs(store)] == ["q0", "q1"]


def test_an_arm_that_answers_for_another_is_refused(tmp_path):
    with pytest.raises(OutputError, match="arm 'x'"):
        run_arms(SAMPLES, {"x": Arm("y", [])}, store=tmp_path / "run.jsonl")
    with pytest.raises(EvalError, match="no arms"):
        run_arms(SAMPLES, {}, store=tmp_path / "run.jsonl")


def test_progress_counts_and_shows_the_mean_with_an_interval(tmp_path):
    seen = []
    store = tmp_path / "run.jsonl"
    run_arms(SAMPLES[:4], arms([], "a"), store=store, progress=seen.append)
    assert [p.done for p in seen] == [1, 2, 3, 4]
    assert (seen[0].arms[0].low, seen[-1].total, seen[-1].eta_s) == (None, 4, 0)
    assert seen[-1].arms[0].mean == 1.0
    assert 0 < seen[-1].arms[0].low < 1
    seen.clear()
    run_arms(SAMPLES, arms([], "ab"), store=store, progress=seen.append)
    assert (seen[0].resumed, seen[0].done) == (4, 5)
