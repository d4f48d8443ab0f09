"""A dataset with planted faults, each flagged on its card, and a clean twin that is not."""

import json

import numpy as np
import pytest
from factories import add_answer, principal_of, write_jsonl
from fakes import HashingEncoder, make_byte_tokenizer

from app.datasets import service
from app.datasets.building import BuildOptions, Tools
from app.datasets.importing import import_examples
from app.db.tables import UseCase
from retrieval.types import Hit
from tuning.dataset_card import render_dataset_card
from tuning.dataset_flags import find_flags
from tuning.snapshot import Snapshot, load, load_findings, seal

INTENTS = {
    "refund": "money back returned payment refund cash credited",
    "delivery": "parcel courier shipping delivery arrived package",
    "repair": "broken brake gear wheel repair workshop",
    "login": "password account sign login locked access",
    "invoice": "invoice bill receipt tax statement copy",
}
FILLERS = [
    "please",
    "kindly",
    "today",
    "again",
    "still",
    "yesterday",
    "really",
    "maybe",
    "finally",
    "quickly",
    "soon",
    "already",
]


FACTS = [f"The {name} workshop opens at {n}:30." for n, name in enumerate(("North", "South"), 7)]
# The retriever finds the first document, of which no class label is a fact, for every question.
HITS = [Hit("h", "d", "v", 1.0, 1.0, "w", "kb", FACTS[0], "Opening", (), None, None, 0, 9, 0)]


def labelled(count=200):
    """Questions of five intents, no two alike; the answer is the intent as JSON."""
    rows = []
    names = list(INTENTS)
    for n in range(count):
        rng = np.random.default_rng(n)
        intent = names[n % len(names)]
        words = rng.permutation(INTENTS[intent].split())[:5].tolist()
        extra = rng.permutation(FILLERS)[:2].tolist()
        question = f"{extra[0]} {' '.join(words)} {extra[1]} case {n}"
        rows.append((question, json.dumps({"intent": intent})))
    return rows


def example(question, answer, n=0, **metadata):
    return {
        "instruction": question,
        "output": answer,
        "metadata": {"author": f"author {n % 4}"} | metadata,
    }


@pytest.fixture
def build(database, tmp_path):
    with database.session() as session:
        owner = principal_of(session, "olga", "ml")
        add_answer(session, owner, FACTS, question="password locked?")
    encoder, tokenizer = HashingEncoder(), make_byte_tokenizer()

    def run(records, **options):
        file = write_jsonl(tmp_path / "examples.jsonl", records)
        with database.session() as session:
            use_case = session.query(UseCase).one()
            import_examples(session, owner, use_case, file)
            name = use_case.name
        tools = Tools(lambda q, n: HITS, encoder.embed_passages, tokenizer)
        return service.build(database, owner, name, tools, tmp_path, BuildOptions(**options))

    return run


