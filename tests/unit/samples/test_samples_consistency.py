"""The sample company holds together: facts, examples, questions and both versions agree."""

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pypdfium2
import pytest
from bs4 import BeautifulSoup

SAMPLES = Path(__file__).resolve().parents[3] / "samples"
KNOWLEDGE = SAMPLES / "knowledge"
SIGN_OFF = "Fair winds!"
ABSTENTION = "I could not find this in the knowledge base."
KINDS = {"answerable", "changed", "unanswerable", "style"}


def read_lines(name: str) -> list[dict]:
    return [json.loads(line) for line in (SAMPLES / name).read_text(encoding="utf-8").splitlines()]


@cache
def page_text(version: str, page: str) -> str:
    path = KNOWLEDGE / version / page
    if path.suffix == ".pdf":
        document = pypdfium2.PdfDocument(path)
        text = "\n".join(sheet.get_textpage().get_text_range() for sheet in document)
        document.close()
    else:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".html":
            text = BeautifulSoup(text, "lxml").get_text(" ")
    return " ".join(text.split())


def pages(version: str) -> set[str]:
    return {path.name for path in (KNOWLEDGE / version).iterdir()}


def occurs(value: str, version: str, page: str) -> bool:
    """Whether the value stands in the page on its own: "5 bikes" does not occur in "15 bikes"."""
    return re.search(rf"(?<!\w){re.escape(value)}(?!\w)", page_text(version, page)) is not None


def normalised(question: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z0-9]+", question.lower()))


EXAMPLES = read_lines("examples.jsonl")
QUESTIONS = read_lines("questions.jsonl")


def of_kind(kind: str) -> list[dict]:
    return [row for row in EXAMPLES if row["metadata"]["kind"] == kind]


def tagged(tag: str) -> list[dict]:
    return [row for row in QUESTIONS if tag in row["tags"]]


def reply(example: dict) -> str:
    return example["messages"][1]["content"]


def test_each_version_has_markdown_html_text_and_pdf_pages() -> None:
    for version in ("v1", "v2"):
        suffixes = Counter(Path(page).suffix for page in pages(version))
        assert 14 <= sum(suffixes.values()) <= 18
        assert (suffixes[".html"], suffixes[".txt"], suffixes[".pdf"]) == (1, 1, 1)


def test_every_page_is_short_enough_to_read_in_two_minutes() -> None:
    for version in ("v1", "v2"):
        for page in pages(version):
            assert 120 <= len(page_text(version, page).split()) <= 350, (version, page)


def test_the_pdf_has_two_pages_with_a_text_layer() -> None:
    document = pypdfium2.PdfDocument(KNOWLEDGE / "v1" / "rider-handbook.pdf")
    assert len(document) == 2
    for sheet in document:
        assert len(sheet.get_textpage().get_text_range().split()) > 50
    document.close()


def test_one_page_goes_away_and_one_new_page_comes_in_v2() -> None:
    assert pages("v1") - pages("v2") == {"summer-pass.md"}
    assert pages("v2") - pages("v1") == {"ferries-and-trains.md"}


def test_several_pages_stay_the_same_byte_for_byte_and_twelve_change() -> None:
    both = pages("v1") & pages("v2")
    same = {
        page
        for page in both
        if (KNOWLEDGE / "v1" / page).read_bytes() == (KNOWLEDGE / "v2" / page).read_bytes()
    }
    assert len(same) == 5
    assert {row["gold"][0] for row in tagged("changed")} == both - same
    assert len(both - same) == 12


def test_ids_are_unique() -> None:
    for ids in ([e["metadata"]["id"] for e in EXAMPLES], [q["id"] for q in QUESTIONS]):
        assert len(ids) == len(set(ids))


