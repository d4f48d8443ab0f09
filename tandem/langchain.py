"""A Tandem service inside LangChain: its search as a retriever, its use cases as chat models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForLLMRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field, SecretStr

from tandem.client import Answer, AsyncTandem, Hit, Tandem, TandemError

_ROLES = {"human": "user", "ai": "assistant"}


class TandemRetriever(BaseRetriever):
    """A knowledge base's search as a `BaseRetriever`."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    url: str
    key: SecretStr
    knowledge_base: str
    limit: int = 5
    narrowing: dict[str, Any] = Field(default_factory=dict)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        with Tandem(self.url, self.key.get_secret_value()) as client:
            hits = client.search(self.knowledge_base, query, limit=self.limit, **self.narrowing)
        return [_document(hit) for hit in hits]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        async with AsyncTandem(self.url, self.key.get_secret_value()) as client:
            hits = await client.search(
                self.knowledge_base, query, limit=self.limit, **self.narrowing
            )
        return [_document(hit) for hit in hits]


class TandemChatModel(BaseChatModel):
    """A use case as a `BaseChatModel`; citations are in `response_metadata["citations"]`."""

    url: str
    key: SecretStr
    use_case: str
    options: dict[str, Any] = Field(default_factory=dict)

    @property
    def _llm_type(self) -> str:
        return "tandem"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"url": self.url, "use_case": self.use_case, **self.options}

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        _refuse_stop(stop)
        with Tandem(self.url, self.key.get_secret_value()) as client:
            answer = client.ask(self.use_case, **_asked(messages), **self.options)
        return _result(answer)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        _refuse_stop(stop)
        async with AsyncTandem(self.url, self.key.get_secret_value()) as client:
            answer = await client.ask(self.use_case, **_asked(messages), **self.options)
        return _result(answer)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        _refuse_stop(stop)
        with Tandem(self.url, self.key.get_secret_value()) as client:
            for event in client.stream(self.use_case, **_asked(messages), **self.options):
                made = _chunk(event)
                if run_manager is not None and made.text:
                    run_manager.on_llm_new_token(made.text, chunk=made)
                yield made

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        _refuse_stop(stop)
        async with AsyncTandem(self.url, self.key.get_secret_value()) as client:
            async for event in client.stream(self.use_case, **_asked(messages), **self.options):
                made = _chunk(event)
                if run_manager is not None and made.text:
                    await run_manager.on_llm_new_token(made.text, chunk=made)
                yield made


def _asked(messages: Sequence[BaseMessage]) -> dict[str, Any]:
    """Question, history and system text of a conversation."""
    turns = [
        {"role": _ROLES[kind], "content": str(message.text)}
        for message in messages
        if (kind := _kind(message)) in _ROLES
    ]
    if not turns or turns[-1]["role"] != "user":
        raise TandemError("the last message must be the user's question")
    system = "\n".join(str(m.text) for m in messages if _kind(m) == "system")
    return {"question": turns[-1]["content"], "history": turns[:-1], "system": system}


def _kind(message: BaseMessage) -> str:
    """`ai` also for what a stream's pieces were added up to, whose type is `AIMessageChunk`."""
    return message.type.removesuffix("MessageChunk").lower()


def _refuse_stop(stop: list[str] | None) -> None:
    if stop:
        raise TandemError("stop texts are not supported by this chat model: leave `stop` out")


def _result(answer: Answer) -> ChatResult:
    message = AIMessage(content=answer.text, response_metadata=_metadata(answer))
    return ChatResult(generations=[ChatGeneration(message=message)])


def _chunk(event: str | Answer) -> ChatGenerationChunk:
    if isinstance(event, str):
        return ChatGenerationChunk(message=AIMessageChunk(content=event))
    last = AIMessageChunk(content="", response_metadata=_metadata(event))
    return ChatGenerationChunk(message=last)


def _metadata(answer: Answer) -> dict[str, Any]:
    return {
        "answer_id": answer.id,
        "arm": answer.arm,
        "abstained": answer.abstained,
        "grounded": answer.grounded,
        "citations": answer.raw["tandem"]["citations"],
    }


def _document(hit: Hit) -> Document:
    return Document(
        page_content=hit.text,
        metadata={name: getattr(hit, name) for name in Hit.__slots__ if name != "text"},
    )
