"""Attaching LoRA to a base model, fresh or continuing the function of an earlier adapter."""

from pathlib import Path
from typing import Any

from tuning.adapters import TENSOR_PREFIX, module_pairs, read_lora_config, read_tensors, scaling
from tuning.errors import AdapterError


def attach_lora(
    model: Any,
    *,
    r: int,
    alpha: float,
    dropout: float = 0.0,
    target_modules: str = "all-linear",
) -> Any:
    """Wrap a base model with a trainable LoRA in float32; B is zero, so nothing changes yet.

    Args:
        model: A causal language model; its own weights are frozen.
        r: Rank.
        alpha: The factor on B @ A is alpha / r.
        dropout: On the input of A, in training only.
        target_modules: "all-linear" or module name endings joined by commas.
    """
    from peft import LoraConfig, get_peft_model

    names = target_modules if target_modules == "all-linear" else target_modules.split(",")
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=names,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def continue_from(model: Any, adapter_dir: Path | str) -> None:
    """Make a fresh LoRA compute exactly the function of an earlier adapter.

    The first rows of A and columns of B take the earlier matrices, B rescaled for the two
    scalings; the other columns of B stay zero, so the extra rank starts silent and free.

    Raises:
        AdapterError: If the earlier adapter has a greater rank or adapts modules this one lacks.
    """
    import torch

    old_config = read_lora_config(adapter_dir)
    new_config = model.peft_config["default"]
    old_rank, new_rank = int(old_config["r"]), int(new_config.r)
    if old_rank > new_rank:
        raise AdapterError(
            f"adapter {str(adapter_dir)!r} has rank {old_rank}; use r >= {old_rank}, "
            f"not {new_rank}, or compress it first"
        )
    factor = scaling(old_config) / (float(new_config.lora_alpha) / new_rank)
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for module, (old_a, old_b) in module_pairs(read_tensors(adapter_dir)).items():
            path = f"{TENSOR_PREFIX}{module.removeprefix(TENSOR_PREFIX)}"
            new_a = parameters.get(f"{path}.lora_A.default.weight")
            new_b = parameters.get(f"{path}.lora_B.default.weight")
            if new_a is None or new_b is None:
                raise AdapterError(
                    f"adapter {str(adapter_dir)!r} adapts {module!r}, which is not among the "
                    "target modules; use target_modules='all-linear'"
                )
            if new_a.shape[1] != old_a.shape[1] or new_b.shape[0] != old_b.shape[0]:
                raise AdapterError(f"module {module!r} has another shape in the base model")
            new_a[:old_rank] = old_a.to(new_a)
            new_b.zero_()
            new_b[:, :old_rank] = old_b.to(new_b) * factor


def lora_state(model: Any, base_digest: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The adapter's tensors by PEFT name and its configuration, ready for `write_adapter`.

    The configuration names the base model by its digest, not by the path it was loaded from.
    """
    from peft import get_peft_model_state_dict

    tensors = {
        name: tensor.detach().to("cpu").clone()
        for name, tensor in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }
    config = model.peft_config["default"].to_dict()
    config["inference_mode"] = True
    config["base_model_name_or_path"] = f"sha256:{base_digest}"
    # Sets have no order; sorted, the same adapter always has the same digest.
    plain = {
        key: sorted(value) if isinstance(value, set) else value for key, value in config.items()
    }
    for key in ("peft_type", "task_type"):
        plain[key] = str(getattr(plain[key], "value", plain[key]))
    return tensors, plain


def load_adapted(model: Any, adapter_dir: Path | str) -> Any:
    """A base model with an adapter directory applied, for inference."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter_dir)).eval()
