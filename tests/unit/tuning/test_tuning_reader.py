import json
import random
import re

import pytest

from tuning.builder import DrawConfig, draw
from tuning.errors import SnapshotError, TemplateError, TuneConfigError
from tuning.reader.build import build, main
from tuning.reader.generator import generate, reader_rows, row_at
from tuning.reader.mix import ReaderMix, reader_mix
from tuning.reader.phrasing import noisy
from tuning.reader.policyqa import policyqa_rows
from tuning.reader.templates import (
    fill,
    load_templates,
    parse_line,
    parse_template,
    train_templates,
)
from tuning.snapshot import load, validate_row

TEMPLATE = {
    "id": "t-1",
    "domain": "history",
    "title": "Battle of {place}",
    "slots": {
        "place": {"type": "place"},
        "year": {"type": "year", "min": 1300, "max": 1900},
        "who": {"type": "person"},
    },
    "passage": "The battle of {place} <was fought|took place> in {year}. {who.last} won it.",
    "questions": [{"q": ["When was the battle of {place}?"], "a": "{year}"}],
    "unanswerable": ["Who lost?"],
}


@pytest.fixture(scope="module")
def sample():
    return list(generate(5, 400))


def test_every_shipped_template_follows_the_rules():
    templates = load_templates()
    assert len(templates) >= 200
    held_out = [template.id for template in templates if template.held_out]
    assert 0.03 < len(held_out) / len(templates) < 0.15


def test_rows_are_valid_and_answers_are_literal_spans(sample):
    for row in sample:
        validate_row(row)
        if row["kind"] == "grounded":
            assert row["answer"] in row["gold"][0]["text"]
            assert not re.search(r"[{}]", row["question"] + row["gold"][0]["text"])


def test_a_row_depends_on_seed_and_position_alone(sample):
    assert reader_rows(5, 100, 103) == sample[100:103]
    assert row_at(6, 100) != sample[100]


def test_train_rows_never_touch_held_out_templates(sample):
    held_out = {template.component for template in load_templates() if template.held_out}
    assert held_out.isdisjoint(row["component"] for row in sample)
    dev = reader_rows(5, 0, 50, split="dev")
    assert held_out.issuperset(row["component"] for row in dev)


def test_names_asked_about_occur_in_no_distractor():
    templates = {template.id: template for template in load_templates()}
    redrawn = 0
    for row in generate(9, 400):
        template = templates[row["provenance"]["template"]]
        for question in template.questions:
            for phrasing in question.phrasings:
                assert template.naming_slots(phrasing) <= set(template.slots)
        if row["kind"] != "grounded" or row["history"]:
            continue
        words = [w for w in re.findall(r"\b[A-Z]\w{5,}", row["question"][4:]) if w]
        gold = f"{row['gold'][0]['title']} {row['gold'][0]['text']}"
        # Words of the template, or of names drawn from its list ("Tower Library"), are shared.
        fixed = f"{template.passage} {template.title} {dict(template.slots)}"
        own = [w for w in words if w in gold and w not in fixed]
        same = [d for d in row["distractors"] if _same_skeleton(d["text"], template)]
        redrawn += bool(same)
        if same and own and not row["question"].islower():
            assert any(all(w not in f"{d['title']} {d['text']}" for d in same) for w in own)
    assert redrawn > 50


def _same_skeleton(text, template):
    fixed = re.sub(r"<[^<>]*>", "\n", re.sub(r"\{[^}]*\}", "\n", template.passage))
    longest = max(fixed.split("\n"), key=len).strip()
    return len(longest) > 12 and longest in text


def test_vague_questions_get_no_redraw_of_their_own_template():
    templates = {template.id: template for template in load_templates()}
    checked = 0
    for row in generate(11, 400):
        template = templates[row["provenance"]["template"]]
        texts = [p for q in template.questions for p in q.phrasings]
        match = [p for p in texts if p.lower().rstrip("?") == row["question"].lower().rstrip("?")]
        if match and not template.naming_slots(match[0]) and not row["history"]:
            others = row["distractors"][1 if row["kind"] == "abstain" else 0 :]
            assert not any(_same_skeleton(d["text"], template) for d in others)
            checked += 1
    assert checked > 50


