import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.config import TuneConfig
from tuning.errors import TuneConfigError
from tuning.explain import Situation, measure_pace, recommend, situation_from
from tuning.methods import METHODS, served_by

USUAL = Situation(rows=600, tokens_per_row=300)


def test_a_usual_case_is_lora_on_answers_first():
    made = recommend(USUAL, 200.0)
    assert (made.train, made.method, made.objective) == (True, "lora", "sft")
    assert made.settings["r"] == 16
    assert made.estimate["tokens"] == 600 * 300 * 5
    assert made.estimate["seconds"] == pytest.approx(900_000 / 200)


def test_few_rows_ask_for_a_better_prompt_first():
    made = recommend(dataclasses.replace(USUAL, rows=99))
    assert not made.train
    assert "improve the prompt" in made.reasons[0]


def test_a_full_gpu_means_four_bits_and_without_the_package_says_so():
    tight = dataclasses.replace(
        USUAL, base_parameters=7 * 10**9, memory_bytes=20 * 2**30, has_gpu=True
    )
    assert recommend(dataclasses.replace(tight, has_bitsandbytes=True)).method == "qlora"
    assert recommend(tight).rejected["qlora"] == "needs bitsandbytes"


def test_preferences_wait_for_an_adapter():
    many = dataclasses.replace(USUAL, pairs=300, ratings_up=500, ratings_down=500)
    assert recommend(many).objective == "sft"
    assert recommend(dataclasses.replace(many, has_adapter=True)).objective == "dpo"
    rated = dataclasses.replace(many, pairs=10, has_adapter=True)
    assert recommend(rated).objective == "kto"
    one_sided = dataclasses.replace(rated, ratings_down=20)
    assert recommend(one_sided).objective == "sft"


def test_a_budget_sets_the_time_limit_and_short_memory_saves_activations():
    made = recommend(dataclasses.replace(USUAL, budget_seconds=60, memory_bytes=2**29), 100.0)
    assert made.settings["max_seconds"] == 60
    assert made.settings["gradient_checkpointing"] is True


def test_cost_is_time_at_the_given_price():
    made = recommend(dataclasses.replace(USUAL, price_per_hour=2.0), 250.0)
    assert made.estimate["cost"] == pytest.approx(2.0)


@given(
    st.integers(0, 20_000),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["llama.cpp", "vLLM", "transformers", "merged GGUF"]),
)
def test_what_is_advised_can_be_configured_and_served(rows, gpu, adapter, four_bit, engine):
    made = recommend(
        Situation(
            rows=rows,
            tokens_per_row=200,
            has_gpu=gpu,
            has_adapter=adapter,
            has_bitsandbytes=four_bit,
            engine=engine,
        ),
        100.0,
    )
    assert served_by(made.method, engine)
    assert gpu or not METHODS[made.method].needs_gpu
    assert set(made.rejected) | {made.method} == set(METHODS)
    TuneConfig(
        "b", "o", snapshot="s", method=made.method, objective=made.objective, **made.settings
    )


def test_unknown_keys_and_engines_name_the_choices():
    with pytest.raises(TuneConfigError, match="unknown key 'row'; known: base_parameters"):
        situation_from({"row": 1})
    with pytest.raises(TuneConfigError, match=r"'ollama' must be one of llama\.cpp, merged GGUF"):
        recommend(dataclasses.replace(USUAL, engine="ollama"))


def test_the_pace_is_measured_on_rows_of_the_snapshot(tiny_base, sealed):
    config = TuneConfig(str(tiny_base), "unused", snapshot=str(sealed), r=4, dtype="float32")
    assert measure_pace(config) > 0
