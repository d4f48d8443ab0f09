"""Rules that look at one text: values, personal data, secrets, language, abuse, leftovers."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.quality.credentials import find_credentials
from tuning.quality.formats import format_of, leftovers, odd_formats
from tuning.quality.language import detect_language, is_foreign
from tuning.quality.personal_data import (
    find_personal_data,
    iban_holds,
    luhn,
    mask_personal_data,
)
from tuning.quality.toxicity import abusive_words
from tuning.value_swap import swap_value
from tuning.values import find_values, fingerprint, masked


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        ("within 14 days", "within fourteen days", True),
        ("within 14 days", "within 30 days", False),
        ("it costs 1,200 euros", "it costs 1200 euros", True),
        ("it costs 1.5 euros", "it costs 15 euros", False),
        ("you can return it", "you cannot return it", False),
        ("open on Monday", "open on Tuesday", False),
        ("Ask for the Ripple plan", "Ask for the Torrent plan", False),
        ("error E42 means", "error E43 means", False),
    ],
)
def test_fingerprints_tell_texts_with_other_values_apart(one, two, same):
    assert (fingerprint(one) == fingerprint(two)) is same


def test_values_are_found_where_they_stand():
    text = "Ask Maria Lopez by 3 May 2024 for 1,200.50 euros."
    found = [(value.kind, value.text) for value in find_values(text)]
    expected = [("name", "Maria Lopez"), ("date", "3 May 2024"), ("number", "1,200.50")]
    assert found == expected
    assert all(text[v.start : v.end] == v.text for v in find_values(text))
    assert masked("Plan 4 in May?") == masked("Plan 5 in May?")


@given(st.integers(0, 10_000), st.integers(1, 99_999), st.integers(1, 28))
def test_a_swap_changes_passage_and_answer_alike_and_nothing_else(seed, amount, day):
    passage = (
        f"The plan costs {amount}.50 euros a month since {day} March 2021. Ask us about 7 more."
    )
    answer = f"It costs {amount}.50 euros."
    swap = swap_value("What does the plan cost?", passage, answer, random.Random(seed))
    assert swap.old == f"{amount}.50"
    assert swap.new != swap.old
    assert swap.new not in passage
    assert swap.answer == answer.replace(swap.old, swap.new)
    assert swap.passage == passage.replace(swap.old, swap.new)


def test_what_the_question_names_is_never_swapped():
    passage, answer = "Plan 7 is the one.", "Plan 7 is the one."
    assert swap_value("Which is plan 7?", passage, answer, random.Random(1)) is None
    assert swap_value("q", "No value here.", "No value.", random.Random(1)) is None


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "ask jo.doe+x@mail.example.org please"),
        ("card", "my card 4111 1111 1111 1111 was stolen"),
        ("iban", "pay to DE89 3704 0044 0532 0130 00 today"),
        ("ip", "from 192.168.10.7 it fails"),
        ("ip", "from 2001:db8::8a2e:370:7334 it fails"),
        ("ssn", "ssn 219-09-9999 on file"),
        ("phone", "call me at +44 20 7946 0958"),
        ("phone", "my phone: 668 5702"),
    ],
)
def test_personal_data_is_found_and_masked(kind, text):
    (span,) = find_personal_data(text)
    assert span.kind == kind
    said, spans = mask_personal_data(text)
    assert span.text not in said
    assert f"<{kind.upper()}>" in said
    assert mask_personal_data(text, keep=[span.text]) == (text, ())
    assert spans == (span,)


@pytest.mark.parametrize(
    "text",
    [
        "Order 4111 1111 1111 1112 has shipped",  # no Luhn checksum
        "Code DE89 3704 0044 0532 0130 02 is invalid",  # no IBAN checksum
        "It happened on 2024-05-17 at 12:30",
        "It costs 1,200.50 euros or 12.5 % for 2023-2024",
        "Version 1.2.3.4.5 needs 512 MB and 30 minutes",
        "Between 100 and 200 of 3000 users",
        "Article 12 of 1999 names 300.000 cases",
    ],
)
def test_numbers_that_are_nobodys_stay(text):
    assert find_personal_data(text) == ()


@given(st.text(alphabet="0123456789", min_size=11, max_size=18))
def test_exactly_one_check_digit_satisfies_luhn(digits):
    assert sum(luhn(digits + str(check)) for check in range(10)) == 1


def test_an_iban_with_two_figures_swapped_fails():
    assert iban_holds("GB29 NWBK 6016 1331 9268 19")
    assert not iban_holds("GB29 NWBK 6016 1331 9286 19")
    assert not iban_holds("GB29 NWBK 6016 1331 9268 191")


@pytest.mark.parametrize(
    "text",
    [
        "use AKIA" + "IOSFODNN7EXAMPLE" + " for it",
        "token ghp_" + "a1B2" * 9,
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "postgres://admin:hunter2x@db.example.org/x",
        "the password is Tr0ub4dor&3xy",
        "key Zk3v9QmX2pL8sT1wB6yH4nR7cJ5dF0gA",
    ],
)
def test_secrets_are_found(text):
    assert find_credentials(text)


@pytest.mark.parametrize(
    "text",
    [
        "Reset your password: open Settings and choose Security.",
        "Your token is valid for 30 minutes.",
        "The commit is 5f2b8c0d9e1a3f4b5c6d7e8f9a0b1c2d3e4f5a6b.",
        "See https://example.org/a-very-long-page-name-about-passwords for more.",
    ],
)
def test_talk_about_secrets_is_no_secret(text):
    assert find_credentials(text) == ()


def test_language_by_function_words():
    assert detect_language("How do I change the plan of my account?") == "en"
    assert detect_language("Wie kann ich den Tarif für mein Konto ändern?") == "de"
    assert detect_language("Comment est-ce que je change la formule de mon compte ?") == "fr"
    assert detect_language("49 euros") is None
    assert is_foreign("Wie kann ich den Tarif für mein Konto ändern?", "en")
    assert is_foreign("Как изменить мой тариф?", "en")
    assert not is_foreign("The Ripple plan costs 49 euros a month.", "en")


def test_abuse_leftovers_and_formats():
    assert abusive_words("Shut up, you idiot") == ("idiot", "shut up")
    assert abusive_words("We assess the classic passage") == ()
    assert leftovers("Dear {{name}}, <|im_end|>")
    assert leftovers("It costs 49 euros {cite}.") == ()
    assert format_of('{"intent": "refund"}') == "json"
    assert format_of('{"intent": refund"}') == "broken json"
    assert format_of("- one\n- two") == "list"


def test_the_odd_format_is_reported_where_the_others_are_json():
    answers = ['{"intent": "a"}'] * 22 + ["a refund", '{"label": "a"}']
    odd = odd_formats(answers)
    assert set(odd) == {22, 23}
    assert "plain where the others are JSON" in odd[22]
    assert odd_formats(["plain", "- a\n- b"] * 15) == {}
