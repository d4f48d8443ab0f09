"""The answer chain: the nine steps in order, as a LangChain `Runnable`.

admit, release and record are the caller's; here: retrieve, pack, prompt, generate (or give a
cached generation again), ground.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from langchain_core.runnables import Runnable, RunnableConfig

from app.answers.cache import AnswerCache
from app.answers.generating import Generator, require_fit
from app.answers.grounding import Grounding, ground, ground_data
from app.answers.identity import cache_key, identity_of, sha256_json
from app.answers.types import AnswerRequest, AnswerResult, Citation, Plan, Progress
from app.db.base import new_id
from app.engines.streams import Cancellation
from app.engines.types import EngineError, Generation, GenerationRequest
from app.errors import BadInput, DependencyDown
from app.knowledge.view import VersionName
from retrieval.context import PackedContext, pack
from retrieval.search import SearchResult
from retrieval.types import Hit, context_path
from tuning.prompt import Message, Passage, encode, render_messages, template_digest

Search = Callable[[AnswerRequest, Plan], SearchResult]
Describe = Callable[[Sequence[str]], dict[str, VersionName]]
Embed = Callable[[AnswerRequest, Plan], Sequence[float] | None]
StillVisible = Callable[[AnswerRequest, Sequence[str]], bool]

_QUOTE = "The assistant is not available at the moment. This passage may help: “{}” [1]"
_TEMPLATE_ROOM = 32


@dataclass(frozen=True, slots=True)
class Ports:
    """What the chain asks of the knowledge.

    Attributes:
        search: visible hits for a request under a plan.
        describe_versions: how versions are called, by their ids.
        embed: the question's vector, for caching by meaning.
        still_visible: whether the request may be answered from all these versions now.
    """

    search: Search
    describe_versions: Describe
    embed: Embed
    still_visible: StillVisible


@dataclass(frozen=True, slots=True)
class Bounds:
    """Tokens that all passages may take together, tokens of an answer, seconds of a generation."""

    context_tokens: int
    answer_tokens: int
    seconds: float = 300.0


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request with its passages and its prompt."""

    request: AnswerRequest
    plan: Plan
    context: PackedContext
    coverage: float | None
    sent: GenerationRequest
    identity: Mapping[str, Any]
    started: float
    retrieved: float


