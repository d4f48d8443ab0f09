"""OpenAI's request and reply shapes."""

import pytest
from pydantic import ValidationError

from app.answers.openai_schemas import ChatRequest, completion
from app.answers.types import AnswerResult, Citation
from app.errors import BadInput
from app.workspaces.policy import Principal

ADA = Principal("w-1", "default", "ada", "client")


def request(messages, **fields):
    return ChatRequest(model="support", messages=messages, **fields).to_answer_request(ADA)


def user(content):
    return {"role": "user", "content": content}


def test_last_user_turn_is_the_question_and_the_rest_is_history():
    made = request([user("one"), {"role": "assistant", "content": "two"}, user("three")])
    assert made.question == "three"
    assert [turn["content"] for turn in made.history] == ["one", "two"]
    assert (made.workspace_id, made.asked_by, made.use_case) == ("w-1", "ada", "support")


@pytest.mark.parametrize("role", ["system", "developer"])
def test_system_and_developer_turns_are_the_clients_system_text(role):
    made = request([{"role": role, "content": "Be brief."}, user("Hi")])
    assert made.system == "Be brief."
    assert made.history == ()


def test_text_parts_are_joined():
    made = request([user([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])])
    assert made.question == "a\nb"


def test_part_that_is_no_text_is_named():
    with pytest.raises(BadInput, match="image_url"):
        request([user([{"type": "image_url", "image_url": {"url": "x"}}])])


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "content": "Hi"}],
        [user("Hi"), {"role": "assistant", "content": "Hello"}],
        [{"role": "system", "content": "Only this"}],
    ],
)
def test_last_turn_must_be_the_users(messages):
    with pytest.raises(BadInput, match="last message"):
        request(messages)


@pytest.mark.parametrize("n", [0, 2, 5])
def test_more_than_one_choice_is_refused(n):
    with pytest.raises(BadInput, match=f"n is {n}"):
        request([user("Hi")], n=n)


def test_one_choice_is_fine():
    assert request([user("Hi")], n=1).question == "Hi"


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": []},
        {"messages": [{"role": "wizard", "content": "x"}]},
        {"messages": [user("x")], "temperature": 2.1},
        {"messages": [user("x")], "top_p": 0},
        {"messages": [user("x")], "max_tokens": 0},
        {"messages": [{"role": "tool", "content": "x"}]},
    ],
)
def test_values_outside_their_range_are_refused(wrong):
    with pytest.raises(ValidationError):
        ChatRequest(model="support", **wrong)


def test_fields_of_openai_that_mean_nothing_here_are_ignored():
    made = request([user("Hi") | {"name": "ada"}], user="u", logit_bias={}, presence_penalty=1)
    assert made.question == "Hi"


def test_decoding_fields_are_taken_over():
    made = request(
        [user("Hi")],
        temperature=0.5,
        top_p=0.9,
        seed=7,
        stop="X",
        max_tokens=9,
        max_completion_tokens=5,
    )
    assert (made.temperature, made.top_p, made.seed) == (0.5, 0.9, 7)
    assert (made.stop, made.max_tokens) == (("X",), 5)


def test_defaults_are_greedy():
    made = request([user("Hi")])
    assert (made.temperature, made.top_p, made.seed, made.stop) == (0.0, 1.0, 0, ())


def result(text="Ripple costs 49 euros [2]."):
    citation = Citation(
        number=2,
        document="plans.md",
        document_id="d",
        version_id="v",
        version=3,
        chunk_id="c",
        title="Plans",
        heading="Plans > Prices",
        page=4,
        quote="Ripple costs 49 euros.",
        quote_start=10,
        quote_end=32,
    )
    return AnswerResult(
        id="a1",
        use_case="support",
        arm="hybrid",
        question="?",
        text=text,
        abstained=False,
        grounded=True,
        citations=(citation,),
        passages=(),
        finish_reason="stop",
        prompt_tokens=7,
        completion_tokens=5,
        timings={"total_s": 0.1},
        identity={},
        identity_sha256="0",
        adapter_id=None,
    )


def test_completion_is_what_openai_clients_parse():
    from openai.types.chat import ChatCompletion

    parsed = ChatCompletion.model_validate(completion(result()))
    message = parsed.choices[0].message
    assert message.content == "Ripple costs 49 euros [2]."
    assert message.annotations[0].type == "url_citation"
    assert message.annotations[0].url_citation.title == "Plans > Plans > Prices, page 4"
    assert parsed.usage.total_tokens == 12


def test_annotation_stands_at_its_marker():
    (found,) = completion(result())["choices"][0]["message"]["annotations"]
    span = found["url_citation"]
    assert result().text[span["start_index"] : span["end_index"]] == "[2]"
    assert span["url"] == "tandem://plans.md?version=3#10-32"
