# ruff: noqa: D102 - the methods are described once, at `ingest_measure.System`
# mypy: disable-error-code="import-not-found"
"""LangChain, LlamaIndex and Haystack ingesting what `benchmarks.ingest` ingests, and the floor.

Each runs in a process of its own, started by `benchmarks.ingest`. They are used as their
documentation shows, with qdrant-client's local mode on disk, MiniLM in float32 and one OpenBLAS
thread (their default costs them time): LangChain `index(cleanup="incremental")` with a SQL record
manager; LlamaIndex `IngestionPipeline` with a docstore and its UPSERTS strategy; Haystack
splitter, embedder and writer with OVERWRITE. Chunks: 200 tokens with 20 overlapping, in Haystack
150 words with 15 (its token splitter fetches files at run time). Their further modes for sources
that lose documents (LangChain `full`, LlamaIndex UPSERTS_AND_DELETE) are not run. Keep them out
of the service's environment:

    python3.11 -m venv PEERS && PEERS/bin/pip install torch sentence-transformers qdrant-client
    PEERS/bin/pip install langchain langchain-classic langchain-qdrant langchain-huggingface \
        langchain-text-splitters "httpx>=0.27"
    PEERS/bin/pip install llama-index-core llama-index-embeddings-huggingface \
        llama-index-vector-stores-qdrant "httpx>=0.27"
    PEERS/bin/pip install haystack-ai qdrant-haystack sentence-transformers-haystack "httpx>=0.27"
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.ingest_measure import Doc, K, corpus, measure, xquad_questions

for _name, _value in {
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_OFFLINE": "1",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LANGCHAIN_TRACING_V2": "false",
    "TQDM_DISABLE": "1",
}.items():
    os.environ.setdefault(_name, _value)

TOKENS, OVERLAP, DIMENSION = 200, 20, 384


class _Peer(ABC):
    """What the three share: their collection, read through qdrant-client itself."""

    source_key = "source"
    collection = "bench"
    client: Any

    @abstractmethod
    def __init__(self, work: Path, model: str) -> None:
        """Load the embedding model; keep everything under `work`."""

    @abstractmethod
    def ingest(self, docs: Sequence[Doc]) -> None:
        """Read documents the documented way; again for changed ones."""

    @abstractmethod
    def search(self, query: str, limit: int) -> list[tuple[str, str]]:
        """(document id, text) of the best chunks."""

    @abstractmethod
    def delete(self, doc_id: str) -> None:
        """Remove one document."""

    @abstractmethod
    def expected(self, doc: Doc) -> list[str]:
        """The texts a document is cut into."""

    @abstractmethod
    def _text(self, payload: dict[str, Any]) -> str:
        """A chunk's text from its payload."""

    def count(self) -> int:
        return int(self.client.count(self.collection).count)

    def chunks(self, doc_id: str) -> list[str]:
        from qdrant_client import models

        own = models.FieldCondition(key=self.source_key, match=models.MatchValue(value=doc_id))
        points, _ = self.client.scroll(
            self.collection, models.Filter(must=[own]), limit=10_000, with_payload=True
        )
        return [self._text(point.payload) for point in points]


