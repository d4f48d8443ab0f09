"""Files and folders of this machine. They are read where they lie."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from app.errors import NotFound
from app.knowledge.sources.types import FilesSpec, FoundDocument


def find_files(spec: FilesSpec) -> Iterator[FoundDocument]:
    """The file, or every file under the folder but hidden ones, in the order of their names.

    The external id is the path inside the folder. Links that leave the folder, broken links and
    what is no regular file are problems; linked folders inside it are found under their own name.

    Raises:
        NotFound: The path does not exist.
    """
    root = Path(spec.path)
    if root.is_file():
        name = readable(root.name)
        yield FoundDocument(name, name, root.absolute(), named=True)
    elif root.is_dir():
        yield from sorted(_under(root.resolve()), key=lambda found: found.external_id)
    else:
        raise NotFound(f"{spec.path!r} does not exist: give a file or a folder")


def readable(name: str) -> str:
    """A file name as text; bytes of it that are not UTF-8 become replacement characters."""
    return os.fsencode(name).decode("utf-8", "replace")


def _under(root: Path) -> Iterator[FoundDocument]:
    unreadable: list[OSError] = []
    for folder, folders, files in os.walk(root, onerror=unreadable.append):
        here = Path(folder)
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if (here / name).is_symlink()]
        for name in links:
            target = (here / name).resolve()
            if not target.is_relative_to(root):
                yield _problem(root, here / name, "is a link that leaves the folder")
        for name in files:
            if not name.startswith("."):
                yield _file(root, here / name)
    for error in unreadable:
        yield _problem(root, Path(error.filename), f"cannot be read: {error.strerror}", True)


def _file(root: Path, path: Path) -> FoundDocument:
    if path.is_symlink():
        try:
            target = path.resolve(strict=True)
        except (OSError, RuntimeError):
            return _problem(root, path, "is a broken link")
        if not target.is_relative_to(root):
            return _problem(root, path, "is a link that leaves the folder")
    if not path.is_file():
        return _problem(root, path, "is no regular file")
    name = readable(path.relative_to(root).as_posix())
    return FoundDocument(name, name, path)


def _problem(root: Path, path: Path, what: str, incomplete: bool = False) -> FoundDocument:
    name = readable(path.relative_to(root).as_posix())
    problem = f"{name!r} {what}; it was skipped"
    return FoundDocument(name, name, problem=problem, incomplete=incomplete)
