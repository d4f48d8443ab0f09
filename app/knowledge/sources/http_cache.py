"""What was fetched before, with the validators by which a server can answer "unchanged"."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from app.knowledge.sources.store import flush_folder, server_name, write_whole


@dataclass(frozen=True, slots=True)
class CachedPage:
    """A page as it was; `body_sha256` ties the notes to the file."""

    url: str
    content_type: str
    etag: str
    last_modified: str
    body_sha256: str


class HttpCache:
    """Pages by address in one folder. Damaged entries count as absent."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def find(self, url: str) -> CachedPage | None:
        """The notes on a page, if its body is there and whole."""
        try:
            row = json.loads(self._notes(url).read_text("utf-8"))
            page = CachedPage(**row)
            with self.body(url).open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
        except (OSError, ValueError, TypeError):
            return None
        return page if page.url == url and page.body_sha256 == digest else None

    def keep(self, url: str, content_type: str, etag: str, modified: str, body: bytes) -> None:
        """Remember a page; body first, so that notes never speak of another body."""
        write_whole(self.body(url), body)
        digest = hashlib.sha256(body).hexdigest()
        page = CachedPage(url, content_type, etag, modified, digest)
        write_whole(self._notes(url), json.dumps(asdict(page)).encode())
        flush_folder(self._folder)

    def body(self, url: str) -> Path:
        """Where the page's bytes lie."""
        return self._folder / server_name(url, ".body")

    def _notes(self, url: str) -> Path:
        return self._folder / server_name(url, ".json")