def test_there_are_enough_examples_and_questions_of_every_kind() -> None:
    examples = Counter(row["metadata"]["kind"] for row in EXAMPLES)
    assert set(examples) == {"grounded", "style", "abstain"}
    assert examples["grounded"] >= 110
    assert examples["style"] >= 35
    assert examples["abstain"] >= 25
    questions = Counter(row["tags"][0] for row in QUESTIONS)
    assert set(questions) == KINDS
    assert questions["answerable"] >= 43
    assert questions["changed"] >= 20
    assert min(questions["unanswerable"], questions["style"]) >= 18


def test_the_readme_states_the_true_counts() -> None:
    readme = (SAMPLES / "README.md").read_text(encoding="utf-8")
    kinds = Counter(row["metadata"]["kind"] for row in EXAMPLES)
    first = Counter(row["tags"][0] for row in QUESTIONS)
    listed = ", ".join(f"{kinds[kind]} {kind}" for kind in ("grounded", "style", "abstain"))
    assert f"{len(EXAMPLES)}: {listed}" in readme
    order = ("answerable", "changed", "unanswerable", "style")
    listed = ", ".join(f"{first[kind]} {kind}" for kind in order)
    assert f"{len(QUESTIONS)}: {listed}" in readme
    assert f"{len(tagged('seen-section'))} and {len(tagged('new-section'))} questions" in readme
    assert f"{len(tagged('changed'))} facts change on 12 pages" in readme


def test_every_example_is_one_user_turn_and_one_signed_reply() -> None:
    for row in EXAMPLES:
        assert [turn["role"] for turn in row["messages"]] == ["user", "assistant"]
        assert reply(row).endswith(SIGN_OFF)
        assert reply(row).count(SIGN_OFF) == 1
        assert row["metadata"]["author"] in {"ada", "ben", "cleo", "dov"}


def test_grounded_replies_are_one_short_sentence_with_one_citation() -> None:
    for row in of_kind("grounded"):
        fact, cite, rest = reply(row).partition(" {cite}")
        assert cite
        assert rest == f". {SIGN_OFF}", row
        assert 6 <= len(fact.split()) <= 22, row


def test_grounded_replies_rest_on_text_of_the_v1_page() -> None:
    for row in of_kind("grounded"):
        (page,) = row["metadata"]["sources"]
        gold_text = " ".join(row["metadata"]["gold_text"].split())
        assert gold_text in page_text("v1", page), row
        numbers = re.findall(r"\d[\d:.,-]*\d|\d", reply(row))
        assert all(number in gold_text for number in numbers), row


def test_grounded_examples_touch_every_v1_page() -> None:
    assert {row["metadata"]["sources"][0] for row in of_kind("grounded")} == pages("v1")


def test_only_grounded_replies_carry_the_citation_placeholder() -> None:
    for row in of_kind("style") + of_kind("abstain"):
        assert "{cite}" not in reply(row)
        assert row["metadata"]["sources"] == []


def test_every_abstention_is_the_one_fixed_reply() -> None:
    assert {reply(row) for row in of_kind("abstain")} == {f"{ABSTENTION} {SIGN_OFF}"}
    others = of_kind("grounded") + of_kind("style")
    assert not [row for row in others if reply(row).startswith(ABSTENTION)]


def test_each_style_moment_has_one_reply_and_the_manual_prescribes_it() -> None:
    manual = (SAMPLES / "house_style.md").read_text(encoding="utf-8")
    replies: dict[str, set[str]] = {}
    for row in of_kind("style"):
        replies.setdefault(row["metadata"]["intent"], set()).add(reply(row))
    assert len(replies) == 7
    for intent, texts in replies.items():
        (text,) = texts
        assert re.search(rf"^\| {intent} \|.*\| {re.escape(text)} \|$", manual, re.MULTILINE)


def test_style_questions_accept_the_replies_of_the_style_examples() -> None:
    house = {row["metadata"]["intent"]: reply(row) for row in of_kind("style")}
    for row in tagged("style"):
        assert row["gold"] == []
        assert row["answers"] == [house[row["cluster"].removeprefix("style-")]]


