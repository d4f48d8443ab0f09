"""The questions of the four-arm run: which are chosen, how the sets are joined, what is right."""

import json

import pytest

from benchmarks import four_arms
from benchmarks.quality_tasks import FACTS, bitext
from benchmarks.xquad import split_of
from evals.samples import clusters, parse_sample


def _plain(name, count, *, clusters=3):
    return [
        four_arms._sample(name, f"{name}-{i}", f"Question {i}?", ["yes"], [], f"c{i % clusters}")
        for i in range(count)
    ]


@pytest.fixture
def bitext_rows(tmp_path):
    """Rows of requests in many templates, so that every intent has some of the test split."""
    folder = tmp_path / "bitext_short"
    folder.mkdir()
    replies = [{"intent": i, "reply": f"Reply with {fact[1]}."} for i, fact in FACTS.items()]
    replies.append({"intent": "complaint", "reply": "We are sorry."})
    (folder / "canned_replies.json").write_text(json.dumps(replies))
    letters = "abcdefghijklmnopqrstuvwxyz"
    records = [
        {"id": f"{intent}-{x}", "instruction": f"about {intent} {x} please", "intent": intent}
        for intent in (*FACTS, "complaint")
        for x in letters
    ]
    lines = (json.dumps(record) + "\n" for record in records)
    (folder / "bitext_short.shared.jsonl").write_text("".join(lines))
    return bitext(tmp_path)


def test_choice_takes_clusters_in_turn_and_grows_without_dropping():
    rare = four_arms._sample("northwind", "rare", "Something else?", ["yes"], [], "small")
    rows = [*_plain("northwind", 30, clusters=2), rare]
    few, more = four_arms.chosen(rows, 6), four_arms.chosen(rows, 12)
    assert more[:6] == few
    assert [sum(r["cluster"] == c for r in few) for c in sorted({r["cluster"] for r in few})] in (
        [3, 2, 1],
        [2, 3, 1],
    )
    assert four_arms.chosen(list(reversed(rows)), 6) == few


def test_questions_in_the_same_words_are_asked_once():
    rows = _plain("xquad", 2)
    rows.append(rows[0] | {"id": "again", "question": "question 0"})
    assert len(four_arms.chosen(rows, 10)) == 2


def test_questions_that_training_has_in_other_letters_are_left_out():
    rows = [
        four_arms._sample("bitext", key, question, ["yes"], [], "c")
        for key, question in (("a", "Where is my order?"), ("b", "Who pays for the return parcel"))
    ]
    left = four_arms.unseen(rows, ["where is my order", "how long does shipping take"])
    assert [row["id"] for row in left] == ["b"]


def test_sets_are_mixed_over_the_run_and_keep_their_counts():
    sets = {"northwind": _plain("northwind", 9), "xquad": _plain("xquad", 9)}
    rows = four_arms.joined(sets, {"northwind": 2, "xquad": 6})
    tags = [row["tags"][0] for row in rows]
    assert tags.count("northwind") == 2
    assert tags.count("xquad") == 6
    assert set(tags[:4]) == set(tags[4:]) == {"northwind", "xquad"}
    # Clusters of two sets never meet, though they have the same names.
    parsed = [parse_sample(row) for row in rows]
    by_number = zip(clusters(parsed), tags, strict=True)
    assert len({number for number, _ in by_number}) == len({row["cluster"] for row in rows})


def test_too_few_questions_name_the_set():
    with pytest.raises(SystemExit, match="xquad has 3 questions to choose from, not 4"):
        four_arms.joined({"xquad": _plain("xquad", 3)}, {"xquad": 4})


def test_northwind_answers_lose_their_citation_and_keep_other_brackets():
    row = {
        "id": "nw-1",
        "question": "How long? ",
        "truth": "Ten [10] days.[A_b.pdf#page=7][C.pdf#page=12]",
        "citations": ["C.pdf#page=12", "A_b.pdf#page=7"],
    }
    (made,) = four_arms.northwind([row])
    assert made["answers"] == ["Ten [10] days."]
    assert made["gold"] == ["northwind/A_b.pdf", "northwind/C.pdf"]
    assert (made["cluster"], made["tags"]) == ("northwind:northwind/A_b.pdf", ["northwind"])


def test_xquad_keeps_articles_of_the_test_split_only():
    titles = [f"Article_{i}" for i in range(40)]
    passages = {f"{title}#0": {"title": title, "text": "Text."} for title in titles}
    rows = [
        {"id": key, "question": "Q?", "answers": ["a", "a", "b"], "gold_passage": key}
        for key in passages
    ]
    made = four_arms.xquad(rows, passages)
    assert [m["cluster"] for m in made] == [f"xquad:{t}" for t in titles if split_of(t) == "test"]
    assert 0 < len(made) < 40
    assert made[0]["answers"] == ["a", "b"]


def test_articles_contradict_the_canned_replies_and_hold_the_accepted_answer(bitext_rows):
    articles, samples = four_arms.bitext(bitext_rows)
    split = {row["id"]: row["split"] for row in bitext_rows}
    assert samples
    assert {split[sample["id"]] for sample in samples} == {"test"}
    accepted = {}
    for sample in samples:
        intent = sample["cluster"].removeprefix("bitext:")
        (answer,), (gold,) = sample["answers"], sample["gold"]
        assert answer in articles[gold]
        assert FACTS[intent][1] not in articles[gold]
        accepted.setdefault(intent, set()).add(answer)
    # One knowledge base holds one fact an intent, and no two intents the same.
    assert all(len(facts) == 1 for facts in accepted.values())
    assert len(set.union(*accepted.values())) == len(accepted) == len(articles)


def test_gold_that_was_not_ingested_stops_the_run():
    rows = [{"gold": ["xquad/a.md"]}, {"gold": ["xquad/b.md"]}]
    four_arms.check_gold(rows, {"xquad/a.md", "xquad/b.md", "c"})
    with pytest.raises(SystemExit, match=r"1 gold documents were not ingested, first: xquad/b\.md"):
        four_arms.check_gold(rows, {"xquad/a.md"})


def test_documents_lie_one_folder_a_set(tmp_path):
    pdf = tmp_path / "Plan.pdf"
    pdf.write_bytes(b"%PDF-1.4")
    sets = four_arms.Sets({}, {"xquad/A#0.md": "# A\n", "support/x.md": "# X\n"}, (pdf,))
    four_arms.write_documents(sets, tmp_path / "out")
    found = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert found == {"northwind/Plan.pdf", "xquad/A#0.md", "support/x.md"}


def test_progress_shows_rate_and_time_left():
    job = {"state": "running", "done": 20, "total": 100, "message": "rag 0.31"}
    assert four_arms.progress_line(job, 10.0) == "20/100 2.00/s ETA 40 s · rag 0.31"
    own = job | {"message": "rag 0.31, ETA 7 s"}
    assert four_arms.progress_line(own, 10.0) == "20/100 2.00/s · rag 0.31, ETA 7 s"
    assert four_arms.progress_line({"state": "queued", "done": 0, "total": 0}, 3.0) == "queued"
    assert four_arms.progress_line(job | {"done": 100}, 50.0).startswith("100/100 2.00/s ·")