class LangChain(_Peer):
    """`index()` with a record manager."""

    source_key = "metadata.source"

    def __init__(self, work: Path, model: str) -> None:
        from langchain_classic.indexes import SQLRecordManager
        from langchain_huggingface import HuggingFaceEmbeddings
        from langchain_qdrant import QdrantVectorStore
        from langchain_text_splitters import RecursiveCharacterTextSplitter
        from qdrant_client import QdrantClient, models
        from transformers import AutoTokenizer

        self.client = QdrantClient(path=str(work / "qdrant"))
        shape = models.VectorParams(size=DIMENSION, distance=models.Distance.COSINE)
        self.client.create_collection(self.collection, vectors_config=shape)
        embeddings = HuggingFaceEmbeddings(model_name=model, model_kwargs={"device": "cpu"})
        self.store = QdrantVectorStore(
            client=self.client, collection_name=self.collection, embedding=embeddings
        )
        self.records = SQLRecordManager("bench", db_url=f"sqlite:///{work / 'records.sqlite'}")
        self.records.create_schema()
        self.splitter = RecursiveCharacterTextSplitter.from_huggingface_tokenizer(
            AutoTokenizer.from_pretrained(model), chunk_size=TOKENS, chunk_overlap=OVERLAP
        )

    def _split(self, docs: Sequence[Doc]) -> list[Any]:
        from langchain_core.documents import Document

        whole = [Document(page_content=d.text, metadata={"source": d.id}) for d in docs]
        return list(self.splitter.split_documents(whole))

    def ingest(self, docs: Sequence[Doc]) -> None:
        from langchain_core.indexing import index

        parts = self._split(docs)
        index(parts, self.records, self.store, cleanup="incremental", source_id_key="source")

    def search(self, query: str, limit: int) -> list[tuple[str, str]]:
        hits = self.store.similarity_search(query, k=limit)
        return [(hit.metadata["source"], hit.page_content) for hit in hits]

    def delete(self, doc_id: str) -> None:
        self.store.delete(self.records.list_keys(group_ids=[doc_id]))

    def expected(self, doc: Doc) -> list[str]:
        return [part.page_content for part in self._split([doc])]

    def _text(self, payload: dict[str, Any]) -> str:
        return str(payload["page_content"])


class LlamaIndex(_Peer):
    """`IngestionPipeline` with a docstore."""

    def __init__(self, work: Path, model: str) -> None:
        from llama_index.core import VectorStoreIndex
        from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
        from llama_index.core.node_parser import SentenceSplitter
        from llama_index.core.storage.docstore import SimpleDocumentStore
        from llama_index.embeddings.huggingface import HuggingFaceEmbedding
        from llama_index.vector_stores.qdrant import QdrantVectorStore
        from qdrant_client import QdrantClient
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(model)
        self.folder = str(work / "pipeline")
        self.client = QdrantClient(path=str(work / "qdrant"))
        embedding = HuggingFaceEmbedding(model_name=model, device="cpu")
        store = QdrantVectorStore(collection_name=self.collection, client=self.client)
        self.splitter = SentenceSplitter(
            chunk_size=TOKENS,
            chunk_overlap=OVERLAP,
            tokenizer=lambda text: tokenizer.encode(text, add_special_tokens=False),
        )
        self.pipeline = IngestionPipeline(
            transformations=[self.splitter, embedding],
            vector_store=store,
            docstore=SimpleDocumentStore(),
            docstore_strategy=DocstoreStrategy.UPSERTS,
        )
        self.index = VectorStoreIndex.from_vector_store(store, embed_model=embedding)
        self.retriever = self.index.as_retriever(similarity_top_k=K)

    def _documents(self, docs: Sequence[Doc]) -> list[Any]:
        from llama_index.core import Document

        return [Document(text=d.text, id_=d.id, metadata={"source": d.id}) for d in docs]

    def ingest(self, docs: Sequence[Doc]) -> None:
        self.pipeline.run(documents=self._documents(docs))
        self.pipeline.persist(self.folder)

    def search(self, query: str, limit: int) -> list[tuple[str, str]]:
        hits = self.retriever.retrieve(query)[:limit]
        return [(hit.node.metadata["source"], hit.node.get_content()) for hit in hits]

    def delete(self, doc_id: str) -> None:
        self.index.delete_ref_doc(doc_id, delete_from_docstore=True)

    def expected(self, doc: Doc) -> list[str]:
        return [node.get_content() for node in self.splitter(self._documents([doc]))]

    def _text(self, payload: dict[str, Any]) -> str:
        return str(json.loads(payload["_node_content"])["text"] or payload.get("text", ""))


