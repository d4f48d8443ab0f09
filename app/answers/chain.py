"""The answer chain: the nine steps in order, as a LangChain `Runnable`.

admit and release are the caller's (endpoint and `plan_for`); here: retrieve, pack, prompt,
generate, ground. Recording is `service.record`.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import structlog
from langchain_core.runnables import Runnable, RunnableConfig

from app.answers.grounding import Grounding, ground
from app.answers.types import AnswerRequest, AnswerResult, Citation, Plan
from app.db.base import new_id
from app.engines.types import Engine, Generation, GenerationRequest
from app.errors import BadInput
from app.knowledge.view import VersionName
from retrieval.context import PackedContext, pack
from retrieval.search import SearchResult
from retrieval.types import Hit, context_path
from tuning.prompt import Passage, encode, render_messages, template_digest

log = structlog.get_logger(__name__)

Search = Callable[[AnswerRequest, Plan], SearchResult]
Describe = Callable[[Sequence[str]], dict[str, VersionName]]


class AnswerChain(Runnable[AnswerRequest, AnswerResult]):
    """Everything between an admitted request and a finished answer. Holds no request state."""

    def __init__(
        self,
        *,
        engine: Engine,
        tokenizer: Any,
        search: Search,
        describe_versions: Describe,
        count_tokens: Callable[[str], int],
        context_budget_tokens: int,
        max_answer_tokens: int,
    ) -> None:
        """Wire the chain.

        Args:
            engine: the text generator.
            tokenizer: Hugging Face tokenizer of the base model.
            search: visible hits for a request under a plan.
            describe_versions: how versions are called, by their ids.
            count_tokens: counts the tokens of a passage.
            context_budget_tokens: tokens that all passages may take together.
            max_answer_tokens: default and upper bound of an answer's length.
        """
        self._engine = engine
        self._tokenizer = tokenizer
        self._search = search
        self._describe = describe_versions
        self._count_tokens = count_tokens
        self._budget = context_budget_tokens
        self._max_answer_tokens = max_answer_tokens
        self._template = template_digest(tokenizer)

    def invoke(
        self, input: AnswerRequest, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AnswerResult:
        """A finished answer; `plan` must be given as a keyword (`service.answer` does)."""
        plan: Plan = kwargs["plan"]
        for event in self.events(input, plan, stream=False):
            if isinstance(event, AnswerResult):
                return event
        raise RuntimeError("the answer chain ended without a result")

    def events(
        self, request: AnswerRequest, plan: Plan, *, stream: bool = True
    ) -> Iterator[str | AnswerResult]:
        """Pieces of text as they are generated, then the finished answer."""
        if not request.question.strip():
            raise BadInput("the question is empty")
        started = time.perf_counter()
        context, coverage = self._retrieve(request, plan)
        retrieved = time.perf_counter()
        ids = self._prompt(request, plan, context)
        most = min(plan.max_answer_tokens or self._max_answer_tokens, self._max_answer_tokens)
        generation_request = GenerationRequest(
            prompt_ids=ids,
            max_tokens=min(request.max_tokens or most, most),
            adapter=plan.adapter,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=request.stop,
        )
        first_token: float | None = None
        generation: Generation | None = None
        if stream:
            for piece in self._engine.stream(generation_request):
                if isinstance(piece, Generation):
                    generation = piece
                    break
                first_token = first_token or time.perf_counter()
                yield piece
        else:
            generation = self._engine.generate(generation_request)
        if generation is None:
            raise RuntimeError("the engine ended without a generation")
        done = time.perf_counter()
        timings = {
            "retrieve_s": retrieved - started,
            "prefill_s": generation.prefill_s,
            "decode_s": generation.decode_s,
            "total_s": done - started,
        }
        if first_token is not None:
            timings["first_token_s"] = first_token - started
        result = self._result(request, plan, context, generation_request, generation, timings)
        yield replace(result, coverage=coverage)

    def retrieve(self, request: AnswerRequest, plan: Plan) -> tuple[Hit, ...]:
        """The hits that would be packed, best first."""
        return self._search(request, plan).hits

    def _retrieve(self, request: AnswerRequest, plan: Plan) -> tuple[PackedContext, float | None]:
        if not plan.with_context:
            return PackedContext((), ()), None
        found = self._search(request, plan)
        return pack(found.hits, self._budget, self._count_tokens), found.coverage

    def _prompt(self, request: AnswerRequest, plan: Plan, context: PackedContext) -> list[int]:
        passages = [
            Passage(context_path(p.hit.title, p.hit.heading_path), p.hit.text)
            for p in context.passages
        ]
        room = self._engine.context_tokens - 32
        history = list(request.history)
        system = "\n".join(part for part in (plan.system_prompt, request.system) if part)
        while True:
            messages = render_messages(
                request.question,
                passages,
                system=system,
                history=history,
                abstain_sentence=plan.abstain_sentence,
            )
            ids = encode(self._tokenizer, messages)
            if len(ids) <= room or not history:
                return ids
            history = history[2:]  # the oldest exchange goes first

    def _result(
        self,
        request: AnswerRequest,
        plan: Plan,
        context: PackedContext,
        sent: GenerationRequest,
        generation: Generation,
        timings: dict[str, float],
    ) -> AnswerResult:
        checked = ground(generation.text, request.question, context.passages, plan.abstain_sentence)
        identity = self._identity(request, plan, context, sent)
        canonical = json.dumps(identity, sort_keys=True, ensure_ascii=False)
        return AnswerResult(
            id=new_id(),
            use_case=plan.use_case,
            arm=plan.arm,
            question=request.question,
            text=checked.text,
            abstained=checked.abstained,
            grounded=checked.grounded,
            citations=self._citations(checked),
            passages=context.passages,
            finish_reason=generation.finish_reason,
            prompt_tokens=generation.prompt_tokens,
            completion_tokens=generation.completion_tokens,
            timings={name: round(value, 4) for name, value in timings.items()},
            identity=identity,
            identity_sha256=hashlib.sha256(canonical.encode()).hexdigest(),
            adapter_id=plan.adapter_id,
            unsupported=checked.unsupported,
        )

    def _identity(
        self, request: AnswerRequest, plan: Plan, context: PackedContext, sent: GenerationRequest
    ) -> dict[str, Any]:
        ids = ",".join(map(str, sent.prompt_ids))
        return {
            **self._engine.identity,
            "adapter": plan.adapter.digest if plan.adapter else None,
            "template": self._template,
            "prompt_sha256": hashlib.sha256(ids.encode()).hexdigest(),
            "arm": plan.arm,
            "as_of": request.as_of.isoformat() if request.as_of else None,
            "chunks": [p.hit.chunk_id for p in context.passages],
            "versions": sorted({p.hit.version_id for p in context.passages}),
            "context_budget_tokens": self._budget if plan.with_context else 0,
            "decoding": {
                "max_tokens": sent.max_tokens,
                "temperature": sent.temperature,
                "top_p": sent.top_p,
                "seed": sent.seed,
                "stop": list(sent.stop),
            },
        }

    def _citations(self, checked: Grounding) -> tuple[Citation, ...]:
        versions = self._describe([quote.passage.hit.version_id for quote in checked.quotes])
        citations = []
        for quote in checked.quotes:
            hit = quote.passage.hit
            version = versions.get(hit.version_id, VersionName("?", 0))
            citations.append(
                Citation(
                    number=quote.passage.number,
                    document=version.document,
                    document_id=hit.document_id,
                    version_id=hit.version_id,
                    version=version.number,
                    chunk_id=hit.chunk_id,
                    title=hit.title,
                    heading=" > ".join(hit.heading_path),
                    page=hit.page_start,
                    quote=quote.text,
                    quote_start=quote.start,
                    quote_end=quote.end,
                    superseded_by=version.superseded_by,
                )
            )
        return tuple(citations)
