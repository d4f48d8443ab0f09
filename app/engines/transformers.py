"""The reference engine: transformers and peft, for Hugging Face ids and folders without a GGUF.

One request at a time, on a GPU where there is one. Slower than llama.cpp on a CPU.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from app.engines.slots import SlotScheduler
from app.engines.streams import Cancellation, Cancelled, Emit, PieceStream, drain
from app.engines.types import AdapterRef, EngineError, Generation, GenerationRequest
from app.errors import BadInput, ModelMissing
from tuning.hardware import resolve_dtype

_REPLACEMENT = "\ufffd"  # what a decoder puts where a character's bytes are not complete yet


class TransformersEngine:
    """A base model with peft adapters switched per request."""

    def __init__(
        self, model: str, *, base_sha256: str, context_tokens: int = 2048, max_adapters: int = 16
    ) -> None:
        """Load the model from a folder, or from the Hugging Face cache by id.

        Raises:
            ModelMissing: It is in neither place and cannot be fetched.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._dtype = resolve_dtype("auto", self._device)
            loaded = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, self._dtype))
            self._tokenizer: Any = AutoTokenizer.from_pretrained(model)
        except OSError as error:
            reason = str(error).splitlines()[0]
            raise ModelMissing(
                f"TANDEM_BASE_MODEL is {model!r} and cannot be loaded ({reason}): give a folder "
                "that is here, or the default 'smollm2-135m-instruct'"
            ) from error
        self._base: Any = loaded.to(self._device).eval()
        self._model: Any = None
        self._resident: OrderedDict[str, str] = OrderedDict()
        self._n_loaded = 0
        self._name = model
        self._sha256 = base_sha256
        self._context_tokens = context_tokens
        self._max_adapters = max_adapters
        self._turns = SlotScheduler(1)
        self._weights = threading.Lock()

    @property
    def identity(self) -> dict[str, str]:
        """Engine, its version, the base's digest and name, and what it is computed in."""
        import transformers

        return {
            "engine": "transformers",
            "engine_version": transformers.__version__,
            "base_sha256": self._sha256,
            "file": self._name,
            "dtype": self._dtype,
        }

    @property
    def context_tokens(self) -> int:
        """The most tokens of prompt and answer together."""
        return self._context_tokens

    @property
    def adapters(self) -> tuple[str, ...]:
        """Digests of the resident adapters."""
        return tuple(self._resident)

    @property
    def load(self) -> dict[str, int]:
        """Requests that generate and requests that wait."""
        return {"running": self._turns.running, "waiting": self._turns.waiting}

    def load_adapter(self, adapter: AdapterRef) -> None:
        """Make an adapter resident from its directory of safetensors.

        Raises:
            EngineError: If peft cannot read it.
        """
        from peft import PeftModel

        with self._weights:
            if adapter.digest in self._resident:
                self._resident.move_to_end(adapter.digest)
                return
            while len(self._resident) >= self._max_adapters:
                _, name = self._resident.popitem(last=False)
                self._model.delete_adapter(name)
            self._n_loaded += 1
            name, folder = f"a{self._n_loaded}", str(adapter.directory)
            try:
                if self._model is None:
                    self._model = PeftModel.from_pretrained(self._base, folder, adapter_name=name)
                else:
                    self._model.load_adapter(folder, adapter_name=name)
            except (OSError, ValueError, RuntimeError) as error:
                raise EngineError(f"adapter {adapter.digest[:12]} cannot be loaded") from error
            self._model.eval()
            self._resident[adapter.digest] = name

    def drop_adapter(self, digest: str) -> None:
        """Free an adapter's memory."""
        with self._weights:
            name = self._resident.pop(digest, None)
            if name is not None:
                self._model.delete_adapter(name)

    def generate(self, request: GenerationRequest) -> Generation:
        """The whole text at once."""
        return drain(self.stream(request))

    def stream(self, request: GenerationRequest) -> Iterator[str | Generation]:
        """Pieces of text as they come, then the `Generation`.

        Raises:
            BadInput: If the request wants a JSON schema.
        """
        if request.json_schema is not None:
            raise BadInput(
                "the transformers engine cannot hold an answer to a JSON schema: serve with "
                "llamacpp, or an openai_compatible server such as vLLM"
            )

        def work(emit: Emit, cancellation: Cancellation) -> Generation:
            ticket = self._turns.enter(None)
            try:
                cancellation.on_set(ticket.grant)
                ticket.wait()
                if cancellation.is_set():
                    raise Cancelled
                return self._run(request, emit, cancellation)
            finally:
                self._turns.leave(ticket)

        return PieceStream(work, "transformers-stream")

    def close(self) -> None:
        """Free the model."""
        self._model = self._base = None

    def _run(
        self, request: GenerationRequest, emit: Emit, cancellation: Cancellation
    ) -> Generation:
        room = self._context_tokens - len(request.prompt_ids)
        if room < 1:
            raise BadInput(
                f"the prompt has {len(request.prompt_ids)} tokens, the model reads at most "
                f"{self._context_tokens}: shorten the question or its history"
            )
        if self._base is None:
            raise EngineError("the engine is shutting down")
        if request.adapter is not None:
            self.load_adapter(request.adapter)
        with self._weights:
            started = time.perf_counter()
            pieces = TextPieces(self._tokenizer, request.stop)
            stop = _AfterToken(len(request.prompt_ids), pieces, emit, cancellation)
            ids = self._generate(request, min(request.max_tokens, room), stop)
            ended = time.perf_counter()
        if cancellation.is_set():
            raise Cancelled
        if rest := pieces.finish():
            emit(rest)
        first = stop.first_token or ended
        natural = pieces.stopped or ids[-1] in self._end_tokens()
        return Generation(
            text=pieces.text,
            finish_reason="stop" if natural else "length",
            prompt_tokens=len(request.prompt_ids),
            completion_tokens=len(ids),
            prefill_s=first - started,
            decode_s=ended - first,
        )

    def _end_tokens(self) -> set[int]:
        configured = self._base.generation_config.eos_token_id
        several = configured if isinstance(configured, list) else [configured]
        return {self._tokenizer.eos_token_id, *several}

    def _generate(self, request: GenerationRequest, most: int, stop: Any) -> list[int]:
        import torch
        from transformers import StoppingCriteriaList

        torch.manual_seed(request.seed)
        prompt = torch.tensor([request.prompt_ids], device=self._device)
        sampling = request.temperature > 0
        options: dict[str, Any] = {
            "do_sample": sampling,
            "max_new_tokens": most,
            "attention_mask": torch.ones_like(prompt),
            "pad_token_id": self._tokenizer.eos_token_id,
            "eos_token_id": sorted(token for token in self._end_tokens() if token is not None),
            "stopping_criteria": StoppingCriteriaList([stop]),
        }
        if sampling:
            options |= {"temperature": request.temperature, "top_p": request.top_p, "top_k": 0}
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


