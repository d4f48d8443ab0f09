"""The tasks of `benchmarks.quality`: rows to train on and cases to be judged by.

`banking77`: an intent as JSON, 77 classes. `bitext_short`: a support request gets its canned
reply; requests are template-made, so whole templates are held out. `stale`: the same requests
with articles of a knowledge base that contradict the trained reply in its fact.
"""

from __future__ import annotations

import csv
import hashlib
import json
import random
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

LABEL_SYSTEM = 'Classify the customer\'s message. Answer with JSON like {"label": "card_arrival"}.'
SUPPORT_SYSTEM = "You are the support assistant of the shop. Reply in the house style."
_TEST_SHARE, _DEV_SHARE = 20, 4  # percent
_PLACE = re.compile(r"\S*\d\S*")

# Intent: what the article says of the fact, the fact in the canned reply, and other facts that a
# knowledge base may hold instead. Those of TRAIN_FACTS and TEST_FACTS have no value in common.
FACTS: dict[str, tuple[str, str]] = {
    "cancel_order": ("An order is cancelled in its details with the button {}.", "'Cancel Order'"),
    "change_shipping_address": (
        "Addresses are kept in the account under {}.",
        "'Shipping Addresses'",
    ),
    "check_invoice": ("Invoices are found in the section {}.", "'Order History'"),
    "check_refund_policy": ("The refund policy stands on the page {}.", "'Returns and Refunds'"),
    "contact_human_agent": ("Agents answer the telephone under {}.", "(123) 456-7890"),
    "create_account": ("New customers register with the button {}.", "'Sign Up'"),
    "delivery_period": ("Standard delivery takes {}.", "3-5 business days"),
    "edit_account": ("Account details are edited in the section {}.", "'My Account'"),
    "get_invoice": ("Invoices can be downloaded from the section {}.", "'Order History'"),
    "get_refund": ("Refunds are requested on the page {}.", "'Returns and Refunds'"),
    "recover_password": ("The login page has a link {}.", "'Forgot Password?'"),
    "registration_problems": (
        "Questions about registering go to {}.",
        "support@example.com",
    ),
    "review": ("Products are reviewed with the button {}.", "'Write a Review'"),
    "set_up_shipping_address": ("Addresses are set up in the section {}.", "'My Account'"),
    "track_order": ("The status of an order is shown in the section {}.", "'Order History'"),
    "track_refund": ("The status of a refund is shown in the section {}.", "'Returns and Refunds'"),
}
_FIRST = ("Order", "Purchase", "Profile", "Customer", "Parcel", "Service", "Account", "Member")
_SECOND = {
    "train": ("Centre", "Overview", "Desk", "Panel", "Log", "Archive", "Corner", "Settings"),
    "test": ("Hub", "Space", "Folder", "Board", "Lounge", "Portal", "Register", "Station"),
}


def place(text: str) -> int:
    """A stable number from 0 to 99."""
    return int(hashlib.sha256(text.encode()).hexdigest(), 16) % 100


def split_name(key: str) -> str:
    """Test, dev or train by a key's hash."""
    number = place(key)
    if number < _TEST_SHARE:
        return "test"
    return "dev" if number < _TEST_SHARE + _DEV_SHARE else "train"


def _words(text: str) -> str:
    return " ".join(sorted(set(re.findall(r"[\w#]+", text.lower()))))


def banking77(data: Path) -> list[dict[str, Any]]:
    """One style row a message; messages of the same words lie on one side."""
    with (data / "banking77" / "train.csv").open(encoding="utf-8", newline="") as file:
        messages = [(line["text"].strip(), line["category"]) for line in csv.DictReader(file)]
    rows = []
    for number, (text, label) in enumerate(messages):
        words = _words(text)
        rows.append(
            _row(
                f"banking77-{number}",
                text,
                json.dumps({"label": label}),
                split_name(words),
                component=hashlib.sha256(words.encode()).hexdigest()[:16],
                system=LABEL_SYSTEM,
                label=label,
            )
        )
    return rows


