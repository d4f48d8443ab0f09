"""Follow-up questions over hand-written dialogues, and what holds for every dialogue."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.followup import Turn, depends_on_history, standalone_query


def turns(*texts):
    """User and assistant in turn, the user first."""
    return [Turn("assistant" if n % 2 else "user", text) for n, text in enumerate(texts)]


LEANING = [
    (["How long does shipping to France take?", "Three days."], "And to Norway?", "shipping"),
    (
        ["How long does shipping to France take?", "Three days."],
        "How much does it cost?",
        "shipping",
    ),
    (["Who founded the Red Cross?", "Henry Dunant."], "When was he born?", "Dunant"),
    (["What is the Basic plan?", "It costs 9 euros."], "Does it include phone support?", "Basic"),
    (["Can I return shoes?", "Yes, within 30 days."], "What about sale items?", "return"),
    (["Can I return shoes?", "Yes, within 30 days."], "Why?", "shoes"),
    (["Can I return shoes?", "Yes, within 30 days."], "And if they are worn?", "shoes"),
    (["Is dental care covered?", "Yes, twice a year."], "How often?", "dental"),
    (["Is dental care covered?"], "What is the deductible for that?", "dental"),
    (["Is dental care covered?"], "Is this also true in Spain?", "dental"),
    (
        ["Which cards do you accept?", "Visa and Amex."],
        "Is there a fee for the second one?",
        "cards",
    ),
    (["Which cards do you accept?", "Visa and Amex."], "Which of them has no fee?", "cards"),
    (["Where is the Lyon office?"], "Who runs it?", "Lyon"),
    (["What did Marie Curie discover?", "Radium."], "What was her nationality?", "Curie"),
    (["What did Marie Curie discover?", "Radium."], "In which year?", "Curie"),
    (["How do I reset my password?", "Open Settings."], "I don't see that.", "password"),
    (["How do I reset my password?"], "And on Android?", "password"),
    (["How do I reset my password?"], "What if I forgot my email too?", "password"),
    (["Do you ship to Canada?"], "how about mexico", "ship"),
    (["Do you ship to Canada?"], "How long would that take?", "Canada"),
    (["Tell me about parental leave."], "Who is eligible for it?", "parental"),
    (["Tell me about parental leave."], "Can these weeks be split?", "parental"),
    (["Tell me about parental leave."], "What are their duties?", "leave"),
    (["What is the Standard plan?", "..."], "Is the other one cheaper?", "Standard"),
    (["What are the Apollo missions?"], "How many of them landed?", "Apollo"),
    (["Do I need a visa for Japan?", "No."], "For how long?", "visa"),
    (["Do I need a visa for Japan?", "No."], "for Korea?", "visa"),
    (["When does the warranty end?"], "Can it be extended?", "warranty"),
    (["When does the warranty end?"], "What happens then?", "warranty"),
    (["Where do glaciers form?"], "What causes this?", "glaciers"),
    (["What is the fee for late payment?"], "Since when?", "payment"),
    (["Is my data sold?", "No."], "Do you share it with anyone?", "data"),
    (["Is my data sold?", "No."], "Anything else?", "data"),
    (["Can I cancel order 1234?", "Yes."], "Could you do the same for order 99?", "cancel"),
]

ALONE = [
    "How long does shipping to Norway take?",
    "When was Nikola Tesla born and where did he study?",
    "What did Tesla say about his laboratory?",
    "If my card is lost, how do I replace it?",
    "Can a broken phone be repaired before it is returned?",
    "Is it possible to change the delivery address?",
    "How long does it take to get a refund?",
    "Does this website collect my location?",
    "Does the policy say that personal data is sold?",
    "Which documents do I need for a mortgage?",
    "What is the capital of France?",
    "Who wrote Faust?",
    "Thanks!",
    "ok thank you so much",
    "Hello",
    "What rules apply to employees that work at night?",
    "How do customers cancel their subscription before the trial ends?",
    "List the steps to install the printer driver on Windows",
    "And where is the Paris office of Northwind?",
    "Refund policy",
]


@pytest.mark.parametrize(("history", "question", "word"), LEANING)
def test_a_leaning_question_gets_the_words_it_leans_on(history, question, word):
    query = standalone_query(question, turns(*history))
    assert query.startswith(question)
    assert word in query.removeprefix(question).split()


@pytest.mark.parametrize("question", ALONE)
def test_a_question_that_stands_alone_is_unchanged(question):
    history = turns("Do you sell gift cards?", "Yes, from 10 euros, in Berlin.")
    assert standalone_query(question, history) == question


def test_words_come_from_the_question_that_opened_the_subject():
    history = turns(
        "What is the capital of Peru?",
        "Lima.",
        "How does the parental leave work?",
        "Sixteen weeks.",
        "Is it paid?",
        "Yes.",
        "thanks",
        "You are welcome.",
    )
    query = standalone_query("And for fathers?", history)
    assert "parental" in query
    assert "Peru" not in query


def test_names_and_values_of_the_last_answer_are_added():
    history = turns("Who leads the team?", "The team is led by Ann Lee since 2019.")
    assert standalone_query("Where did she study?", history).endswith("leads team Ann Lee 2019")


def test_only_earlier_answers_that_came_last_count():
    history = [*turns("Who leads the team?", "Ann Lee does."), Turn("user", "Since when?")]
    assert "Lee" not in standalone_query("And before that?", history)


def test_a_long_history_adds_a_bounded_number_of_words():
    long = turns(*[" ".join(f"topic{n}x{i}" for i in range(50)) + " it?" for n in range(9)])
    assert len(standalone_query("Why?", long).split()) <= 1 + 12 + 4


@pytest.mark.parametrize(
    "piece", ["ok ", "thanks! ", "for '", "-", "it ", "A. ", "1.", "and, ", "that "]
)
def test_repetitions_take_no_exponential_time(piece):
    text = piece * (400 // len(piece)) + "x y z a b c d e f"
    assert standalone_query(text, turns(text * 50, text * 50)).startswith(text.strip()[:50])


@given(st.text(max_size=80))
def test_without_history_nothing_changes(question):
    assert standalone_query(question, []) == question


@given(st.text(max_size=60), st.lists(st.text(max_size=60), max_size=4))
def test_the_question_itself_is_never_lost(question, history):
    query = standalone_query(question, turns(*history))
    assert query == question or query.startswith(question.strip() + " ")
    assert query == standalone_query(question, turns(*history))
    if not depends_on_history(question):
        assert query == question
