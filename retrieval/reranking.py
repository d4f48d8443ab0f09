"""Optional second stage: a cross-encoder reads question and passage together."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from retrieval.errors import EmbeddingError
from retrieval.types import Hit


class Reranker(Protocol):
    """Puts hits in a better order."""

    def rerank(self, question: str, hits: Sequence[Hit]) -> list[Hit]:
        """The same hits with new scores, best first; ties by chunk id."""


class CrossEncoderReranker:
    """A sentence-transformers cross-encoder by name or path."""

    def __init__(
        self,
        name_or_path: str | Path,
        *,
        device: str = "cpu",
        batch_size: int = 16,
        allow_download: bool = False,
    ) -> None:
        """Load the model.

        Raises:
            EmbeddingError: the model is missing or cannot be loaded.
        """
        from sentence_transformers import CrossEncoder

        name = str(name_or_path)
        try:
            self._model = CrossEncoder(
                name,
                device=device,
                trust_remote_code=False,
                local_files_only=Path(name).is_dir() or not allow_download,
                model_kwargs={"use_safetensors": True},
            )
        except (OSError, ValueError, KeyError) as error:
            raise EmbeddingError(
                f"the reranking model {name} cannot be loaded "
                f"({str(error).splitlines()[0][:200]}); give a cross-encoder folder or unset it"
            ) from error
        self._batch_size = batch_size

    def rerank(self, question: str, hits: Sequence[Hit]) -> list[Hit]:
        """The same hits with the cross-encoder's scores, best first; ties by chunk id."""
        if not hits:
            return []
        pairs = [(question, "\n".join([*hit.heading_path, hit.text])) for hit in hits]
        scores = self._model.predict(
            pairs, batch_size=self._batch_size, show_progress_bar=False, convert_to_numpy=True
        )
        rescored = [
            replace(hit, score=float(score) if math.isfinite(score) else -math.inf)
            for hit, score in zip(hits, scores, strict=True)
        ]
        return sorted(rescored, key=lambda hit: (-hit.score, hit.chunk_id))