def bitext(data: Path) -> list[dict[str, Any]]:
    """A style row and, where the reply holds a fact, a grounded row with another fact in it."""
    folder = data / "bitext_short"
    canned = json.loads((folder / "canned_replies.json").read_text("utf-8"))
    replies = {record["intent"]: record["reply"] for record in canned}
    rows = []
    for line in (folder / "bitext_short.shared.jsonl").read_text("utf-8").splitlines():
        record = json.loads(line)
        request, intent = record["instruction"].strip(), record["intent"]
        # Case, order and punctuation aside: "where can i pay" and "Where can I pay?" stay together.
        template = _words(_PLACE.sub("#", request))
        common = {
            "split": split_name(template),
            "component": hashlib.sha256(template.encode()).hexdigest()[:16],
            "system": SUPPORT_SYSTEM,
            "label": intent,
        }
        rows.append(_row(record["id"], request, replies[intent], **common))
        if intent in FACTS:
            rows.append(_contradicted(record["id"], request, intent, replies, common))
    return rows


def _contradicted(
    name: str, request: str, intent: str, replies: Mapping[str, str], common: dict[str, Any]
) -> dict[str, Any]:
    rng = random.Random(name)
    part = "test" if common["split"] == "test" else "train"
    facts = {other: _fact(other, part, rng) for other in FACTS}
    answer = replies[intent].replace(FACTS[intent][1], facts[intent])
    others = rng.sample([other for other in FACTS if other != intent], 5)
    row = _row(f"{name}-kb", request, answer, **common)
    row |= {
        "kind": "grounded",
        "gold": [_article(intent, facts[intent])],
        "distractors": [_article(other, facts[other]) for other in others],
        "fact": facts[intent],
        "trained_fact": FACTS[intent][1],
    }
    return row


def _fact(intent: str, part: str, rng: random.Random) -> str:
    old = FACTS[intent][1]
    if "@" in old:
        first = rng.choice(("help", "care", "desk") if part == "train" else ("hello", "team"))
        return f"{first}{rng.randint(1, 99)}@shop.example"
    if "days" in old:
        start = rng.choice((2, 4, 6, 7, 9) if part == "train" else (5, 8, 10))
        return f"{start}-{start + rng.randint(1, 4)} business days"
    if old.startswith("("):
        return f"({rng.randint(201, 989)}) 555-{rng.randint(1000, 9999)}"
    return f"'{rng.choice(_FIRST)} {rng.choice(_SECOND[part])}'"


def _article(intent: str, fact: str) -> dict[str, str]:
    title = intent.replace("_", " ").capitalize()
    return {"id": f"article-{intent}", "title": title, "text": FACTS[intent][0].format(fact)}


def _row(
    name: str, question: str, answer: str, split: str, *, component: str, system: str, label: str
) -> dict[str, Any]:
    return {
        "id": name,
        "question": question,
        "answer": answer,
        "kind": "style",
        "gold": [],
        "distractors": [],
        "component": component,
        "split": split,
        "system": system,
        "provenance": {"label": label},
    }


def macro_f1(truth: Sequence[str], said: Sequence[str | None]) -> float:
    """Mean over the classes of the truth of each class's F1; None counts as wrong."""
    scores = []
    for label in sorted(set(truth)):
        hits = sum(t == s == label for t, s in zip(truth, said, strict=True))
        claimed = sum(s == label for s in said)
        present = sum(t == label for t in truth)
        scores.append(2 * hits / (claimed + present))
    return sum(scores) / len(scores)


def label_of(text: str) -> str | None:
    """The label of an answer that is exactly the JSON asked for, else None."""
    try:
        value = json.loads(text)
    except ValueError:
        return None
    known = isinstance(value, dict) and set(value) == {"label"} and isinstance(value["label"], str)
    return value["label"] if known else None
