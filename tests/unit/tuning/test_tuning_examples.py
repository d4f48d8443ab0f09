import json

import pytest

from tuning.errors import ExampleError
from tuning.examples import load_examples, parse_example, parse_lines


def chat(*turns):
    return {"messages": [{"role": role, "content": content} for role, content in turns]}


def test_both_formats_of_the_same_example_are_equal():
    one = parse_example(chat(("user", "Hi?"), ("assistant", "Hello.")))
    two = parse_example({"instruction": "Hi?", "input": "", "output": "Hello."})
    assert one == two


def test_system_history_and_metadata_are_kept():
    record = chat(
        ("system", "Be kind."),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "c"),
        ("assistant", "d"),
    )
    example = parse_example({**record, "metadata": {"source": "ticket-7"}})
    assert (example.system, example.question, example.answer) == ("Be kind.", "c", "d")
    assert [turn["content"] for turn in example.history] == ["a", "b"]
    assert example.metadata == {"source": "ticket-7"}


def test_input_follows_the_instruction():
    example = parse_example({"instruction": "Shorten", "input": "long text", "output": "short"})
    assert example.question == "Shorten\n\nlong text"


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        ([], "JSON object"),
        ({"text": "x"}, "needs 'messages' or 'instruction'"),
        (chat(("user", "x")), "end with the assistant"),
        (chat(("user", "x"), ("user", "y")), "alternate"),
        (chat(("user", "x"), ("system", "y"), ("assistant", "z")), "only come first"),
        (chat(("tool", "x"), ("assistant", "y")), "needs a role"),
        (chat(("user", "x"), ("assistant", " ")), "non-empty text 'content'"),
        ({"instruction": "x", "output": 3}, "non-empty text 'output'"),
        ({"instruction": "x", "output": "y" * 30_000}, "the limit is"),
        ({"instruction": "x", "output": "y", "metadata": 1}, "'metadata'"),
        ({"messages": []}, "non-empty list"),
    ],
)
def test_an_unusable_record_is_refused_with_its_reason(record, reason):
    with pytest.raises(ExampleError, match=reason):
        parse_example(record)


def test_bad_lines_are_reported_by_number_and_the_rest_is_kept():
    good = json.dumps({"instruction": "a", "output": "b"})
    loaded = parse_lines([good, "", "{", good, json.dumps({"instruction": "c", "output": "d"})])
    assert [example.question for example in loaded.examples] == ["a", "c"]
    assert [(refusal.line, refusal.reason.split()[0]) for refusal in loaded.refusals] == [
        (3, "not"),
        (4, "repeats"),
    ]


def test_a_missing_file_is_an_example_error(tmp_path):
    with pytest.raises(ExampleError, match="does not exist"):
        load_examples(tmp_path / "none.jsonl")


def test_a_file_that_is_not_utf8_is_an_example_error(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ExampleError, match="not UTF-8"):
        load_examples(tmp_path / "x.jsonl")
