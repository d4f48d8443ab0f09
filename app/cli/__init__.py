"""The `tandem` command: the same services as HTTP, with or without a running server."""

from app.cli.main import main

__all__ = ["main"]
