"""The caller's side of the parse worker: a reusable process that a hostile file may kill.

It is restarted after a crash, a timeout, or enough files; a file costs a bounded amount.
"""

import atexit
import contextlib
import json
import os
import selectors
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from retrieval.errors import EmptyDocument, ParseFailed, ParseLimit
from retrieval.parsing.wire import LENGTH_BYTES, decode_document, decode_error
from retrieval.types import ParsedDocument


@dataclass(frozen=True, slots=True)
class ParseLimits:
    """What one file may cost. `recycle_after` files a fresh process takes over."""

    max_bytes: int = 50 * 1024 * 1024
    memory_bytes: int = 1024 * 1024 * 1024
    cpu_s: int = 60
    wall_s: float = 90.0
    recycle_after: int = 200


class ParseWorker:
    """One worker process, used by one caller at a time (thread-safe by a lock)."""

    def __init__(self, limits: ParseLimits | None = None) -> None:
        self.limits = limits or ParseLimits()
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._served = 0

    def parse(self, path: str | Path, *, name: str | None = None) -> ParsedDocument:
        """Parse the file at `path`, called `name` in format detection and messages.

        Raises:
            DocumentError: the file is bad, too large, or crashed or outlasted the worker.
            FileNotFoundError: there is no such file.
        """
        path = Path(path)
        name = name or path.name
        size = path.stat().st_size
        if size > self.limits.max_bytes:
            raise ParseLimit(f"{name} has {size} bytes; the limit is {self.limits.max_bytes}")
        if size == 0:
            raise EmptyDocument(f"{name} is empty (0 bytes); nothing was indexed")
        with self._lock:
            answer = self._ask(str(path.resolve()), name)
        if "error" in answer:
            raise decode_error(answer)
        return decode_document(answer)

    def close(self) -> None:
        """End the worker process; the next parse starts a new one."""
        with self._lock:
            self._stop()

    def __enter__(self) -> "ParseWorker":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _ask(self, path: str, name: str) -> dict[str, Any]:
        if self._served >= self.limits.recycle_after:
            self._stop()
        process = self._process or self._start()
        self._served += 1
        request = json.dumps({"path": path, "name": name, "cpu_s": self.limits.cpu_s})
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(request.encode() + b"\n")
            process.stdin.flush()
            deadline = time.monotonic() + self.limits.wall_s
            length = int.from_bytes(_read(process.stdout, LENGTH_BYTES, deadline), "big")
            answer: dict[str, Any] = json.loads(_read(process.stdout, length, deadline))
        except TimeoutError as error:
            self._stop()
            raise ParseLimit(
                f"{name} took longer than {self.limits.wall_s:g} s to parse"
            ) from error
        except (EOFError, BrokenPipeError) as error:
            code = self._stop()
            # SIGXCPU: the CPU limit. Anything else is a crash inside a parser library.
            if code == -24:
                raise ParseLimit(
                    f"{name} took more than {self.limits.cpu_s} s of CPU time to parse"
                ) from error
            raise ParseFailed(
                f"{name} crashed its parser (exit code {code}); the file is damaged or hostile"
            ) from error
        return answer

    def _start(self) -> subprocess.Popen[bytes]:
        root = str(Path(__file__).resolve().parents[2])
        inherited = {k: v for k, v in os.environ.items() if k in ("PATH", "LD_LIBRARY_PATH")}
        python_path = os.pathsep.join([root, *(p for p in sys.path if p)])
        self._process = subprocess.Popen(
            [sys.executable, "-m", "retrieval.parsing.worker", str(self.limits.memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # No secrets from the environment reach the process that reads hostile files.
            env={**inherited, "PYTHONPATH": python_path, "OPENBLAS_NUM_THREADS": "1"},
        )
        self._served = 0
        return self._process

    def _stop(self) -> int | None:
        process, self._process = self._process, None
        if process is None:
            return None
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close()
        try:
            code = process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        if process.stdout is not None:
            process.stdout.close()
        return code


def _read(stream: IO[bytes], n_bytes: int, deadline: float) -> bytes:
    """Exactly `n_bytes` from an unbuffered view of `stream` before `deadline`."""
    parts, missing = [], n_bytes
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while missing:
            remaining = deadline - time.monotonic()
            if remaining <= 0 or not selector.select(remaining):
                raise TimeoutError
            part = os.read(stream.fileno(), min(missing, 1 << 20))
            if not part:
                raise EOFError
            parts.append(part)
            missing -= len(part)
    return b"".join(parts)


_workers: dict[ParseLimits, ParseWorker] = {}
_workers_lock = threading.Lock()


def parse_file(
    path: str | Path, limits: ParseLimits | None = None, *, name: str | None = None
) -> ParsedDocument:
    """Parse a file in a shared worker process; see `ParseWorker.parse`."""
    limits = limits or ParseLimits()
    with _workers_lock:
        if not _workers:
            atexit.register(_close_workers)
        worker = _workers.setdefault(limits, ParseWorker(limits))
    return worker.parse(path, name=name)


def _close_workers() -> None:
    with _workers_lock:
        for worker in _workers.values():
            worker.close()
        _workers.clear()
