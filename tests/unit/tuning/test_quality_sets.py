"""Measures over many rows: duplicates, contradictions, label noise, coverage, leaks."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuning.leakage import drop_held_out_distractors, leak_premium, nearness
from tuning.quality.contradictions import find_contradictions
from tuning.quality.coverage import measure_coverage
from tuning.quality.duplicates import candidates, find_duplicates, near_pairs, shingles
from tuning.quality.label_noise import estimate_label_noise
from tuning.snapshot_rows import leak_audit

NOUNS = (
    "refund invoice parcel delivery helmet bicycle workshop battery voucher member deposit "
    "saddle brake garage insurance season winter summer rental repair towing customs sticker"
)
WORDS = NOUNS.split()


def style_row(name, question, answer, **changes):
    row = {
        "id": name,
        "question": question,
        "answer": answer,
        "kind": "style",
        "gold": [],
        "distractors": [],
        "component": name,
        "split": "train",
    }
    return row | changes


def test_another_number_name_or_negation_is_no_duplicate():
    question = "How long can a helmet that was bought in the shop be returned to the workshop?"
    answer = "A helmet can be returned to the workshop within {} days of the delivery."
    answers = [answer.format(14), answer.format(30), answer.format("fourteen")]
    found = find_duplicates([question, question + "?", question + " "], answers)
    assert (found.exact, found.near) == ({}, {})
    longer = answers[0].replace("of the delivery", "of delivery")
    assert find_duplicates([question] * 2, [answers[0], longer]).near == {1: 0}
    negated = answers[0].replace("can be", "cannot be")
    assert find_duplicates([question] * 2, [answers[0], negated]).near == {}
    assert find_duplicates([question] * 2, [answers[0], answers[0] + "!"]).exact == {1: 0}


def test_another_question_with_a_known_answer_is_no_duplicate():
    answer = "Please send the helmet back in its box; we refund it as soon as it has arrived."
    found = find_duplicates(["How do I return a helmet?", "May I send it back?"], [answer] * 2)
    assert (found.exact, found.near) == ({}, {})


def test_texts_that_differ_in_a_value_alone_are_no_candidates():
    texts = [f"How do I send back the order with the number {n}?" for n in range(1000, 1040)]
    sets = [shingles(text) for text in texts]
    assert len(candidates(sets)) > 100
    assert candidates(sets, texts) == set()
    assert near_pairs([*texts, texts[0].upper()])[0].second == 40


@settings(max_examples=25)
@given(st.integers(0, 10_000))
def test_every_pair_above_the_threshold_is_a_candidate(seed):
    rng = random.Random(seed)
    base = [" ".join(rng.choices(WORDS, k=14)) for _ in range(12)]
    texts = base + [f"{text} {rng.choice(WORDS)}" for text in base]
    sets = [shingles(text) for text in texts]
    alike = {
        (i, j)
        for i in range(len(sets))
        for j in range(i + 1, len(sets))
        if len(sets[i] & sets[j]) >= 0.8 * len(sets[i] | sets[j])
    }
    assert alike <= candidates(sets)
    assert {(pair.first, pair.second) for pair in near_pairs(texts)} <= alike


@pytest.mark.parametrize(
    ("answers", "reason"),
    [
        (["refund", "invoice"], "different labels"),
        (["It costs 49 euros a month, tax included.", "It costs 59 euros."], "different values"),
        (["I could not find this in the knowledge base.", "It is open."], "another abstains"),
        (["It costs 49 euros.", "It costs 49 euros, at most 2 plans a month."], None),
        (["You are welcome to come by any time!", "Do come by whenever it suits you."], None),
        (["Refund", "refund!"], None),
    ],
)
def test_answers_that_exclude_each_other(answers, reason):
    rows = [style_row(str(n), "What now?", answer) for n, answer in enumerate(answers)]
    found = find_contradictions(rows)
    assert bool(found) is bool(reason)
    if reason:
        assert reason in found[0].reason
        assert found[0].positions == (0, 1)


def clustered(rng, classes=6, each=40, spread=0.25):
    centres = rng.normal(size=(classes, 16))
    vectors = np.repeat(centres, each, axis=0) + spread * rng.normal(size=(classes * each, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), [f"class {n // each}" for n in range(classes * each)]


@pytest.mark.parametrize("share", [0.0, 0.05, 0.15])
def test_wrong_labels_are_found_and_right_ones_left_alone(share):
    rng = np.random.default_rng(4)
    vectors, labels = clustered(rng)
    wrong = set(rng.choice(len(labels), int(share * len(labels)), replace=False).tolist())
    given_labels = [
        f"class {(int(n[-1]) + 1) % 6}" if i in wrong else n for i, n in enumerate(labels)
    ]
    found = estimate_label_noise(vectors, given_labels)
    suspects = {suspect.position for suspect in found.suspects}
    assert len(suspects & wrong) >= 0.85 * len(wrong)
    assert len(suspects - wrong) <= 0.1 * len(wrong)
    right = [s.suggested == labels[s.position] for s in found.suspects if s.position in wrong]
    assert all(right)
    assert found.low <= share <= found.high


def test_label_noise_says_nothing_about_few_rows_or_one_label():
    vectors, labels = clustered(np.random.default_rng(1), classes=2, each=5)
    assert estimate_label_noise(vectors, labels) is None
    vectors, _ = clustered(np.random.default_rng(1))
    assert estimate_label_noise(vectors, ["one"] * len(vectors)) is None


def test_coverage_names_the_traffic_that_no_row_is_about():
    rng = np.random.default_rng(2)
    vectors, labels = clustered(rng, classes=3, each=20)
    questions = [f"about {label}?" for label in labels]
    rows = vectors[:40:2]  # nothing of the third class
    found = measure_coverage(vectors, rows, questions, clusters=3, near=0.8)
    assert found.covered == pytest.approx(2 / 3, abs=0.02)
    missing = [cluster for cluster in found.clusters if cluster.covered == 0]
    assert [cluster.examples[0] for cluster in missing] == ["about class 2?"]
    assert missing[0].rows_share == 0
    assert measure_coverage(rows, rows, questions, clusters=2, near=0.8).divergence == 0


def copied_world(rng, components):
    """Questions in groups of four that share an answer; components as told."""
    centres = rng.normal(size=(30, 16))
    vectors = np.repeat(centres, 4, axis=0) + 0.05 * rng.normal(size=(120, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = []
    for n in range(120):
        answer = f"{WORDS[n // 4 % len(WORDS)]} {n // 4} {WORDS[(n // 4 * 7) % len(WORDS)]}"
        name = f"c{n // 4}" if components == "by group" else f"c{n}"
        split = "train" if n // 4 < 20 else "test"
        rows.append(style_row(str(n), f"q{n}", answer, component=name, split=split))
    return rows, vectors.astype(np.float32)


def test_the_leak_premium_is_what_a_random_split_flatters():
    rows, vectors = copied_world(np.random.default_rng(3), "by group")
    premium = leak_premium(rows, vectors)
    assert premium.low > 0.5
    assert premium.random_split > 0.9
    alone, vectors = copied_world(np.random.default_rng(3), "every row for itself")
    assert premium.shown_at_random is None
    assert abs(leak_premium(alone, vectors).premium) < 0.1
    assert leak_premium(rows[:4], vectors[:4]) is None


def test_passages_that_training_rows_show_are_part_of_the_premium():
    """Every row is answered from its own passage and shows the next row's as a distractor."""
    rows, vectors = copied_world(np.random.default_rng(3), "by group")
    passages = [{"id": f"p{n}", "title": "t", "text": f"text {n}"} for n in range(len(rows))]
    for n, one in enumerate(rows):
        one |= {"kind": "grounded", "gold": [passages[n]]}
        one["distractors"] = [passages[(n + 1) % len(rows)]]
    found = leak_premium(rows, vectors)
    assert 0.6 < found.shown_at_random < 0.95  # about .8: its neighbour is not held out as well
    assert 0.15 < found.shown_by_component < 0.3  # the first of a group of four
    assert leak_premium(rows, vectors, distractors_dropped=True).shown_by_component == 0.0
    assert drop_held_out_distractors(rows) == 1  # between row 79, train, and row 80, test
    assert rows[79]["distractors"] == []
    assert drop_held_out_distractors(rows) == 0


def test_a_held_out_passage_is_known_by_its_text_under_another_id():
    gold = {"id": "g", "title": "t", "text": "The fee is 5 euros."}
    held = style_row("a", "q", "5 euros", component="1", split="test")
    train = style_row("b", "r", "6 euros", component="2", split="train")
    held |= {"kind": "grounded", "gold": [gold]}
    train["distractors"] = [gold | {"id": "other", "text": "The fee  is 5 euros."}]
    assert leak_audit([held, train])["train_rows_showing_held_out_gold"] == 1
    assert drop_held_out_distractors([held, train]) == 1


def test_nearness_counts_held_out_paraphrases():
    rows, vectors = copied_world(np.random.default_rng(3), "by group")
    assert nearness(rows, vectors).close == 0
    rows[119]["split"], rows[118]["split"] = "train", "test"
    rows[119]["question"] = rows[118]["question"] = "the same?"
    assert nearness(rows, vectors).close == 1
    assert nearness(rows[:8], vectors[:8]) is None
