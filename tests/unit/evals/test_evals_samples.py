"""Samples: what a file may hold, what is refused, which samples hang together."""

import json

import pytest

from evals.errors import SampleError
from evals.samples import Sample, clusters, load_samples, sample_record, samples_digest

GOOD = {"id": "a", "question": "How long?", "answers": ["14 days"], "gold": ["d1"]}


def write(path, *records):
    path.write_text("\n".join(r if isinstance(r, str) else json.dumps(r) for r in records))
    return path


def test_a_file_with_blank_lines_and_all_fields_is_read(tmp_path):
    full = GOOD | {
        "id": "b",
        "answers": None,
        "cluster": "c",
        "history": [{"role": "user", "content": "hi"}],
        "tags": ["x"],
        "section": "kept elsewhere",
    }
    first, second = load_samples(write(tmp_path / "s.jsonl", GOOD, "", full))
    assert first == Sample("a", "How long?", ("14 days",), ("d1",))
    assert (second.answerable, second.cluster, second.tags) == (False, "c", ("x",))
    assert second.history[0].content == "hi"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{broken", "line 2: not valid JSON"),
        ("[1]", "line 2: expected a JSON object, got list"),
        (GOOD | {"id": ""}, "line 2: field 'id'"),
        (GOOD | {"id": 7}, "line 2: field 'id'"),
        (GOOD | {"question": None}, "line 2: field 'question'"),
        (GOOD | {"answers": []}, "line 2: field 'answers' is empty"),
        (GOOD | {"answers": "14"}, "line 2: field 'answers' must be a list"),
        ({"id": "x", "question": "?"}, "line 2: field 'answers' is missing"),
        (GOOD | {"gold": [1]}, "line 2: field 'gold'"),
        (GOOD | {"cluster": 3}, "line 2: field 'cluster'"),
        (GOOD | {"history": [{"role": "user"}]}, "line 2: field 'history'"),
        (GOOD | {"tag": ["x"]}, "line 2: unknown field 'tag'; did you mean 'tags'"),
        (GOOD | {"id": "first"}, "line 2: field 'id' repeats 'first' of line 1"),
    ],
)
def test_a_bad_line_is_refused_with_its_number_and_field(tmp_path, record, message):
    path = write(tmp_path / "s.jsonl", GOOD | {"id": "first"}, record)
    with pytest.raises(SampleError) as caught:
        load_samples(path)
    assert message in str(caught.value)


def test_missing_empty_and_binary_files_are_refused(tmp_path):
    with pytest.raises(SampleError, match="cannot read"):
        load_samples(tmp_path / "none.jsonl")
    with pytest.raises(SampleError, match="holds no samples"):
        load_samples(write(tmp_path / "e.jsonl", ""))
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SampleError, match="not UTF-8"):
        load_samples(tmp_path / "b.jsonl")


def test_clusters_are_connected_components_over_gold_and_declared_cluster():
    samples = [
        Sample("a", "?", ("x",), ("d1",)),
        Sample("b", "?", ("x",), ("d2",)),
        Sample("c", "?", ("x",), ("d1", "d3")),
        Sample("d", "?", ("x",), ("d3",), "k"),
        Sample("e", "?", None, (), "k"),
        Sample("f", "?", None),
        Sample("g", "?", None),
    ]
    assert clusters(samples) == (0, 1, 0, 0, 0, 2, 3)


def test_a_cluster_name_equal_to_a_gold_id_does_not_connect():
    assert clusters([Sample("a", "?", ("x",), ("k",)), Sample("b", "?", None, (), "k")]) == (0, 1)


def test_digest_ignores_order_and_sees_every_change():
    a, b = Sample("a", "?", ("x",)), Sample("b", "?", None)
    assert samples_digest([a, b]) == samples_digest([b, a])
    assert samples_digest([a, b]) != samples_digest([a, Sample("b", "?", ("x",))])


def test_a_record_reads_back_as_the_same_sample(tmp_path):
    sample = load_samples(write(tmp_path / "s.jsonl", GOOD | {"tags": ["t"]}))[0]
    again = load_samples(write(tmp_path / "t.jsonl", sample_record(sample)))[0]
    assert again == sample
