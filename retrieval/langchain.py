"""Tandem's search as a LangChain retriever, so that LangChain apps and tracing take it as it is."""

import asyncio
from collections.abc import Callable

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever

from retrieval.types import Hit


class TandemRetriever(BaseRetriever):
    """A `BaseRetriever` around a scoped search.

    `search` takes a question and a limit; whoever builds the retriever binds scope and visibility
    into it, so no LangChain code can widen them.
    """

    search: Callable[[str, int], list[Hit]]
    limit: int = 5

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun
    ) -> list[Document]:
        return [to_langchain_document(hit) for hit in self.search(query, self.limit)]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun
    ) -> list[Document]:
        hits = await asyncio.to_thread(self.search, query, self.limit)
        return [to_langchain_document(hit) for hit in hits]


def to_langchain_document(hit: Hit) -> Document:
    """A hit as a LangChain `Document`: its text, everything else as metadata."""
    return Document(
        id=hit.chunk_id,
        page_content=hit.text,
        metadata={
            "chunk_id": hit.chunk_id,
            "document_id": hit.document_id,
            "version_id": hit.version_id,
            "title": hit.title,
            "heading_path": list(hit.heading_path),
            "page_start": hit.page_start,
            "page_end": hit.page_end,
            "start_char": hit.start_char,
            "end_char": hit.end_char,
            "score": hit.score,
            "dense_score": hit.dense_score,
        },
    )
