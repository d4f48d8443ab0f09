"""What OpenAI-compatible servers do differently: prompts, adapters, JSON schemas."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import httpx

from app.engines.types import AdapterRef, EngineError, GenerationRequest
from app.errors import BadInput

Body = dict[str, Any]


class Dialect(Protocol):
    """One kind of server."""

    path: str

    def body(self, request: GenerationRequest, model: str) -> Body:
        """The request as the server wants it; `model` is the base's or the adapter's name."""
        ...

    def piece(self, choice: Mapping[str, Any]) -> str:
        """The new text of a streamed choice."""
        ...

    def load(self, client: httpx.Client, adapter: AdapterRef, model: str) -> Body:
        """Make the adapter ready; what to add to the bodies of its requests.

        Raises:
            EngineError: If the server does not take it.
        """
        ...

    def unload(self, client: httpx.Client, name: str) -> None:
        """Let the server drop an adapter, where it can."""
        ...


def adapter_name(digest: str) -> str:
    """What an adapter is called on a server: by its content, so that equal names are equal."""
    return f"tandem-{digest[:32]}"


class VllmDialect:
    """vLLM: token ids in, LoRA adapters loaded at run time, a cache salt per workspace.

    The server needs `--enable-lora` and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and must see the
    adapters' folders under the same paths.
    https://docs.vllm.ai/en/latest/features/lora.html
    """

    path = "/v1/completions"

    def body(self, request: GenerationRequest, model: str) -> Body:
        """A completion of token ids."""
        body = _decoding(request) | {"model": model, "prompt": request.prompt_ids}
        if request.json_schema is not None:
            body["structured_outputs"] = {"json": dict(request.json_schema)}
        if request.cache_salt is not None:
            body["cache_salt"] = request.cache_salt
        return body

    def piece(self, choice: Mapping[str, Any]) -> str:
        """The text of a completion's choice."""
        return str(choice.get("text") or "")

    def load(self, client: httpx.Client, adapter: AdapterRef, model: str) -> Body:
        """Load it by its content's name; one that is loaded already is fine."""
        if adapter.directory is None:
            raise EngineError(f"adapter {adapter.digest[:12]} has no folder of safetensors")
        name = adapter_name(adapter.digest)
        folder = str(Path(adapter.directory).resolve())
        body = {"lora_name": name, "lora_path": folder}
        reply = client.post("/v1/load_lora_adapter", json=body)
        if reply.status_code == 404:
            raise EngineError(
                f"the server cannot load {folder} ({said(reply)}): it must see that path, and run "
                "with --enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
            )
        if reply.status_code >= 400 and "already been loaded" not in reply.text:
            raise EngineError(f"the server refuses adapter {adapter.digest[:12]}: {said(reply)}")
        return {"model": name}

    def unload(self, client: httpx.Client, name: str) -> None:
        """Free its memory; a server that was restarted does not know it, which is as good."""
        client.post("/v1/unload_lora_adapter", json={"lora_name": name})


class LlamaServerDialect:
    """llama.cpp's own server: token ids in, adapters given at its start as DIGEST.gguf.

    https://github.com/ggml-org/llama.cpp/tree/master/tools/server
    """

    path = "/v1/completions"

    def body(self, request: GenerationRequest, model: str) -> Body:
        """A completion of token ids, with every adapter off unless `load` turned one on."""
        body = _decoding(request) | {"model": model, "prompt": request.prompt_ids}
        body |= {"cache_prompt": False, "lora": []}
        if request.json_schema is not None:
            body["json_schema"] = dict(request.json_schema)
        return body

    def piece(self, choice: Mapping[str, Any]) -> str:
        """The text of a completion's choice."""
        return str(choice.get("text") or "")

    def load(self, client: httpx.Client, adapter: AdapterRef, model: str) -> Body:
        """Find the adapter among those the server was started with."""
        reply = client.get("/lora-adapters")
        listed = reply.json() if reply.status_code == 200 else []
        for row in listed:
            if Path(row["path"]).stem == adapter.digest:
                # An adapter that is not listed counts as off.
                return {"lora": [{"id": row["id"], "scale": 1.0}]}
        raise EngineError(
            f"the llama.cpp server was not started with adapter {adapter.digest}: add "
            f"--lora {adapter.digest}.gguf to its command"
        )

    def unload(self, client: httpx.Client, name: str) -> None:
        """It cannot."""


class ChatDialect:
    """TGI, Ollama, hosted models: chat messages in, adapters as models the server lists."""

    path = "/v1/chat/completions"

    def body(self, request: GenerationRequest, model: str) -> Body:
        """A chat completion."""
        if not request.messages:
            raise BadInput("this engine takes chat messages, and the request has token ids alone")
        body = _decoding(request) | {"model": model}
        body["messages"] = [dict(message) for message in request.messages]
        if request.json_schema is not None:
            schema = {"name": "answer", "strict": True, "schema": dict(request.json_schema)}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    def piece(self, choice: Mapping[str, Any]) -> str:
        """The text of a chat choice's delta."""
        return str((choice.get("delta") or {}).get("content") or "")

    def load(self, client: httpx.Client, adapter: AdapterRef, model: str) -> Body:
        """Find the adapter among the server's models."""
        name = adapter_name(adapter.digest)
        reply = client.get("/v1/models")
        listed = reply.json().get("data", []) if reply.status_code == 200 else []
        if any(row.get("id") == name for row in listed):
            return {"model": name}
        raise EngineError(f"the server has no model {name!r}: start it with the adapter so called")

    def unload(self, client: httpx.Client, name: str) -> None:
        """It cannot."""


DIALECTS: dict[str, type[VllmDialect | LlamaServerDialect | ChatDialect]] = {
    "vllm": VllmDialect,
    "llamacpp": LlamaServerDialect,
    "chat": ChatDialect,
}


def said(reply: httpx.Response) -> str:
    """The server's reason in a few words."""
    try:
        error = reply.json()
    except ValueError:
        return f"{reply.status_code} {reply.text[:200]}".strip()
    for key in ("error", "message", "detail"):
        if isinstance(error, dict) and error.get(key):
            error = error[key]
    return f"{reply.status_code} {str(error)[:300]}"


def _decoding(request: GenerationRequest) -> Body:
    body: Body = {
        "max_tokens": request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if request.temperature > 0:
        body["seed"] = request.seed
    if request.stop:
        body["stop"] = list(request.stop)
    return body
