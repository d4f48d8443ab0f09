"""Examples out of CSV files, chat logs and FAQ pages."""

import json

import pytest

from tuning.errors import ExampleError
from tuning.examples import load_examples


def write(tmp_path, name, text):
    path = tmp_path / name
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_columns_become_question_answer_and_metadata(tmp_path, delimiter):
    lines = [
        ["Question", "Answer", "author", "sources"],
        ["How much?", '"49 euros, a month"', "ada", "a.md|b.md"],
        ["Empty?", "", "ada", ""],
    ]
    path = write(tmp_path, "x.csv", "\n".join(delimiter.join(line) for line in lines))
    loaded = load_examples(path)
    (example,) = loaded.examples
    assert (example.question, example.answer) == ("How much?", "49 euros, a month")
    assert example.metadata == {"author": "ada", "sources": ["a.md", "b.md"]}
    assert (loaded.refusals[0].line, loaded.source_type) == (3, "csv")
    assert "output" in loaded.refusals[0].reason


def test_csv_without_the_columns_names_them(tmp_path):
    with pytest.raises(ExampleError, match=r"columns a, b: .* question"):
        load_examples(write(tmp_path, "x.csv", "a,b\n1,2\n"))


def test_every_answer_of_a_chat_is_an_example_with_its_history(tmp_path):
    log = [
        {
            "id": "c1",
            "messages": [
                {"role": "agent", "content": "Welcome!"},
                {"role": "customer", "content": "Hi."},
                {"role": "customer", "content": "What is it?"},
                {"role": "agent", "content": "A plan."},
                {"role": "customer", "content": "How much?"},
                {"role": "agent", "content": "49 euros."},
            ],
        },
        {"conversations": [{"from": "human", "value": "Bye"}, {"from": "gpt", "value": "Bye!"}]},
        {"messages": [{"role": "customer", "content": "Hello?"}]},
        "nothing",
    ]
    loaded = load_examples(write(tmp_path, "log.json", json.dumps(log)))
    first, second, third = loaded.examples
    assert (first.question, first.answer, first.history) == ("Hi.\nWhat is it?", "A plan.", ())
    assert [turn["content"] for turn in second.history] == ["Hi.\nWhat is it?", "A plan."]
    assert (second.question, third.answer) == ("How much?", "Bye!")
    assert first.metadata["conversation"] == second.metadata["conversation"] == "c1"
    assert third.metadata["conversation"] == "2"
    assert [refusal.line for refusal in loaded.refusals] == [3, 4]


def test_question_headings_of_markdown_are_examples(tmp_path):
    page = (
        "# Help\n\nIntro.\n\n## How do I *return* a helmet?\n\nSend it back.\n\n- In a box\n"
        "\n## About us\n\nNot asked.\n\n### Open on Sundays?\n\nNo.\n\n## Empty?\n"
    )
    loaded = load_examples(write(tmp_path, "faq.md", page))
    assert [(e.question, e.answer) for e in loaded.examples] == [
        ("How do I *return* a helmet?", "Send it back.\n\n- In a box"),
        ("Open on Sundays?", "No."),
    ]
    assert [refusal.line for refusal in loaded.refusals] == [19]


def test_question_headings_of_html_are_examples(tmp_path):
    page = (
        "<html><body><nav><h2>Menu?</h2><p>x</p></nav><h2>May I <b>return</b> it?</h2>"
        "<p>Yes &amp; free.</p><ul><li>In a box</li></ul><h2>Imprint</h2><p>Us.</p>"
        "<details><summary>Open on Sundays?</summary><p>No.</p></details>"
        "<dl><dt>Refunds?</dt><dd>In 14 days.</dd></dl><script>var h='<h2>x?</h2>'</script>"
    )
    loaded = load_examples(write(tmp_path, "faq.html", page))
    assert [(e.question, e.answer) for e in loaded.examples] == [
        ("May I return it?", "Yes & free.\n\n- In a box"),
        ("Open on Sundays?", "No."),
        ("Refunds?", "In 14 days."),
    ]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("x.txt", "a", r"'.txt': choose .jsonl"),
        ("x.json", "{", "must be JSON"),
        ("x.json", "3", "list of conversations"),
        ("x.md", "# No question\n\ntext", "holds no question"),
        ("x.html", "<p>nothing</p>", "holds no question"),
    ],
)
def test_a_file_without_examples_says_why(tmp_path, name, text, reason):
    with pytest.raises(ExampleError, match=reason):
        load_examples(write(tmp_path, name, text))
