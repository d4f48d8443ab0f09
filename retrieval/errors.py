"""Errors of the retrieval package: one base class, one subclass per thing that can go wrong.

Every message is one sentence that names the file or value and the valid choices.
"""


class RetrievalError(Exception):
    """Base of every error this package raises on purpose."""


class DocumentError(RetrievalError):
    """A document could not be turned into text."""


class UnsupportedFormat(DocumentError):
    """The file's extension or content is of no supported type."""


class EmptyDocument(DocumentError):
    """The file holds no text: zero bytes, only blanks, or a scan without a text layer."""


class BrokenEncoding(DocumentError):
    """The bytes of a text file are in no encoding that can be told with confidence."""


class ParseFailed(DocumentError):
    """The file is damaged, encrypted or otherwise unreadable for its parser."""


class ParseLimit(DocumentError):
    """The file was too large, or parsing it used more time or memory than allowed."""


class EmbeddingError(RetrievalError):
    """The embedding or reranking model is missing or cannot be loaded."""


class VectorIndexError(RetrievalError):
    """The vector index refused an operation."""


class IndexUnreadable(VectorIndexError):
    """The stored vectors are damaged or were built by another model; rebuild them from SQL."""


class IndexBusy(VectorIndexError):
    """Another process holds the embedded index."""