class AnswerChain(Runnable[AnswerRequest, AnswerResult]):
    """Everything between an admitted request and a finished answer. Holds no request state."""

    def __init__(
        self,
        *,
        generator: Generator,
        tokenizer: Any,
        ports: Ports,
        count_tokens: Callable[[str], int],
        bounds: Bounds,
        cache: AnswerCache | None = None,
    ) -> None:
        """Wire the chain.

        Args:
            generator: the text generator.
            tokenizer: Hugging Face tokenizer of the base model.
            ports: search and what else comes from the knowledge.
            count_tokens: counts the tokens of a passage.
            bounds: how long and how large an answer and its context may be.
            cache: generations that may be given again.
        """
        self._generator = generator
        self._tokenizer = tokenizer
        self._ports = ports
        self._count_tokens = count_tokens
        self._bounds = bounds
        self._cache = cache
        self._template = template_digest(tokenizer)

    @property
    def template(self) -> str:
        """Digest of the prompt template in use."""
        return self._template

    @property
    def engine_identity(self) -> dict[str, str]:
        """Engine, its version, the base's digest and file."""
        return self._generator.engine.identity

    def on(self, generator: Generator) -> AnswerChain:
        """The same chain before another engine."""
        other = copy.copy(self)
        other._generator = generator
        return other

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
        self,
        request: AnswerRequest,
        plan: Plan,
        *,
        stream: bool = True,
        progress: Progress | None = None,
    ) -> Iterator[str | AnswerResult]:
        """Pieces of text as they are generated, then the finished answer."""
        progress = progress or Progress()
        ready = self._prepare(request, plan)
        least = plan.options.abstain_below if request.with_threshold else None
        if least is not None and ready.coverage is not None and ready.coverage < least:
            silent = _said(plan.abstain_sentence)
            yield from self._whole(self._finish(ready, silent, made_by="threshold"), stream)
            return
        cached = self._cached(ready)
        if isinstance(cached, AnswerResult):
            yield from self._whole(cached, stream)
            return
        key = cached
        # Text that may still be withdrawn is not sent piece by piece.
        pieces = stream and not plan.options.must_ground and ready.sent.json_schema is None
        generation: Generation | None = None
        first_token: float | None = None
        progress.prompt_tokens = len(ready.sent.prompt_ids)
        for event in self._generator.run(
            ready.sent,
            stream=stream,
            timeout_s=plan.options.timeout_s or self._bounds.seconds,
            cancelled=progress.cancelled,
        ):
            if isinstance(event, Generation):
                generation = event
                continue
            first_token = first_token or time.perf_counter()
            progress.pieces += 1
            if pieces:
                yield event
        if generation is None:
            raise EngineError("the engine ended without a generation")
        # A server may have been replaced since the prompt was made: what it says now counts.
        made = {**ready.identity, **self.engine_identity}
        result = self._finish(replace(ready, identity=made), generation, first_token=first_token)
        result = replace(result, cache_key=key if made == ready.identity else None)
        yield from self._whole(result, stream and not pieces)

    def quote(self, request: AnswerRequest, plan: Plan) -> AnswerResult:
        """The best passage's best sentence without a model; the last step of a fallback chain.

        Raises:
            DependencyDown: Nothing was found either.
        """
        ready = self._prepare(request, replace(plan, arm="rag", adapter=None, adapter_id=None))
        if not ready.context.passages:
            raise DependencyDown("the assistant is not available, and no passage was found")
        passages = ready.context.passages[:1]
        best = ground(f"{request.question} [1]", request.question, passages, plan.abstain_sentence)
        said = _said(_QUOTE.format(best.quotes[0].text))
        only = replace(ready, context=PackedContext(passages, ready.context.dropped))
        return self._finish(only, said, made_by="passage")

    def retrieve(self, request: AnswerRequest, plan: Plan) -> tuple[Hit, ...]:
        """The hits that would be packed, best first."""
        return self._ports.search(request, plan).hits

    def generate(self, sent: GenerationRequest) -> Generation:
        """The whole text of a request made by `prompt`, as a replay asks for it."""
        (generation,) = self._generator.run(
            sent, stream=False, timeout_s=self._bounds.seconds, cancelled=Cancellation()
        )
        if not isinstance(generation, Generation):
            raise EngineError("the engine ended without a generation")
        return generation

    def prompt(
        self, request: AnswerRequest, plan: Plan, passages: Sequence[Passage]
    ) -> GenerationRequest:
        """What the engine is sent for these passages; the oldest exchanges go if they must."""
        most = min(
            plan.options.max_answer_tokens or self._bounds.answer_tokens, self._bounds.answer_tokens
        )
        schema = request.json_schema or plan.options.json_schema
        room = self._generator.engine.context_tokens - _TEMPLATE_ROOM
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
                break
            history = history[2:]  # the oldest exchange goes first
        return GenerationRequest(
            prompt_ids=ids,
            max_tokens=min(request.max_tokens or most, most),
            adapter=plan.adapter,
            temperature=request.temperature,
            top_p=request.top_p,
            seed=request.seed,
            stop=request.stop,
            json_schema=schema,
            messages=_as_messages(messages),
            cache_salt=request.workspace_id,
        )

    def close(self) -> None:
        """Take no more work."""
        self._generator.close()

    def _prepare(self, request: AnswerRequest, plan: Plan) -> Prepared:
        if not request.question.strip():
            raise BadInput("the question is empty")
        started = time.perf_counter()
        context, coverage = self._retrieve(request, plan)
        retrieved = time.perf_counter()
        passages = [
            Passage(context_path(p.hit.title, p.hit.heading_path), p.hit.text)
            for p in context.passages
        ]
        sent = self.prompt(request, plan, passages)
        identity = identity_of(
            request,
            plan,
            context.passages,
            sent,
            self.engine_identity,
            self._template,
            self._bounds.context_tokens,
        )
        return Prepared(request, plan, context, coverage, sent, identity, started, retrieved)

    def _retrieve(self, request: AnswerRequest, plan: Plan) -> tuple[PackedContext, float | None]:
        if not plan.with_context:
            return PackedContext((), ()), None
        found = self._ports.search(request, plan)
        return pack(found.hits, self._bounds.context_tokens, self._count_tokens), found.coverage

    def _cached(self, ready: Prepared) -> Any:
        """A finished answer from the cache, else the key to keep a new one under (or None)."""
        mode = ready.plan.options.cache
        if self._cache is None or mode == "off" or ready.sent.temperature > 0:
            return None
        request, plan = ready.request, ready.plan
        vector = self._ports.embed(request, plan) if mode == "semantic" else None
        key = cache_key(request, plan, ready.identity, ready.context.passages, vector)
        hit = self._cache.find(key)
        if hit is None:
            return key
        if not self._ports.still_visible(request, key.versions):
            self._cache.found_stale()  # ended between the search and now
            return None
        return replace(self._finish(ready, hit.generation), cached_from=hit.answer_id)

    @staticmethod
    def _whole(result: AnswerResult, stream: bool) -> Iterator[str | AnswerResult]:
        if stream:
            yield result.text
        yield result

    def _finish(
        self,
        ready: Prepared,
        generation: Generation,
        *,
        made_by: str = "engine",
        first_token: float | None = None,
    ) -> AnswerResult:
        request, plan, passages = ready.request, ready.plan, ready.context.passages
        checked = self._check(ready, generation, made_by)
        identity = {**ready.identity, "made_by": made_by}
        timings = {
            "retrieve_s": ready.retrieved - ready.started,
            "prefill_s": generation.prefill_s,
            "decode_s": generation.decode_s,
            "total_s": time.perf_counter() - ready.started,
        }
        if first_token is not None:
            timings["first_token_s"] = first_token - ready.started
        return AnswerResult(
            id=new_id(),
            use_case=plan.use_case,
            arm=plan.arm,
            question=request.question,
            text=checked.text,
            abstained=checked.abstained,
            grounded=checked.grounded,
            citations=self._citations(checked),
            passages=passages,
            finish_reason=generation.finish_reason,
            prompt_tokens=generation.prompt_tokens,
            completion_tokens=generation.completion_tokens,
            timings={name: round(value, 4) for name, value in timings.items()},
            identity=identity,
            identity_sha256=sha256_json(identity),
            adapter_id=plan.adapter_id,
            unsupported=checked.unsupported,
            coverage=ready.coverage,
            raw_text=generation.text,
            made_by=made_by,
        )

    def _check(self, ready: Prepared, generation: Generation, made_by: str) -> Grounding:
        plan, passages = ready.plan, ready.context.passages
        question = ready.request.question
        schema = ready.sent.json_schema
        if schema is not None and made_by == "engine":
            require_fit(generation, schema)
            checked = ground_data(generation.text, question, passages, schema)
        else:
            mend = plan.options.correct_citations
            checked = ground(generation.text, question, passages, plan.abstain_sentence, mend=mend)
        if plan.options.must_ground and checked.grounded is False and made_by == "engine":
            return Grounding(plan.abstain_sentence, True, (), None, checked.unsupported)
        return checked

    def _citations(self, checked: Grounding) -> tuple[Citation, ...]:
        versions = self._ports.describe_versions([q.passage.hit.version_id for q in checked.quotes])
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
                    attached_at=quote.attached,
                    corrected_from=quote.instead_of,
                )
            )
        return tuple(citations)


def _said(text: str) -> Generation:
    """A text that no engine made."""
    return Generation(text, "stop", 0, 0, 0.0, 0.0)


def _as_messages(messages: Sequence[Message]) -> tuple[dict[str, str], ...]:
    return tuple({"role": turn["role"], "content": turn["content"]} for turn in messages)
