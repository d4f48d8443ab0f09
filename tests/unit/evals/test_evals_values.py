"""Values in text: equal facts in other words are equal, changed facts are found."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.metrics.number_words import words_to_digits
from evals.metrics.values import (
    extract_values,
    unsupported_values,
    value_faithfulness,
    value_recall,
)


def keys(text):
    return [(value.kind, value.key) for value in extract_values(text)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("14 days", "fourteen days"),
        ("14 days", "two weeks"),
        ("a 14-day trial", "14 days"),
        ("$1,200", "1200 dollars"),
        ("$1.2 million", "USD 1,200,000"),
        ("€49.90", "49.9 euros"),
        ("50 cents", "$0.50"),
        ("25%", "twenty-five percent"),
        ("12 March 2025", "March 12, 2025"),
        ("12 March 2025", "2025-03-12"),
        ("31/12/2025", "12/31/2025"),
        ("5 pm", "17:00"),
        ("1.5 hours", "90 minutes"),
        ("one hundred and twenty users", "120 users"),
        ("a dozen", "12"),
        ("20k", "twenty thousand"),
        ("err-4012", "ERR-4012"),
    ],
)
def test_the_same_value_in_other_words_is_equal(one, other):
    assert keys(one) == keys(other) != []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2%", "20%"),
        ("14 days", "14 weeks"),
        ("$5", "€5"),
        ("5 business days", "5 days"),
        ("12 March 2025", "12 May 2025"),
        ("9:00", "9 pm"),
        ("ERR-4012", "ERR-4021"),
    ],
)
def test_a_changed_value_differs(one, other):
    assert keys(one) != keys(other)


def test_words_that_are_no_values_are_left_alone():
    assert keys("One of the riders may come [1], the first in May.") == []
    assert keys("1. Open it.\n2. Close it.") == []
    assert words_to_digits("one of them stays one day") == "one of them stays 1 day"


def test_an_ambiguous_date_equals_only_itself():
    assert value_faithfulness("03/04/2025", ["3 April 2025"]).value == 0.0
    assert value_faithfulness("03/04/2025", ["on 03/04/2025"]).value == 1.0


def test_faithfulness_is_the_share_of_values_found_in_the_evidence():
    evidence = ["Refunds take 14 days and cost $5.", "Valid since 12 March 2025."]
    assert value_faithfulness("It takes two weeks, $5 [1].", evidence).value == 1.0
    assert value_faithfulness("It takes 14 days and costs $6.", evidence).value == 0.5
    assert not value_faithfulness("It depends.", evidence).scored
    assert [v.surface for v in unsupported_values("30 days, since March 2025", evidence)] == [
        "30 days"
    ]


def test_a_bare_number_matches_the_same_number_with_a_unit_but_units_must_agree():
    assert value_faithfulness("14", ["14 days"]).value == 1.0
    assert value_faithfulness("14 days", ["period (days): 14"]).value == 1.0
    assert value_faithfulness("14 weeks", ["14 days"]).value == 0.0
    assert value_faithfulness("2025", ["12 March 2025"]).value == 1.0


def test_value_recall_takes_the_best_accepted_answer():
    assert value_recall("about two weeks", ["14 days", "free"]).value == 1.0
    assert value_recall("about 3 weeks", ["14 days"]).value == 0.0
    assert not value_recall("about two weeks", ["free of charge"]).scored


@given(st.integers(2, 10**7), st.sampled_from(["days", "kg", "%", "dollars", ""]))
def test_any_amount_survives_separators_and_supports_itself(amount, unit):
    plain, grouped = f"{amount} {unit}", f"{amount:,} {unit}"
    assert keys(plain) == keys(grouped)
    assert value_faithfulness(plain, [grouped]).value == 1.0
    assert value_faithfulness(f"{amount + 1} {unit}", [plain]).value == 0.0


@given(st.text(max_size=60))
def test_any_text_is_supported_by_itself(text):
    assert unsupported_values(text, [text]) == ()
