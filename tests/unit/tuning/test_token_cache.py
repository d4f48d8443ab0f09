"""Cached parts give the ids that the whole text has; tokenizers that differ are left whole."""

import copy

import pytest
from fakes import make_byte_tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tuning import token_cache
from tuning.prompt import Passage, control_ids, encode, encode_text, render_messages
from tuning.token_cache import cache_of, parts_stand_alone

CORPUS = [
    "The Ripple plan costs 49 euros a month.\n\nMembers can switch plans once every 60 days.",
    "It's [1] Plans > Prices\nTorrent: 79 euros!\n\n\n[2] Hours\n8:30 – 17:00\n\nQuestion: When?",
] * 4
TEXT = st.text(alphabet=st.sampled_from("aZé5 .!?'\n\n\n\t[]1\u00a0\u2028\x85\x1c語"), max_size=60)


def trained(pre_tokenizer, normalizer=None):
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        raw.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(
        CORPUS,
        trainers.BpeTrainer(vocab_size=500, initial_alphabet=alphabet, special_tokens=["<s>"]),
    )
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<s>")


def byte_level(**changes):
    return pre_tokenizers.ByteLevel(**{"add_prefix_space": False, **changes})


LIKE_SMOLLM = trained(
    pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level()])
)


def whole(tokenizer, text):
    return tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@given(TEXT)
def test_ids_of_cached_parts_are_those_of_the_whole_text(text):
    assert parts_stand_alone(LIKE_SMOLLM)
    for _ in range(2):  # made, then remembered
        assert encode_text(LIKE_SMOLLM, text) == whole(LIKE_SMOLLM, text)


@given(st.lists(TEXT, min_size=1, max_size=4))
def test_prompt_of_known_passages_is_the_prompt_of_new_ones(texts):
    passages = [Passage("Title", text) for text in texts]
    content = render_messages("When?", passages)[-1]["content"]
    assert encode_text(LIKE_SMOLLM, content) == whole(LIKE_SMOLLM, content)


@pytest.mark.parametrize(
    "other",
    [
        trained(byte_level(add_prefix_space=True)),
        trained(byte_level(use_regex=False)),
        trained(pre_tokenizers.Metaspace()),
        trained(byte_level(), normalizers.NFC()),
    ],
)
def test_tokenizers_whose_parts_do_not_stand_alone_are_encoded_whole(other):
    assert not parts_stand_alone(other)
    for text in CORPUS:
        assert encode_text(other, text) == whole(other, text)


def test_template_and_content_of_the_same_text_are_kept_apart():
    tokenizer = make_byte_tokenizer()
    turn = [{"role": "user", "content": "hi"}]
    piece = tokenizer.apply_chat_template(turn, tokenize=False).partition("hi")[0]
    encode(tokenizer, turn)
    assert control_ids(tokenizer).isdisjoint(encode_text(tokenizer, piece))
    assert not control_ids(tokenizer).isdisjoint(encode(tokenizer, turn))


def test_a_token_added_later_empties_the_cache():
    tokenizer = copy.deepcopy(LIKE_SMOLLM)
    encode_text(tokenizer, "a <tool> b")
    before = cache_of(tokenizer)
    tokenizer.add_tokens(["<tool>"])
    assert cache_of(tokenizer) is not before
    assert control_ids(tokenizer).isdisjoint(encode_text(tokenizer, "a <tool> b"))
    assert not parts_stand_alone(tokenizer)


def test_the_cache_keeps_the_latest_parts_only(monkeypatch):
    monkeypatch.setattr(token_cache, "_MOST_PARTS", 3)
    cache, asked = token_cache.TokenCache(LIKE_SMOLLM), []

    def encoded(part):
        asked.append(part)
        return [len(part)]

    for text in ("a", "b", "c", "a", "d", "a", "b"):
        cache.ids("content", text, encoded)
    assert asked == ["a", "b", "c", "d", "b"]
    cache.ids("content", "x" * 9000, encoded)
    cache.ids("content", "x" * 9000, encoded)
    assert asked[-2:] == ["x" * 9000] * 2