def test_abstain_rows_show_the_passage_asked_about_first(sample):
    rows = [row for row in sample if row["kind"] == "abstain"]
    assert 0.08 < len(rows) / len(sample) < 0.26
    for row in rows[:20]:
        drawn = draw(row, DrawConfig(), seed=0, epoch=0)
        assert row["distractors"][0]["text"] in drawn.messages[-1]["content"]


def test_rows_vary_in_form(sample):
    assert len({row["system"] for row in sample}) > 8
    assert 0.03 < sum(bool(row["history"]) for row in sample) / len(sample) < 0.2
    assert any(" > " in row["gold"][0]["title"] for row in sample if row["gold"])
    assert any(not row["question"].endswith("?") for row in sample)
    assert len({row["question"] for row in sample}) > 380


def test_a_share_of_the_mix_can_be_left_out():
    mix = reader_mix({"unanswerable": 0, "history": 0, "articles": 0})
    rows = reader_rows(5, 0, 120, mix=mix)
    assert {row["kind"] for row in rows} == {"grounded"}
    assert not any(row["history"] for row in rows)
    articles = {t.article for t in load_templates() if t.article}
    assert articles
    assert articles.isdisjoint(row["component"] for row in rows)
    with pytest.raises(TuneConfigError, match="no 'tables': choose unanswerable"):
        reader_mix({"tables": 0.5})
    with pytest.raises(TuneConfigError, match=r"window'\]=2 must lie"):
        reader_mix({"window": 2})


def test_typing_errors_spare_the_protected_names():
    rng = random.Random(0)
    asked = "When did Zorvale change hands?"
    forms = {noisy(asked, rng, protected=("Zorvale",)) for _ in range(600)}
    assert len(forms) > 20
    assert all("zorvale" in form.lower() for form in forms)


def test_alternations_slots_and_surnames_are_filled():
    template = parse_template(TEMPLATE, "x")
    rng = random.Random(0)
    texts = {fill(template, rng).passage for _ in range(20)}
    assert {"was fought", "took place"} == {
        verb for text in texts for verb in ("was fought", "took place") if verb in text
    }
    filled = fill(template, rng)
    assert filled.values["who"].endswith(filled.values["who.last"])
    assert filled.values["who.last"] + " won it" in filled.passage


ARTICLE = {
    "id": "a-1",
    "domain": "places",
    "slots": {
        "n": {"type": "place"},
        "y": {"type": "year", "min": 1300, "max": 1500},
        "who": {"type": "person"},
    },
    "sections": [
        {
            "title": "{n} (town)",
            "passage": "{n} got its charter in {y}.",
            "questions": [{"q": ["When did {n} get its charter?"], "a": "{y}"}],
        },
        {
            "title": "{n} (town)",
            "passage": "The mill of {n} was built by {who}.",
            "questions": [{"q": ["Who built the mill of {n}?"], "a": "{who}"}],
        },
    ],
}


def test_sections_of_an_article_are_templates_of_one_component():
    sections = parse_line(ARTICLE, "x")
    assert [section.id for section in sections] == ["a-1.1", "a-1.2"]
    assert {section.component for section in sections} == {"a-1"}
    assert len({section.held_out for section in sections}) == 1
    with pytest.raises(TemplateError, match="two sections"):
        parse_line(ARTICLE | {"sections": ARTICLE["sections"][:1]}, "x")


def test_other_sections_of_the_article_stand_beside_its_questions(monkeypatch):
    from tuning.reader import generator

    first, second = parse_line(ARTICLE, "x")
    monkeypatch.setattr(generator, "_articles", lambda split: {"a-1": (first, second)})
    beside = kept = 0
    for seed in range(60):
        rng = random.Random(seed)
        filled = fill(first, rng)
        drawing = ("train", ReaderMix())
        drawn = generator._other_sections(filled, filled.values["y"], drawing, rng)
        beside += len(drawn)
        assert all(filled.values["n"] in d.passage for d in drawn)
        # A section that holds the answer as well would make the citation ambiguous.
        kept += len(generator._other_sections(filled, filled.values["n"], drawing, rng))
        kept += len(generator._other_sections(filled, filled.values["n"].upper(), drawing, rng))
    assert 30 < beside < 60
    assert kept == 0


