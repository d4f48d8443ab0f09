"""The one filter of every Qdrant call: the scope, and what narrows it further."""

from types import ModuleType
from typing import Any

from retrieval.index import NO_NARROWING, TENANT_FIELD, Narrowing
from retrieval.types import Scope


def scope_filter(
    models: ModuleType,
    scope: Scope,
    *,
    field: tuple[str, str] | None = None,
    narrowing: Narrowing = NO_NARROWING,
) -> Any:
    """A filter of the given Qdrant package; one without the scope cannot be made.

    Args:
        models: `qdrant_edge` or `qdrant_client.models`, which name the same things alike.
        scope: workspace and knowledge base, both always asked for.
        field: a payload field and the value it must have besides.
        narrowing: documents and versions to keep to or to leave out.
    """
    wanted = [
        (TENANT_FIELD, str(scope.workspace_id)),
        ("knowledge_base_id", scope.knowledge_base_id),
    ]
    if field is not None:
        wanted.append(field)
    must: list[Any] = [
        models.FieldCondition(key=key, match=models.MatchValue(value=value))
        for key, value in wanted
    ]
    if narrowing.only_documents is not None:
        only = models.MatchAny(any=sorted(narrowing.only_documents))
        must.append(models.FieldCondition(key="document_id", match=only))
    must_not: list[Any] = [
        models.FieldCondition(key=key, match=models.MatchAny(any=sorted(values)))
        for key, values in (
            ("document_id", narrowing.without_documents),
            ("version_id", narrowing.without_versions),
        )
        if values
    ]
    return models.Filter(must=must, must_not=must_not or None)
