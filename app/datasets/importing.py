"""Examples from files into the database, each with where it came from and the right to use it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.db.tables import Example, UseCase
from app.errors import BadInput
from app.feedback.service import example_digest
from app.workspaces.policy import Principal
from tuning.examples import Example as ParsedExample
from tuning.examples import load_examples
from tuning.prompt import DEFAULT_ABSTAIN

# internal: written by staff for this purpose; customer: from customers who agreed to it;
# public: published; synthetic, distilled: made by a program or a model; none: no right, refused.
CONSENTS = ("internal", "customer", "public", "synthetic", "distilled", "none")
_KINDS = ("grounded", "style", "abstain")


@dataclass(frozen=True, slots=True)
class _File:
    name: str
    source_type: str
    consent: str


def import_examples(
    session: Session,
    principal: Principal,
    use_case: UseCase,
    path: Path,
    *,
    consent: str | None = None,
) -> dict[str, Any]:
    """Take examples from a file; the importer is their second pair of eyes.

    Args:
        session: An open session.
        principal: Who imports, and so approves.
        use_case: What the examples are for.
        path: JSONL, CSV, TSV, chat log (JSON) or FAQ page (Markdown, HTML).
        consent: Right to train on rows that do not say it themselves. A chat log needs one,
            since customers wrote half of it.

    Returns:
        Counts by kind, and each refused line with its reason.

    Raises:
        BadInput: If the consent is unknown, or a chat log comes without.
    """
    if consent is not None and consent not in CONSENTS:
        raise BadInput(f"consent {consent!r} is unknown: choose {', '.join(CONSENTS)}")
    loaded = load_examples(path)
    if loaded.source_type == "chat" and consent is None:
        raise BadInput(
            f"{path.name} is a chat log, and customers wrote in it: say with --consent which right "
            f"there is to train on it ({', '.join(CONSENTS)})"
        )
    file = _File(path.name, loaded.source_type, consent or "internal")
    refused = [{"line": r.line, "reason": r.reason} for r in loaded.refusals]
    known = set(
        session.scalars(sa.select(Example.content_sha256).where(Example.use_case_id == use_case.id))
    )
    kinds: dict[str, int] = {}
    duplicates = 0
    for parsed in loaded.examples:
        example = _example(principal, use_case, parsed, file)
        reason = _refusal(example, parsed, principal)
        if reason:
            refused.append({"line": 0, "reason": f"example {parsed.id!r}: {reason}"})
        elif example.content_sha256 in known:
            duplicates += 1
        else:
            known.add(example.content_sha256)
            session.add(example)
            kinds[example.kind] = kinds.get(example.kind, 0) + 1
    session.flush()
    return {
        "added": sum(kinds.values()),
        "kinds": kinds,
        "known_already": duplicates,
        "refused": refused,
        "source_type": file.source_type,
    }


def _refusal(example: Example, parsed: ParsedExample, principal: Principal) -> str | None:
    if parsed.metadata.get("approved") is False:
        return "a person must approve it first (its line says approved: false)"
    if example.author == principal.name:
        return f"{example.author!r} wrote it: somebody else must import it"
    if example.consent not in CONSENTS:
        return f"consent {example.consent!r} is unknown: choose {', '.join(CONSENTS)}"
    if example.consent == "none":
        return "nobody agreed to training on it (consent 'none')"
    return None


def _example(
    principal: Principal, use_case: UseCase, parsed: ParsedExample, file: _File
) -> Example:
    metadata = parsed.metadata
    sources = _names(metadata.get("sources"))
    kind = metadata.get("kind")
    if kind not in _KINDS:
        abstains = parsed.answer.startswith(DEFAULT_ABSTAIN.rstrip("."))
        kind = "abstain" if abstains else "grounded" if sources else "style"
    conversation = metadata.get("conversation")
    history = [dict(turn) for turn in parsed.history]
    return Example(
        workspace_id=principal.workspace_id,
        use_case_id=use_case.id,
        kind=kind,
        question=parsed.question,
        answer=parsed.answer,
        sources=sources,
        gold_text=metadata.get("gold_text"),
        gold=[],
        author=str(metadata.get("author") or f"file {file.name}")[:100],
        reviewer=principal.name,
        origin=f"{file.name}: {parsed.id}"[:200],
        content_sha256=example_digest(
            parsed.question, parsed.answer, [turn["content"] for turn in parsed.history]
        ),
        source_type=file.source_type,
        consent=str(metadata.get("consent") or file.consent),
        document_versions=_names(metadata.get("document_versions")),
        conversation=f"{file.name}: {conversation}"[:200] if conversation is not None else None,
        history=history,
    )


def _names(given: Any) -> list[str]:
    """A list of names; one name alone must not be read as its letters."""
    return [str(name) for name in (given if isinstance(given, list) else [given] if given else [])]