@pytest.mark.parametrize(("version", "suffix"), [("v1", ""), ("v2", "_v2")])
def test_values_occur_in_their_gold_page_and_in_every_accepted_answer(
    version: str, suffix: str
) -> None:
    checked = 0
    for row in QUESTIONS:
        value = row.get(f"value{suffix}")
        if value is None:
            continue
        (page,) = row[f"gold{suffix}"]
        whole, short = row[f"answers{suffix}"]
        assert occurs(value, version, page), row
        assert short == value
        assert value in whole
        assert whole.endswith(f". {SIGN_OFF}")
        assert 6 <= len(whole.removesuffix(f" {SIGN_OFF}").split()) <= 22, row
        checked += 1
    assert checked >= 20


def test_changed_values_differ_and_are_absent_from_the_other_version() -> None:
    for row in tagged("changed"):
        assert not occurs(row["value"], "v2", row["gold_v2"][0]), row
        assert not occurs(row["value_v2"], "v1", row["gold"][0]), row


def test_answerable_questions_keep_their_answer_in_v2_unless_removed() -> None:
    for row in tagged("answerable"):
        if "removed" in row["tags"]:
            assert row["gold"][0] not in pages("v2")
            assert (row["answers_v2"], row["gold_v2"]) == (None, [])
        else:
            assert "answers_v2" not in row
            assert occurs(row["value"], "v2", row["gold"][0]), row


def test_unanswerable_questions_have_no_answer_and_no_gold_page() -> None:
    for row in tagged("unanswerable"):
        assert row["answers"] is None
        assert row["gold"] == []
        if "added" in row["tags"]:
            assert row["gold_v2"][0] not in pages("v1")
        else:
            assert "answers_v2" not in row


def test_about_half_of_the_fact_questions_ask_about_sections_without_an_example() -> None:
    covered = {(r["metadata"]["sources"][0], r["metadata"]["section"]) for r in of_kind("grounded")}
    facts = [row for row in QUESTIONS if "value" in row]
    for row in facts:
        page = (row["gold"] or row["gold_v2"])[0]
        expected = "seen-section" if (page, row["section"]) in covered else "new-section"
        assert expected in row["tags"], row
    assert 0.4 <= len(tagged("new-section")) / len(facts) <= 0.6


def test_no_evaluation_question_repeats_an_example() -> None:
    asked = [normalised(row["messages"][0]["content"]) for row in EXAMPLES]
    assert len(set(asked) - {()}) >= len(EXAMPLES) - 1
    for row in QUESTIONS:
        mine = set(normalised(row["question"]))
        assert mine, row
        for other in asked:
            overlap = len(mine & set(other)) / len(mine | set(other))
            assert overlap <= 0.75, (row["question"], other)


def test_questions_are_all_different() -> None:
    assert len({normalised(row["question"]) for row in QUESTIONS}) == len(QUESTIONS)


def test_the_scripted_correction_is_new_and_supported_by_its_page() -> None:
    correction = json.loads((SAMPLES / "corrections.json").read_text(encoding="utf-8"))
    assert correction["gold_text"] in page_text("v1", correction["page"])
    assert correction["gold_text"] in page_text("v2", correction["page"])
    assert correction["corrected_reply"].count("{cite}") == 1
    assert correction["corrected_reply"].endswith(SIGN_OFF)
    assert correction["author"] != correction["reviewer"]
    known = {reply(row) for row in EXAMPLES}
    assert correction["corrected_reply"] not in known
    asked = {row["question"] for row in QUESTIONS}
    assert correction["question"] not in asked


def test_addresses_use_reserved_names_only() -> None:
    for version in ("v1", "v2"):
        for page in pages(version):
            for domain in re.findall(r"@([\w.-]*\w)", page_text(version, page)):
                assert domain.endswith(".example")
