"""A typed client of a Tandem service: `tandem.client`, and `tandem.langchain` for LangChain."""

from tandem.client import Answer, AsyncTandem, Citation, Hit, Tandem, TandemError

__all__ = ["Answer", "AsyncTandem", "Citation", "Hit", "Tandem", "TandemError"]
