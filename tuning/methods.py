"""The ways to change a model's weights, and what each needs and can be served by.

| method | what it trains | source |
|---|---|---|
| lora | a low-rank update of every linear layer | arXiv 2106.09685 |
| dora | LoRA plus the length of every weight column | arXiv 2402.09353 |
| rslora | LoRA scaled by alpha / sqrt(r), for high ranks | arXiv 2312.03732 |
| qlora | LoRA on a base held in 4 bits (GPU) | arXiv 2305.14314 |
| full | every weight | |
| prefix | vectors put before keys and values of every layer | arXiv 2101.00190 |
| prompt | vectors put before the embedded prompt | arXiv 2104.08691 |
| ia3 | one factor per key, value and inner unit | arXiv 2205.05638 |
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tuning.errors import TuneConfigError

if TYPE_CHECKING:
    from tuning.config import TuneConfig

LLAMACPP, MERGED, TRANSFORMERS, VLLM = "llama.cpp", "merged GGUF", "transformers", "vLLM"


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        peft_type: What `adapter_config.json` calls it.
        served_by: What can serve it, best first.
        low_rank: Whether it is a pair of matrices per module, possibly with a length.
        needs_gpu: Whether it trains on a GPU only.
        learning_rate: A rate to start from on a small model, found in the method's paper or, for
            LoRA, on our own data (docs/LOG.md).
    """

    peft_type: str
    served_by: tuple[str, ...]
    low_rank: bool = False
    needs_gpu: bool = False
    learning_rate: float = 1e-3


METHODS: dict[str, Method] = {
    "lora": Method("LORA", (LLAMACPP, VLLM, MERGED, TRANSFORMERS), low_rank=True),
    "dora": Method("LORA", (MERGED, TRANSFORMERS), low_rank=True),
    "rslora": Method("LORA", (LLAMACPP, VLLM, MERGED, TRANSFORMERS), low_rank=True),
    "qlora": Method("LORA", (LLAMACPP, VLLM, MERGED, TRANSFORMERS), low_rank=True, needs_gpu=True),
    "full": Method("FULL", (MERGED, TRANSFORMERS), learning_rate=5e-5),
    "prefix": Method("PREFIX_TUNING", (TRANSFORMERS,), learning_rate=1e-2),
    "prompt": Method("PROMPT_TUNING", (TRANSFORMERS,), learning_rate=3e-2),
    "ia3": Method("IA3", (MERGED, TRANSFORMERS), learning_rate=3e-3),
}


def served_by(method: str, engine: str) -> bool:
    """Whether an engine (one of the names in `Method.served_by`) can serve what a method makes."""
    return engine in METHODS[method].served_by


def how_to_serve(method: str) -> str:
    """One sentence for people: what can serve an adapter of this method."""
    ways = METHODS[method].served_by
    if LLAMACPP in ways:
        return f"method {method!r} is served as an adapter by llama.cpp and vLLM"
    others = ", ".join(name for name in METHODS if served_by(name, LLAMACPP))
    way = (
        "merged into a GGUF of its own or by the transformers engine"
        if MERGED in ways
        else ("by the transformers engine only")
    )
    return f"method {method!r} is served {way}; served as adapters by llama.cpp: {others}"


def check_available(config: "TuneConfig") -> None:
    """Check that the machine can train with a method.

    Raises:
        TuneConfigError: Naming what is missing and the methods that need it not.
    """
    if not METHODS[config.method].needs_gpu:
        return
    from importlib.util import find_spec

    from tuning.hardware import resolve_device

    missing = []
    if resolve_device(config.device) != "cuda":
        missing.append("a GPU")
    if find_spec("bitsandbytes") is None:
        missing.append("the package bitsandbytes")
    if missing:
        others = ", ".join(name for name, method in METHODS.items() if not method.needs_gpu)
        raise TuneConfigError(
            f"method {config.method!r} needs {' and '.join(missing)}; choose {others}"
        )


def load_trainable(config: "TuneConfig") -> Any:
    """The base model with the method's own weights attached, ready to train.

    Everything but `full` freezes the base. `full` keeps float32 weights, so that small steps are
    not lost in bfloat16, and computes in `dtype` by autocast.
    """
    from tuning.base_model import load_model
    from tuning.hardware import resolve_device
    from tuning.lora import attach_lora

    check_available(config)
    if config.method == "full":
        return load_model(config.base, dtype="float32").requires_grad_(True)
    model = (
        _load_4bit(config)
        if config.method == "qlora"
        else load_model(config.base, dtype=config.compute_dtype)
    )
    if config.packing and resolve_device(config.device) == "cuda":
        # It skips the blocks between rows; the default attention computes and masks them.
        model.set_attn_implementation("flex_attention")
    # A preference loss compares log-probabilities with a reference that had no dropout.
    dropout = 0.0 if config.preference else config.dropout
    if METHODS[config.method].low_rank:
        return attach_lora(
            model,
            r=config.r,
            alpha=config.alpha,
            dropout=dropout,
            target_modules=config.target_modules,
            use_dora=config.method == "dora",
            use_rslora=config.method == "rslora",
        )
    return _attach_other(model, config)


def _attach_other(model: Any, config: "TuneConfig") -> Any:
    from peft import IA3Config, PrefixTuningConfig, PromptTuningConfig, get_peft_model

    if config.method == "ia3":
        chosen = IA3Config(
            task_type="CAUSAL_LM",
            target_modules=["k_proj", "v_proj", "down_proj"],
            feedforward_modules=["down_proj"],
        )
    else:
        kind = PrefixTuningConfig if config.method == "prefix" else PromptTuningConfig
        chosen = kind(task_type="CAUSAL_LM", num_virtual_tokens=config.virtual_tokens)
    model = get_peft_model(model, chosen)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return model


def _load_4bit(config: "TuneConfig") -> Any:
    import torch
    from peft import prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, config.compute_dtype),
    )
    model = AutoModelForCausalLM.from_pretrained(
        config.base,
        dtype=getattr(torch, config.compute_dtype),
        quantization_config=quantisation,
        device_map={"": 0},
    )
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def virtual_columns(model: Any) -> int:
    """Columns a method puts before the logits of the prompt (prompt tuning; 0 for the others)."""
    config = getattr(model, "active_peft_config", None)
    name = getattr(getattr(config, "peft_type", None), "value", "")
    return int(config.num_virtual_tokens) if config and name == "PROMPT_TUNING" else 0
