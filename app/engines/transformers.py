"""The reference engine: transformers and peft, for Hugging Face ids and folders without a GGUF.

One request at a time, on a GPU where there is one. Slower than llama.cpp on a CPU.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from app.engines.types import AdapterRef, EngineError, Generation, GenerationRequest
from app.errors import BadInput, ModelMissing


class TransformersEngine:
    """A base model with peft adapters switched per request."""

    def __init__(self, model: str, *, base_sha256: str, context_tokens: int = 2048) -> None:
        """Load the model from a folder, or from the Hugging Face cache by id.

        Raises:
            ModelMissing: It is in neither place and cannot be fetched.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
            self._tokenizer: Any = AutoTokenizer.from_pretrained(model)
        except OSError as error:
            reason = str(error).splitlines()[0]
            raise ModelMissing(
                f"TANDEM_BASE_MODEL is {model!r} and cannot be loaded ({reason}): give a folder "
                "that is here, or the default 'smollm2-135m-instruct'"
            ) from error
        self._base: Any = loaded.to(self._device).eval()
        self._model: Any = None
        self._resident: dict[str, str] = {}
        self._name = model
        self._sha256 = base_sha256
        self._context_tokens = context_tokens
        self._lock = threading.Lock()

    @property
    def identity(self) -> dict[str, str]:
        """Engine, its version, the base's digest and name."""
        import transformers

        return {
            "engine": "transformers",
            "engine_version": transformers.__version__,
            "base_sha256": self._sha256,
            "file": self._name,
        }

    @property
    def context_tokens(self) -> int:
        """The most tokens of prompt and answer together."""
        return self._context_tokens

    def load_adapter(self, adapter: AdapterRef) -> None:
        """Make an adapter resident; its directory lies beside its manifest, not its GGUF."""
        from peft import PeftModel

        with self._lock:
            if adapter.digest in self._resident:
                return
            name = f"a{len(self._resident)}"
            folder = str(adapter.directory)
            try:
                if self._model is None:
                    self._model = PeftModel.from_pretrained(self._base, folder, adapter_name=name)
                else:
                    self._model.load_adapter(folder, adapter_name=name)
            except (OSError, ValueError, RuntimeError) as error:
                raise EngineError(f"adapter {adapter.digest[:12]} cannot be loaded") from error
            self._model.eval()
            self._resident[adapter.digest] = name

    def generate(self, request: GenerationRequest) -> Generation:
        """The whole text at once."""
        *_, last = self.stream(request)
        if not isinstance(last, Generation):
            raise EngineError("the engine ended without a generation")
        return last

    def stream(self, request: GenerationRequest) -> Iterator[str | Generation]:
        """The text in one piece, then the `Generation`."""
        if request.adapter is not None:
            self.load_adapter(request.adapter)
        room = self._context_tokens - len(request.prompt_ids)
        if room < 1:
            raise BadInput(
                f"the prompt has {len(request.prompt_ids)} tokens, the model reads at most "
                f"{self._context_tokens}: shorten the question or its history"
            )
        with self._lock:
            started = time.perf_counter()
            ids = self._run(request, min(request.max_tokens, room))
            seconds = time.perf_counter() - started
        end = self._tokenizer.eos_token_id
        finished = end in ids
        text = self._tokenizer.decode(ids[: ids.index(end)] if finished else ids)
        for stop in request.stop:
            text = text.split(stop)[0]
        if text:
            yield text
        yield Generation(
            text=text,
            finish_reason="stop" if finished else "length",
            prompt_tokens=len(request.prompt_ids),
            completion_tokens=len(ids),
            prefill_s=0.0,
            decode_s=seconds,
        )

    def close(self) -> None:
        """Free the model."""
        self._model = self._base = None

    def _run(self, request: GenerationRequest, most: int) -> list[int]:
        import torch

        torch.manual_seed(request.seed)
        prompt = torch.tensor([request.prompt_ids], device=self._device)
        sampling = request.temperature > 0
        options: dict[str, Any] = {"do_sample": sampling, "max_new_tokens": most}
        if sampling:
            options |= {"temperature": request.temperature, "top_p": request.top_p}
        model = self._base if self._model is None else self._model
        with torch.inference_mode():
            if self._model is not None and request.adapter is None:
                with self._model.disable_adapter():
                    output = model.generate(input_ids=prompt, **options)
            else:
                if request.adapter is not None:
                    self._model.set_adapter(self._resident[request.adapter.digest])
                output = model.generate(input_ids=prompt, **options)
        new: list[int] = output[0, prompt.shape[1] :].tolist()
        return new
