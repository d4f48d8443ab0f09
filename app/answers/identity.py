"""What determines an answer, and the keys made of it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from app.answers.cache import CacheKey, make_key
from app.answers.types import AnswerRequest, Plan
from app.engines.types import GenerationRequest
from retrieval.context import Passage


def sha256_json(data: Any) -> str:
    """SHA-256 of JSON in one canonical form."""
    canonical = json.dumps(data, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def prompt_sha256(ids: Sequence[int]) -> str:
    """SHA-256 of a prompt's token ids."""
    return hashlib.sha256(",".join(map(str, ids)).encode()).hexdigest()


def identity_of(
    request: AnswerRequest,
    plan: Plan,
    passages: Sequence[Passage],
    sent: GenerationRequest,
    engine: Mapping[str, str],
    template: str,
    budget: int,
) -> dict[str, Any]:
    """Everything that determines the text; equal identities, equal answers."""
    return {
        **engine,
        "adapter": plan.adapter.digest if plan.adapter else None,
        "template": template,
        "prompt_sha256": prompt_sha256(sent.prompt_ids),
        "arm": plan.arm,
        "as_of": request.as_of.isoformat() if request.as_of else None,
        "chunks": [p.hit.chunk_id for p in passages],
        "versions": sorted({p.hit.version_id for p in passages}),
        "context_budget_tokens": budget if plan.with_context else 0,
        "abstain_below": plan.options.abstain_below if plan.with_context else None,
        "decoding": {
            "max_tokens": sent.max_tokens,
            "temperature": sent.temperature,
            "top_p": sent.top_p,
            "seed": sent.seed,
            "stop": list(sent.stop),
            "json_schema_sha256": sent.json_schema and sha256_json(sent.json_schema),
        },
    }


def cache_key(
    request: AnswerRequest,
    plan: Plan,
    identity: Mapping[str, Any],
    passages: Sequence[Passage],
    vector: Sequence[float] | None,
) -> CacheKey:
    """Under which the generation may be given again."""
    base = CacheKey(
        workspace_id=request.workspace_id,
        use_case_id=plan.use_case_id,
        key_sha256="",
        scope_sha256="",
        question=request.question,
        passages=tuple(passage.text for passage in passages),
        versions=tuple(identity["versions"]),
        seconds=plan.options.cache_seconds,
        similarity=plan.options.cache_similarity,
        vector=None if vector is None else tuple(vector),
    )
    return make_key(
        identity=identity,
        outside={
            "workspace": request.workspace_id,
            "use_case": plan.use_case_id,
            "groups": None if request.groups is None else sorted(request.groups),
            "where": dict(request.where),
            "without": sorted(request.without_documents),
            "knowledge_bases": list(plan.knowledge_base_ids),
        },
        turns={
            "system": [plan.system_prompt, request.system],
            "history": [dict(turn) for turn in request.history],
            "abstain": plan.abstain_sentence,
        },
        base=base,
    )
