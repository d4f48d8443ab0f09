"""Attaching adapters to a base model, fresh or continuing the function of an earlier one."""

from pathlib import Path
from typing import Any

from tuning.adapters import (
    TENSOR_PREFIX,
    method_of,
    module_pairs,
    read_config,
    read_lora_config,
    read_tensors,
    scaling,
)
from tuning.errors import AdapterError


def attach_lora(
    model: Any,
    *,
    r: int,
    alpha: float,
    dropout: float = 0.0,
    target_modules: str = "all-linear",
    use_dora: bool = False,
    use_rslora: bool = False,
) -> Any:
    """Wrap a base model with a trainable LoRA in float32; B is zero, so nothing changes yet.

    Args:
        model: A causal language model; its own weights are frozen.
        r: Rank.
        alpha: The factor on B @ A is alpha / r.
        dropout: On the input of A, in training only.
        target_modules: "all-linear" or module name endings joined by commas.
        use_dora: Also train the length of every weight column (arXiv 2402.09353).
        use_rslora: Make the factor alpha / sqrt(r) (arXiv 2312.03732).
    """
    from peft import LoraConfig, get_peft_model

    names = target_modules if target_modules == "all-linear" else target_modules.split(",")
    config = LoraConfig(
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=names,
        task_type="CAUSAL_LM",
        use_dora=use_dora,
        use_rslora=use_rslora,
    )
    return get_peft_model(model, config)


def start_from(model: Any, method: str, adapter_dir: Path | str) -> None:
    """Make a freshly attached model compute the function of an earlier adapter.

    A LoRA may be continued as LoRA, rsLoRA or QLoRA; every other method only as itself.

    Raises:
        AdapterError: If the earlier adapter cannot be continued by this method.
    """
    from peft import set_peft_model_state_dict

    old = method_of(read_config(adapter_dir))
    plain = ("lora", "rslora", "qlora")
    if old in plain and method in plain:
        continue_from(model, adapter_dir)
        return
    if old != method:
        raise AdapterError(
            f"adapter {str(adapter_dir)!r} was made by method {old!r} and cannot be continued by "
            f"{method!r}; choose {', '.join(plain) if old in plain else old}"
        )
    tensors = read_tensors(adapter_dir)
    if method == "full":
        load_full(model, tensors)
        return
    shapes = {name: parameter.shape for name, parameter in _adapter_state(model).items()}
    for name, tensor in tensors.items():
        if shapes.get(name) != tensor.shape:
            raise AdapterError(
                f"tensor {name!r} of {str(adapter_dir)!r} is {tuple(tensor.shape)}; this run makes "
                f"{tuple(shapes.get(name, ()))}: use the same settings"
            )
    set_peft_model_state_dict(model, {k: v.float() for k, v in tensors.items()})


def load_full(model: Any, tensors: dict[str, Any]) -> None:
    """Put the weights of a `full` run into a base model.

    Raises:
        AdapterError: If a tensor is missing or too many.
    """
    import torch

    own = dict(model.named_parameters())
    if set(own) != set(tensors):
        other = sorted(set(own) ^ set(tensors))[0]
        raise AdapterError(f"the weights do not fit this base model: {other!r} is on one side only")
    with torch.no_grad():
        for name, parameter in own.items():
            if parameter.shape != tensors[name].shape:
                raise AdapterError(f"weight {name!r} has another shape in the base model")
            parameter.copy_(tensors[name])


def _adapter_state(model: Any) -> dict[str, Any]:
    from peft import get_peft_model_state_dict

    state: dict[str, Any] = get_peft_model_state_dict(model, save_embedding_layers=False)
    return state


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
    factor = scaling(old_config) / scaling(new_config.to_dict())
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


def adapter_state(model: Any, base_digest: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was trained, by PEFT name, and its configuration, ready for `write_adapter`.

    The configuration names the base model by its digest, not by the path it was loaded from.
    """
    base = f"sha256:{base_digest}"
    if not hasattr(model, "peft_config"):
        weights = {name: p.detach().to("cpu").clone() for name, p in model.named_parameters()}
        return weights, {
            "peft_type": "FULL",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base,
        }
    tensors = {
        name: tensor.detach().to("cpu").clone() for name, tensor in _adapter_state(model).items()
    }
    config = model.peft_config["default"].to_dict()
    config["inference_mode"] = True
    config["base_model_name_or_path"] = base
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

    if method_of(read_config(adapter_dir)) == "full":
        load_full(model, read_tensors(adapter_dir))
        return model.eval()
    return PeftModel.from_pretrained(model, str(adapter_dir)).eval()
