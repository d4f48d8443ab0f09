"""The files in the tree of a commit, read through `git` without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import Self

from app.errors import BadInput, DependencyDown, NotFound
from app.knowledge.sources.store import server_name, write_whole
from app.knowledge.sources.types import FoundDocument, GitSpec

MAX_FILE_BYTES = 50 * 1024 * 1024
_LFS_START = b"version https://git-lfs.github.com/spec/v1"
_COMMAND_S = 120.0
# The user's own configuration may name programs to run; a partial clone may fetch what it lacks.
_ENVIRONMENT = {
    "PATH": os.defpath,
    "LC_ALL": "C",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_ALLOW_PROTOCOL": "none",
}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of the tree: `mode` and `kind` as git gives them, `size` in bytes, -1 unknown."""

    mode: str
    kind: str
    object_id: str
    size: int
    name: str


def find_git(
    spec: GitSpec, into: Path, *, max_bytes: int = MAX_FILE_BYTES
) -> Iterator[FoundDocument]:
    """The files of a ref but hidden ones, each written to `into`; the external id is the path.

    Metadata: `commit` (its id) and `committed_at` (ISO). Links, submodules, LFS pointers, files
    over `max_bytes`, files a partial clone lacks and paths that cannot be told apart as text are
    problems.

    Raises:
        NotFound: No repository, or no such ref or folder in it.
        BadInput: A ref that is no name of a commit, or git refuses the repository.
        DependencyDown: No `git` on this machine.
    """
    repository = Path(spec.path)
    if not repository.is_dir():
        raise NotFound(f"{spec.path!r} does not exist: give a clone or a bare repository")
    if spec.ref.startswith("-"):
        raise BadInput(f"the git ref {spec.ref!r} is refused; give a branch, a tag or a commit")
    git = _git_program()
    metadata = _commit(git, repository, spec.ref)
    entries = _tree(git, repository, metadata["commit"], spec)
    seen: set[str] = set()
    with _Blobs(git, repository) as blobs:
        for entry in entries:
            problem = _refusal(entry, max_bytes, seen)
            seen.add(entry.name)
            content = b"" if problem else blobs.read(entry.object_id)
            if content.startswith(_LFS_START):
                problem = "is a Git LFS pointer, its content is not in the repository"
            if problem:
                problem = f"{entry.name!r} {problem}; it was skipped"
                yield FoundDocument(entry.name, entry.name, problem=problem)
                continue
            extension = PurePosixPath(entry.name).suffix
            safe = extension if extension.isascii() and extension[1:].isalnum() else ""
            path = into / server_name(f"git\x1f{entry.name}", safe)
            yield FoundDocument(
                entry.name, entry.name, write_whole(path, content, flush=False), metadata=metadata
            )


def _git_program() -> str:
    found = shutil.which("git")
    if found is None:
        raise DependencyDown("there is no `git` on this machine: install it to read repositories")
    return found


def _arguments(git: str, repository: Path, *rest: str) -> list[str]:
    # Absolute, so that a folder called `-c` is no option.
    return [git, "--no-pager", "-C", str(repository.absolute()), *rest]


def _output(git: str, repository: Path, *rest: str) -> bytes:
    try:
        done = subprocess.run(
            _arguments(git, repository, *rest),
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_COMMAND_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise BadInput(f"git took over {_COMMAND_S:.0f} s on {str(repository)!r}") from error
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no reason given"]
        raise BadInput(f"git cannot read {str(repository)!r}: {said[0]}")
    return done.stdout


def _commit(git: str, repository: Path, ref: str) -> dict[str, str]:
    _output(git, repository, "rev-parse", "--git-dir")
    wanted = ("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
    try:
        commit = _output(git, repository, *wanted).decode("ascii").strip()
    except BadInput as error:
        raise NotFound(
            f"{str(repository)!r} has no commit {ref!r}: give a branch, a tag or a commit"
        ) from error
    date = _output(git, repository, "show", "-s", "--format=%cI", "--no-show-signature", commit)
    return {"commit": commit, "committed_at": date.decode("ascii").strip()}


def _tree(git: str, repository: Path, commit: str, spec: GitSpec) -> list[_Entry]:
    listed = _output(git, repository, "ls-tree", "-r", "-z", "-l", "--full-tree", commit)
    inside = spec.subdir.strip("/")
    entries = []
    for line in filter(None, listed.split(b"\x00")):
        facts, _, raw_name = line.partition(b"\t")
        mode, kind, object_id, size = facts.decode("ascii").split()
        name = raw_name.decode("utf-8", "replace")
        below = not inside or name == inside or name.startswith(f"{inside}/")
        if below and not any(part.startswith(".") for part in name.split("/")):
            # No number: "-" for what has no content, "BAD" for content that is not here.
            n_bytes = int(size) if size.isdigit() else -1
            entries.append(_Entry(mode, kind, object_id, n_bytes, name))
    if inside and not entries:
        raise NotFound(f"{spec.ref!r} of {spec.path!r} has no files under {inside!r}")
    return entries


def _refusal(entry: _Entry, max_bytes: int, seen: set[str]) -> str:
    if entry.kind != "blob":
        return "is a submodule"
    if entry.mode == "120000":
        return "is a symbolic link"
    if entry.size < 0:
        return "is not in the repository, which is a partial clone or damaged"
    if entry.size > max_bytes:
        return f"has {entry.size} bytes, the limit is {max_bytes}"
    return "has a name that is the same as another's when read as UTF-8" * (entry.name in seen)


class _Blobs:
    """One `git cat-file --batch`, asked for one object after the other."""

    def __init__(self, git: str, repository: Path) -> None:
        self._command = _arguments(git, repository, "cat-file", "--batch")

    def __enter__(self) -> Self:
        environment: Mapping[str, str] = _ENVIRONMENT
        self._process = subprocess.Popen(
            self._command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()

    def read(self, object_id: str) -> bytes:
        """The content of a blob.

        Raises:
            BadInput: The repository does not hold it (a partial or damaged clone).
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{object_id}\n".encode())
            self._process.stdin.flush()
            header = self._process.stdout.readline().split()
        except BrokenPipeError:
            header = []
        if len(header) != 3:
            raise BadInput(
                f"the repository does not hold the object {object_id}: it is damaged or partial"
            )
        size = int(header[2])
        content = self._process.stdout.read(size + 1)
        if len(content) != size + 1:
            raise BadInput(f"git ended in the middle of the object {object_id}")
        return content[:size]