@dataclass(slots=True)
class TextPieces:
    """Token ids in, text that is safe to show out: whole characters, no part of a stop text.

    Attributes:
        text: What was given out so far; never holds a stop text.
        stopped: Whether a stop text came.
    """

    tokenizer: Any
    stop: tuple[str, ...] = ()
    text: str = ""
    stopped: bool = False
    _decoded: str = field(default="", init=False)

    def feed(self, ids: list[int]) -> str:
        """The new piece after these ids (all generated so far), perhaps empty."""
        self._decoded = self.tokenizer.decode(ids, skip_special_tokens=True)
        ends = [at for stop in self.stop if (at := self._decoded.find(stop)) >= 0]
        if ends:
            self.stopped = True
            return self._give(min(ends))
        safe = len(self._decoded.rstrip(_REPLACEMENT))
        return self._give(safe - self._held(self._decoded[:safe]))

    def finish(self) -> str:
        """What was held back, when no more ids come."""
        return "" if self.stopped else self._give(len(self._decoded))

    def _give(self, end: int) -> str:
        piece = self._decoded[len(self.text) : end]
        self.text += piece
        return piece

    def _held(self, text: str) -> int:
        """Characters at the end that may be the start of a stop text."""
        longest = max((len(stop) for stop in self.stop), default=1) - 1
        for n in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-n:]) for stop in self.stop):
                return n
        return 0


class _AfterToken:
    """Called by transformers after every token: gives the piece out, says whether to stop."""

    def __init__(
        self, prompt_tokens: int, pieces: TextPieces, emit: Emit, cancellation: Cancellation
    ) -> None:
        self._prompt_tokens = prompt_tokens
        self._pieces = pieces
        self._emit = emit
        self._cancellation = cancellation
        self.first_token: float | None = None

    def __call__(self, input_ids: Any, scores: Any, **_: Any) -> Any:
        import torch

        self.first_token = self.first_token or time.perf_counter()
        if piece := self._pieces.feed(input_ids[0, self._prompt_tokens :].tolist()):
            self._emit(piece)
        ends = self._pieces.stopped or self._cancellation.is_set()
        return torch.full((1,), ends, dtype=torch.bool, device=input_ids.device)
