"""Where documents come from: files, web pages, sitemaps, git repositories, records.

Every source ends as local files under lasting names, so that ingestion parses files only.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from app.errors import BadInput
from app.knowledge.sources.addresses import AddressRules
from app.knowledge.sources.fetching import Fetcher, WebRules
from app.knowledge.sources.files import find_files
from app.knowledge.sources.git import find_git
from app.knowledge.sources.records import MAX_ID_CHARS, find_records
from app.knowledge.sources.specs import KINDS, parse_spec, reads_this_machine, spec_as_dict
from app.knowledge.sources.store import flush_folder
from app.knowledge.sources.types import (
    FilesSpec,
    FoundDocument,
    GitSpec,
    RecordsSpec,
    SitemapSpec,
    SourceSpec,
    UrlSpec,
)
from app.knowledge.sources.urls import find_pages, find_sitemap

__all__ = [
    "KINDS",
    "AddressRules",
    "Fetcher",
    "FilesSpec",
    "FoundDocument",
    "GitSpec",
    "RecordsSpec",
    "SitemapSpec",
    "SourceSpec",
    "UrlSpec",
    "WebRules",
    "collect",
    "is_complete",
    "parse_spec",
    "reads_this_machine",
    "spec_as_dict",
]


def collect(
    specs: Sequence[SourceSpec], into: Path, *, fetcher: Fetcher | None = None
) -> list[FoundDocument]:
    """Everything the sources hold, as local files; repeating it writes the same names again.

    What is fetched or unpacked is written to `into`, whole and on disk when this returns; `files`
    are read where they lie. `fetcher` carries the operator's rules for the web and its memory of
    pages; without one, public addresses on ports 80 and 443 are fetched and nothing is remembered.

    Raises:
        NotFound: A path, repository, ref or folder that does not exist.
        BadInput: Two documents that would share an external id, or a repository git refuses.
        DependencyDown: A git source and no `git` on this machine.
    """
    into.mkdir(parents=True, exist_ok=True)
    documents: dict[str, FoundDocument] = {}
    pages: set[str] = set()
    problems: list[FoundDocument] = []
    with contextlib.ExitStack() as stack:
        for spec in specs:
            web = isinstance(spec, UrlSpec | SitemapSpec)
            if web and fetcher is None:
                fetcher = stack.enter_context(Fetcher())
            for found in map(_fitting, _find(spec, into, fetcher)):
                name = found.external_id
                before = documents.get(name)
                if before is None:
                    documents[name] = found
                    pages |= {name} if web else set()
                elif web and name in pages:
                    # Two crawls met: the page that was read counts.
                    documents[name] = before if before.path else found
                elif found.path or found.deleted:
                    raise BadInput(f"two sources are called {name!r}: give one of them")
                else:
                    problems.append(found)
    flush_folder(into)
    return [*documents.values(), *problems]


def is_complete(found: Sequence[FoundDocument]) -> bool:
    """Whether a document that is missing from the list is really gone from its source."""
    return not any(document.incomplete for document in found)


def _find(spec: SourceSpec, into: Path, fetcher: Fetcher | None) -> Iterator[FoundDocument]:
    match spec:
        case FilesSpec():
            return find_files(spec)
        case RecordsSpec():
            return find_records(spec, into)
        case GitSpec():
            return find_git(spec, into)
    assert fetcher is not None
    if isinstance(spec, UrlSpec):
        return find_pages(spec, into, fetcher)
    return find_sitemap(spec, into, fetcher)


def _fitting(found: FoundDocument) -> FoundDocument:
    """The document, or a problem where its name is longer than names may be."""
    if len(found.external_id) <= MAX_ID_CHARS:
        return found
    name = found.external_id[: MAX_ID_CHARS - 1] + "…"
    problem = found.problem or f"{name!r} is over {MAX_ID_CHARS} characters long; it was skipped"
    return replace(found, external_id=name, path=None, deleted=False, problem=problem)