class Haystack(_Peer):
    """A pipeline of splitter, embedder and writer."""

    source_key = "meta.source"

    def __init__(self, work: Path, model: str) -> None:
        from haystack import Pipeline
        from haystack.components.preprocessors import DocumentSplitter
        from haystack.components.writers import DocumentWriter
        from haystack.document_stores.types import DuplicatePolicy
        from haystack.utils import ComponentDevice
        from haystack_integrations.components.embedders.sentence_transformers import (
            SentenceTransformersDocumentEmbedder as DocumentEmbedder,
        )
        from haystack_integrations.components.embedders.sentence_transformers import (
            SentenceTransformersTextEmbedder as TextEmbedder,
        )
        from haystack_integrations.components.retrievers.qdrant import QdrantEmbeddingRetriever
        from haystack_integrations.document_stores.qdrant import QdrantDocumentStore

        options = {
            "model": model, "device": ComponentDevice.from_str("cpu"), "progress_bar": False
        }  # fmt: skip
        self.store = QdrantDocumentStore(
            path=str(work / "qdrant"), index=self.collection, embedding_dim=DIMENSION
        )
        self.splitter = DocumentSplitter(split_by="word", split_length=150, split_overlap=15)
        self.pipeline, self.query = Pipeline(), Pipeline()
        writer = DocumentWriter(self.store, policy=DuplicatePolicy.OVERWRITE)
        self.pipeline.add_component("splitter", self.splitter)
        self.pipeline.add_component("embedder", DocumentEmbedder(**options))
        self.pipeline.add_component("writer", writer)
        self.pipeline.connect("splitter", "embedder")
        self.pipeline.connect("embedder", "writer")
        self.query.add_component("embedder", TextEmbedder(**options))
        self.query.add_component("retriever", QdrantEmbeddingRetriever(self.store, top_k=K))
        self.query.connect("embedder.embedding", "retriever.query_embedding")
        self.pipeline.warm_up()
        self.query.warm_up()
        self.store.count_documents()
        self.client = self.store._client

    def _documents(self, docs: Sequence[Doc]) -> list[Any]:
        from haystack import Document

        return [Document(content=d.text, meta={"source": d.id}) for d in docs]

    def ingest(self, docs: Sequence[Doc]) -> None:
        self.pipeline.run({"splitter": {"documents": self._documents(docs)}})

    def search(self, query: str, limit: int) -> list[tuple[str, str]]:
        hits = self.query.run({"embedder": {"text": query}})["retriever"]["documents"][:limit]
        return [(hit.meta["source"], hit.content) for hit in hits]

    def delete(self, doc_id: str) -> None:
        own = {"field": "meta.source", "operator": "==", "value": doc_id}
        self.store.delete_by_filter(own)

    def expected(self, doc: Doc) -> list[str]:
        return [p.content for p in self.splitter.run(self._documents([doc]))["documents"]]

    def _text(self, payload: dict[str, Any]) -> str:
        return str(payload["content"])


PEERS: dict[str, type[_Peer]] = {
    "langchain": LangChain, "llamaindex": LlamaIndex, "haystack": Haystack
}  # fmt: skip


def record_encoder() -> list[str]:
    """A list that gets every text sentence-transformers embeds from now on."""
    from sentence_transformers import SentenceTransformer

    texts: list[str] = []
    plain: Callable[..., Any] = SentenceTransformer.encode

    def encode(self: Any, sentences: Any, *args: Any, **kwargs: Any) -> Any:
        texts.extend([sentences] if isinstance(sentences, str) else sentences)
        return plain(self, sentences, *args, **kwargs)

    SentenceTransformer.encode = encode
    return texts


def floor(texts: list[str], model: str) -> dict[str, float]:
    """Seconds sentence-transformers needs to encode the texts and do nothing else."""
    import torch
    from sentence_transformers import SentenceTransformer

    seconds = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        encoder = SentenceTransformer(model, device="cpu", model_kwargs={"dtype": dtype})
        encoder.encode(["warm up"] * 32, show_progress_bar=False)
        start = time.perf_counter()
        encoder.encode(texts, show_progress_bar=False)
        seconds[name] = round(time.perf_counter() - start, 2)
    return seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("what", choices=(*PEERS, "floor"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--model", required=True)
    parser.add_argument("--documents", type=int, default=0)
    parser.add_argument("--texts", type=Path, help="JSON list of chunk texts, read or written")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    if options.what == "floor":
        print(json.dumps(floor(json.loads(options.texts.read_text("utf-8")), options.model)))
        return 0
    docs = corpus(options.data, options.documents)
    with tempfile.TemporaryDirectory() as work:
        try:
            system = PEERS[options.what](Path(work), options.model)
        except ImportError as error:
            print(json.dumps({"skipped": f"not installed here: {error}"}))
            return 0
        embedded = record_encoder()
        asked = xquad_questions(options.data, docs)
        result, texts = measure(system, docs, asked, embedded)
    options.texts.write_text(json.dumps(texts), "utf-8")
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