def faults(records):
    """The same records with every fault planted; the number of rows each touches."""
    rng = np.random.default_rng(0)
    planted = [dict(record) for record in records]
    for n in rng.choice(len(planted), len(planted) // 20, replace=False):
        wrong = "refund" if "refund" not in planted[n]["output"] else "login"
        planted[n] = planted[n] | {"output": json.dumps({"intent": wrong})}
    long = "kindly explain the whole history of my parcel and where the courier was " * 20
    planted += [
        example(planted[0]["instruction"], json.dumps({"intent": "other"}), 1),  # contradiction
        example(long, json.dumps({"intent": "delivery"}), 2),  # would be truncated
        example("my card 4111 1111 1111 1111 was billed twice", '{"intent": "invoice"}', 3),
        example("the password is Tr0ub4dor&3xy and locked", '{"intent": "login"}', 3),
        example(planted[9]["instruction"].replace(" ", "  ") + "!", planted[9]["output"] + " ", 1),
        example(f"{planted[13]['instruction']} ok", planted[13]["output"], 1),  # near duplicate
    ]
    return planted


def test_every_planted_fault_is_flagged_and_the_clean_twin_is_not(build):
    records = [example(q, a, n) for n, (q, a) in enumerate(labelled())]
    snapshot = build(records)
    clean = load(snapshot.path)
    assert {flag.kind for flag in find_flags(clean.manifest)} == set()
    assert "Nothing was found" in render_dataset_card(clean, load_findings(snapshot.path))
    assert len(clean.rows) == len(records)


def test_planted_faults_are_flagged_and_left_out_with_reasons(build):
    records = [example(q, a, n) for n, (q, a) in enumerate(labelled())]
    planted = faults(records)
    snapshot = build(planted)
    loaded = load(snapshot.path)
    kinds = {flag.kind for flag in find_flags(loaded.manifest)}
    faulty = "duplicates contradictions personal_data secrets truncation label_noise"
    expected = faulty.split()
    assert set(expected) <= kinds
    said = [entry["reason"] for entry in loaded.manifest.provenance["refused"]]
    for reason in ("different labels", "tokens, the limit is", "named secret", "it repeats row"):
        assert any(reason in text for text in said), reason
    page = render_dataset_card(loaded, load_findings(snapshot.path))
    assert all(f'data-flag="{kind}"' in page for kind in expected)
    everything = "\n".join(row["question"] for row in loaded.rows)
    assert "4111" not in everything
    assert "<CARD>" in everything
    assert "Tr0ub4dor" not in json.dumps(loaded.rows) + page


def test_one_dataset_with_all_six_faults_shows_each_on_its_card(build):
    """Duplicates, leaks, 5 % wrong labels, personal data, contradictions and truncation."""
    grounded = {"kind": "grounded", "sources": ["doc-1.md"]}
    records = [example(q, a, n) for n, (q, a) in enumerate(labelled())]
    records = [*faults(records), example("When does North open?", FACTS[0], 0, **grounded)]
    six = ("duplicates", "leaks", "label_noise", "personal_data", "contradictions", "truncation")
    pages = {}
    for seed in range(60):  # until the grounded row is held out
        snapshot = load(build(records, seed=seed, test=0.2, held_out_distractors="keep").path)
        (asked,) = [row for row in snapshot.rows if row["kind"] == "grounded"]
        if asked["split"] != "train":
            pages["keep"] = render_dataset_card(snapshot)
            again = build(records, seed=seed, test=0.2)
            pages["drop"] = render_dataset_card(load(again.path))
            break
    for kind in six:
        assert f'data-flag="{kind}"' in pages["keep"], kind
        assert (f'data-flag="{kind}"' in pages["drop"]) == (kind != "leaks"), kind


def row(name, question, answer, split, component):
    return {
        "id": name,
        "question": question,
        "answer": answer,
        "kind": "style",
        "gold": [],
        "distractors": [],
        "component": component,
        "split": split,
    }


def test_leaks_of_a_split_made_elsewhere_are_flagged(tmp_path):
    """A snapshot whose split did not follow the questions, and one whose split did."""
    long = "how do i send the blue helmet back when its box was lost on the way here"
    torn = [
        row("a", long, "Send it in any box.", "train", "1"),
        row("b", f"{long}?", "Any box will do.", "test", "2"),
        row("c", "when do you open", "At noon.", "dev", "3"),
    ]
    leaky = seal(torn, tmp_path / "leaky")
    (flag,) = find_flags(leaky)
    assert flag.kind == "leaks"
    assert "1 held-out questions are training questions" in flag.sentence
    torn[1]["split"], torn[1]["component"] = "train", "1"
    assert find_flags(seal(torn, tmp_path / "whole")) == ()


def test_the_card_loads_nothing_from_elsewhere(build):
    snapshot = load(build([example(q, a, n) for n, (q, a) in enumerate(labelled(40))]).path)
    page = render_dataset_card(Snapshot(snapshot.manifest, snapshot.rows))
    assert "prefers-color-scheme:dark" in page
    for outside in ("src=", "href=", "@import", "url("):
        assert outside not in page
    assert page.count("<svg") >= 4