def test_no_other_draw_of_the_article_stands_beside_its_questions(monkeypatch):
    from tuning.reader import generator

    first, second = parse_line(ARTICLE, "x")
    far = parse_template(TEMPLATE | {"domain": first.domain}, "x")
    monkeypatch.setattr(generator, "_articles", lambda split: {"a-1": (first, second)})
    monkeypatch.setattr(generator, "_templates", lambda split: (first, second, far))
    near = {first.domain: (first, second, far), "x": (first, second, far)}
    monkeypatch.setattr(generator, "_by_field", lambda split, field: near)
    for seed in range(20):
        rng = random.Random(seed)
        drawing = ("train", ReaderMix(sections=0.0))
        shown = generator._distractors(fill(first, rng), None, frozenset(), drawing, rng)
        assert all(text.startswith("The battle of") for _, text in shown)


def test_a_redraw_avoids_the_given_values():
    record = {
        **TEMPLATE,
        "slots": {**TEMPLATE["slots"], "year": {"type": "year", "min": 1, "max": 2}},
    }
    template = parse_template(record, "x")
    rng = random.Random(0)
    drawn = {fill(template, rng, {"year": "1"}).values["year"] for _ in range(30)}
    assert drawn == {"2"}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"questions": [{"q": ["x"], "a": "was fought"}]}, "not in the passage"),
        ({"title": "{nobody}"}, "'nobody' is not declared"),
        ({"slots": {**TEMPLATE["slots"], "year": {"type": "aeon"}}}, "unknown type 'aeon'"),
        ({"title": "{place.last}"}, "is no person"),
    ],
)
def test_a_template_that_breaks_the_rules_is_refused(change, reason):
    with pytest.raises(TemplateError, match=reason):
        parse_template({**TEMPLATE, **change}, "x")


def test_a_bad_template_file_is_named_with_its_line(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps(TEMPLATE) + "\n" + json.dumps(TEMPLATE) + "\n")
    with pytest.raises(TemplateError, match=r"a\.jsonl line 2: id 't-1' occurs twice"):
        load_templates(tmp_path)


def test_the_command_seals_a_snapshot_with_held_out_templates_as_dev(tmp_path, capsys):
    assert main(["--rows", "30", "--dev-rows", "10", "--out", str(tmp_path / "s")]) == 0
    snapshot = load(tmp_path / "s")
    assert json.loads(capsys.readouterr().out)["id"] == snapshot.manifest.id
    train = {row["component"] for row in snapshot.split("train")}
    assert train.isdisjoint(row["component"] for row in snapshot.split("dev"))
    assert build(tmp_path / "t", rows=30, dev_rows=10, seed=1).id == snapshot.manifest.id


def test_policyqa_rows_are_short_literal_spans_once_each(tmp_path):
    passage = "We keep your data for thirty days after you close the account. " * 3
    passages = [
        {"passage_id": f"s#{i}", "title": "s", "text": f"Part {i}. {passage}"} for i in range(8)
    ]
    ask = {"question": "How long do you keep data?", "gold_passage": "s#0"}
    questions = [
        {**ask, "id": "1", "answers": ["thirty days", "days"]},
        {**ask, "id": "2", "answers": ["thirty days"]},
        {"id": "3", "question": "Other?", "gold_passage": "s#1", "answers": ["not in there"]},
    ]
    for name, records in (("passages", passages), ("questions", questions)):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / f"{name}.dev.jsonl").write_text(lines)
    (row,) = policyqa_rows(str(tmp_path))
    assert (row["answer"], row["gold"][0]["id"]) == ("thirty days", "s#0")
    assert "s#1" not in [passage["id"] for passage in row["distractors"]]
    mixed = reader_rows(1, 0, 60, policyqa=str(tmp_path))
    assert 0 < sum(r["provenance"]["source"] == "policyqa" for r in mixed) < 30
    assert len({r["id"] for r in mixed}) == 60


def test_a_folder_without_policyqa_is_refused(tmp_path):
    with pytest.raises(SnapshotError, match="holds no passages"):
        policyqa_rows(str(tmp_path))


def test_training_templates_leave_the_held_out_ones_aside():
    templates = load_templates()
    assert len(train_templates(templates)) < len(templates)
