"""Files people have become samples; dependence is linked; gold is hidden."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.baselines import bm25_template_arm
from evals.errors import SampleError
from evals.hiding import hide_gold, is_hidden, with_hidden_twins
from evals.linking import link_samples, near_equal_pairs
from evals.loaders import load
from evals.loaders.squad import squad_passages
from evals.outputs import Output, Passage
from evals.samples import Sample, Turn, clusters
from evals.scoring import score_output

SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Bikes",
            "paragraphs": [
                {
                    "context": "A Ripple costs 49 euros.",
                    "qas": [
                        {
                            "id": "1",
                            "question": "What does a Ripple cost? ",
                            "answers": [
                                {"text": "49 euros", "answer_start": 15},
                                {"text": "49 euros", "answer_start": 15},
                            ],
                        },
                        {
                            "id": "2",
                            "question": "Who invented it?",
                            "is_impossible": True,
                            "answers": [],
                        },
                    ],
                },
                {
                    "context": "Graz.",
                    "qas": [{"id": "3", "question": "Where?", "answers": [{"text": "Graz"}]}],
                },
            ],
        }
    ],
}


def test_squad_becomes_samples_with_paragraphs_as_gold(tmp_path):
    file = tmp_path / "dev.json"
    file.write_text(json.dumps(SQUAD))
    samples = load(file)
    assert [s.answers for s in samples] == [("49 euros",), None, ("Graz",)]
    assert [s.gold for s in samples] == [("Bikes#0",), (), ("Bikes#1",)]
    assert len(set(clusters(samples))) == 1  # one article
    assert squad_passages(file) == {"Bikes#0": "A Ripple costs 49 euros.", "Bikes#1": "Graz."}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "no list 'data'"),
        ('{"data": []}', "holds no questions"),
        ('{"data": [{"title": "T"}]}', "'T' has no list 'paragraphs'"),
        ('{"data": [{"title": "T", "paragraphs": [{"context": "c"}]}]}', "'c' has no list 'qas'"),
        (
            '{"data": [{"title": "T", "paragraphs": [{"context": "c", "qas": [{"id": "1"}]}]}]}',
            "paragraph T#0: a question has no text",
        ),
    ],
)
def test_a_file_that_is_no_squad_is_refused_with_the_place(tmp_path, record, message):
    file = tmp_path / "dev.json"
    file.write_text(record)
    with pytest.raises(SampleError, match=message):
        load(file)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("faq.csv", 'Question,Answer,URL\n"Refund, how?",In 14 days,help/refund\nWho?,,\n'),
        (
            "faq.csv",
            "\ufeffquestion;answer;url\r\nRefund, how?;In 14 days;help/refund\r\nWho?;;\r\n",
        ),
        ("faq.tsv", "prompt\tresponse\tsource\nRefund, how?\tIn 14 days\thelp/refund\nWho?\t\t\n"),
        (
            "faq.jsonl",
            '{"q": "Refund, how?", "answer": "In 14 days", "url": "help/refund"}\n\n'
            '{"question": "Who?", "answer": null}\n',
        ),
    ],
)
def test_faq_tables_of_many_shapes_become_the_same_samples(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text)
    first, second = load(file, "faq")
    assert (first.question, first.answers, first.gold) == (
        "Refund, how?",
        ("In 14 days",),
        ("help/refund",),
    )
    assert (second.question, second.answers) == ("Who?", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", "row 1 has no question; it has a, b"),
        ("question,b\nWhat?,2\n", "row 1 has no answer column"),
        ("question,answer\n", "holds no rows"),
        ("id,question,answer\n1,a,b\n1,c,d\n", "1 rows repeat the id"),
    ],
)
def test_a_table_that_is_no_faq_is_refused(tmp_path, text, message):
    file = tmp_path / "faq.csv"
    file.write_text(text)
    with pytest.raises(SampleError, match=message):
        load(file)


def test_an_unknown_format_names_the_valid_ones(tmp_path):
    with pytest.raises(SampleError, match="auto, samples, squad, faq"):
        load(tmp_path / "x.parquet")


def test_dependent_samples_end_in_one_cluster():
    chat = (Turn("user", "Tell me about Ripple plans"),)
    samples = [
        Sample("a", "How much is the Ripple plan per month?", ("49",), ("d1",)),
        Sample("b", "What else is in it?", ("x",), ("d1",)),
        Sample("c", "How much is the Ripple plan, per month?", ("49",), ("d9",)),
        Sample("d", "And for students?", ("39",), ("d2",), history=chat),
        Sample("e", "And for students in Graz?", ("29",), ("d3",), history=chat),
        Sample("f", "And for students?", ("9",), ("d4",), history=(Turn("user", "Bikes?"),)),
        Sample("g", "Where is the workshop?", ("Graz",), ("d5",), cluster="mine"),
    ]
    numbers = clusters(link_samples(samples))
    assert numbers == (0, 0, 0, 1, 1, 2, 3)
    assert link_samples(samples)[6].cluster == "mine"
    assert link_samples(link_samples(samples)) == link_samples(samples)
    independent = [Sample("a", "How?", ("x",), ("d",)), Sample("b", "Why?", ("x",), ("d",))]
    assert link_samples(independent) == tuple(independent)  # the gold links them already


WORDS = st.lists(st.sampled_from(["cat", "cats", "dog", "12", "13", "of", "is"]), max_size=6)


@given(st.lists(WORDS.map(" ".join), max_size=12))
def test_near_equal_texts_are_those_of_a_brute_force_search(texts):
    def key(text):
        words = {word.removesuffix("s") if word == "cats" else word for word in text.split()}
        content = frozenset(words - {"of", "is"})
        return content if len(content) > 1 else text

    expected = {
        (next(i for i in range(len(texts)) if key(texts[i]) == key(text)), j)
        for j, text in enumerate(texts)
        if text
    }
    assert set(near_equal_pairs(texts)) == {(i, j) for i, j in expected if i != j}


def test_another_name_in_a_long_template_is_another_question():
    texts = [
        f"What is the monthly price of the {name} plan for a new member in Graz?"
        for name in ("Ripple", "Torrent")
    ]
    again = "What are the monthly prices of the Ripple plan for new members in Graz, please?"
    assert list(near_equal_pairs([*texts, again])) == [(0, 2)]


ABLE = Sample("a", "?", ("x",), ("d1",), tags=("t",))
NO_GOLD = Sample("b", "?", ("x",))
UNABLE = Sample("c", "?")


def test_with_the_gold_hidden_refusing_is_right_and_not_over_refusal():
    hidden, unable = hide_gold([ABLE, NO_GOLD, UNABLE])
    assert (hidden.id, hidden.answers, hidden.gold) == ("a", None, ("d1",))
    assert is_hidden(hidden)
    assert not is_hidden(unable)
    refused = score_output(hidden, Output("a", "rag", "", abstained=True))
    assert refused["abstention"].value == 1.0
    assert refused["over_refusal"].value is None
    assert refused["token_f1"].value == 1.0
    answered = score_output(hidden, Output("a", "rag", "x", ("d1",)))
    assert answered["token_f1"].value == 0.0
    assert answered["right_citation"].value is None
    with pytest.raises(SampleError, match="could be hidden"):
        hide_gold([NO_GOLD, UNABLE])


def test_twins_ask_both_ways_and_depend_on_each_other():
    samples = with_hidden_twins([ABLE, NO_GOLD, UNABLE])
    assert [s.id for s in samples] == ["a", "b", "c", "a#hidden"]
    numbers = clusters(samples)
    assert numbers[0] == numbers[3]
    assert len(set(numbers)) == 3


def test_bm25_with_a_template_cites_its_sentence_and_can_refuse():
    passages = [
        Passage("p1", "Ripple plans are popular. The price of a Ripple plan is 49 euros."),
        Passage("p2", "The workshop opens at nine."),
    ]
    solve = bm25_template_arm(lambda sample: passages)
    said = solve(Sample("q", "What is the price of a Ripple plan?"))
    assert said.text == "According to p1: The price of a Ripple plan is 49 euros."
    assert said.citations == ("p1",)
    strict = bm25_template_arm(lambda sample: passages, refuse_below=0.5)
    assert strict(Sample("q", "Who founded it in Vienna?")).abstained
    assert not strict(Sample("q", "What is the price of a Ripple plan?")).abstained
    assert bm25_template_arm(lambda sample: [])(Sample("q", "?")).abstained
