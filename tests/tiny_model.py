"""A tiny random Llama with SmolLM2's chat template, rows to train it on, and a small run."""

import json

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are an assistant<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<repo_name>"]


def make_tokenizer(special=SPECIAL, template=CHAT_TEMPLATE):
    """Byte-level tokenizer: 256 bytes, no merges, control tokens and a chat template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate([*special, *alphabet])}
    backend = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )
    tokenizer.chat_template = template
    return tokenizer


def make_base(folder, seed=0):
    """Save a two-layer Llama of width 32 and its tokenizer as a base folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer()
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def make_rows(count=12, dev=3):
    """Short grounded, style and abstain rows, the last ones in the dev split."""
    rows = []
    for i in range(count):
        kind = ("grounded", "style", "abstain")[i % 3]
        pool = [
            {"id": f"d{i}-{k}", "title": f"Other {k}", "text": f"Plan {k} costs {k} euros."}
            for k in range(2)
        ]
        gold = {"id": f"g{i}", "title": "Fees > Rates", "text": f"Plan {i} costs {i} euros."}
        answers = {
            "grounded": f"{i} euros",
            "style": "Hello, how can I help?",
            "abstain": "I could not find this in the knowledge base.",
        }
        rows.append(
            {
                "id": f"row-{i}",
                "question": f"What does plan {i} cost?",
                "answer": answers[kind],
                "kind": kind,
                "gold": [gold] if kind == "grounded" else [],
                "distractors": pool,
                "component": f"c{i}",
                "split": "dev" if i >= count - dev else "train",
            }
        )
    return rows


def make_job(folder, rows, dev, **settings):
    """A base, a snapshot and `config.json` of a small run in a folder; returns the settings."""
    from tuning.snapshot import seal

    make_base(folder / "hf")
    seal(make_rows(rows, dev=dev), folder / "snapshot")
    config = {
        "base": str(folder / "hf"),
        "output": str(folder / "adapter"),
        "snapshot": str(folder / "snapshot"),
        "r": 4,
        "dtype": "float32",
        "device": "cpu",
        "patience": 0,
        "log_steps": 1,
    } | settings
    (folder / "config.json").write_text(json.dumps(config))
    return config
