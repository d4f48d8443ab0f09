"""The parse worker as a process: limits, crashes, reuse, and what it may not load."""

import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from retrieval.errors import EmptyDocument, ParseFailed, ParseLimit, UnsupportedFormat
from retrieval.parsing import ParseLimits, ParseWorker, parse_bytes, parse_file

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def worker():
    with ParseWorker() as made:
        yield made


def write(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return path


def test_worker_returns_what_parsing_in_process_returns(tmp_path, worker):
    data = "# Größe\n\n| a | b |\n|--|--|\n| 1 | 😀 |\n".encode()
    assert worker.parse(write(tmp_path, "a.md", data)) == parse_bytes(data, "a.md")


def test_given_name_decides_format_and_messages(tmp_path, worker):
    path = write(tmp_path, "3f2a9c", b"# Title\n\ntext")
    assert worker.parse(path, name="guide.md").title == "Title"
    with pytest.raises(UnsupportedFormat, match=r"guide\.docx"):
        worker.parse(path, name="guide.docx")


def test_one_process_serves_many_files_and_survives_bad_ones(tmp_path, worker):
    good, bad = write(tmp_path, "a.txt", b"words"), write(tmp_path, "b.pdf", b"%PDF-1.4 broken")
    worker.parse(good)
    first = worker._process.pid
    with pytest.raises(ParseFailed, match=r"b\.pdf"):
        worker.parse(bad)
    with pytest.raises(EmptyDocument, match="0 bytes"):
        worker.parse(write(tmp_path, "c.txt", b""))
    assert worker.parse(good).text == "words"
    assert worker._process.pid == first


def test_worker_is_replaced_after_its_share_of_files(tmp_path):
    path = write(tmp_path, "a.txt", b"words")
    with ParseWorker(ParseLimits(recycle_after=2)) as worker:
        pids = set()
        for _ in range(4):
            worker.parse(path)
            pids.add(worker._process.pid)
    assert len(pids) == 2


def test_killed_worker_fails_one_file_and_is_restarted(tmp_path, worker):
    path = write(tmp_path, "a.txt", b"words")
    worker.parse(path)
    os.kill(worker._process.pid, signal.SIGKILL)
    with pytest.raises(ParseFailed, match="crashed its parser"):
        worker.parse(path)
    assert worker.parse(path).text == "words"


def test_wall_limit_stops_a_hanging_worker(tmp_path):
    path = write(tmp_path, "a.txt", b"words")
    with ParseWorker(ParseLimits(wall_s=1.0)) as worker:
        worker.parse(path)
        os.kill(worker._process.pid, signal.SIGSTOP)
        with pytest.raises(ParseLimit, match="longer than 1 s"):
            worker.parse(path)
        assert worker.parse(path).text == "words"


def test_cpu_limit_stops_a_busy_worker(tmp_path):
    # Emphasis runs without partners are slow to resolve.
    path = write(tmp_path, "a.md", (b"*a **b " * 40 + b"[x](") * 30_000)
    with (
        ParseWorker(ParseLimits(cpu_s=1, wall_s=30)) as worker,
        pytest.raises(ParseLimit, match="CPU"),
    ):
        worker.parse(path)


def test_memory_limit_is_a_parse_error(tmp_path):
    path = write(tmp_path, "a.html", b"<p>" + b"<b>x</b>" * 4_000_000)
    with (
        ParseWorker(ParseLimits(memory_bytes=256 * 2**20)) as worker,
        pytest.raises((ParseLimit, ParseFailed), match=r"a\.html"),
    ):
        worker.parse(path)


def test_file_above_the_size_limit_is_not_read(tmp_path):
    path = write(tmp_path, "a.txt", b"x" * 100)
    with pytest.raises(ParseLimit, match="100 bytes; the limit is 10"):
        parse_file(path, ParseLimits(max_bytes=10))


def test_missing_file_is_a_file_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        parse_file(tmp_path / "none.txt")


def test_threads_share_the_worker(tmp_path):
    paths = [write(tmp_path, f"{n}.txt", f"words {n}".encode()) for n in range(24)]
    found = {}

    def run(path):
        found[path] = parse_file(path).text

    threads = [threading.Thread(target=run, args=(p,)) for p in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {p: f"words {n}" for n, p in enumerate(paths)}


def test_worker_has_no_secret_environment_and_no_heavy_library(tmp_path, monkeypatch):
    monkeypatch.setenv("TANDEM_SECRET", "hunter2")
    with ParseWorker() as worker:
        worker.parse(write(tmp_path, "a.txt", b"words"))
        pid = worker._process.pid
        assert b"hunter2" not in Path(f"/proc/{pid}/environ").read_bytes()
        assert "libtorch" not in Path(f"/proc/{pid}/maps").read_text()
        limits = resource.prlimit(pid, resource.RLIMIT_AS)
    assert limits[0] == ParseLimits().memory_bytes


def test_importing_the_package_is_cheap():
    heavy = "torch transformers sentence_transformers qdrant_client qdrant_edge lxml pypdfium2"
    code = (
        "import sys, retrieval.search, retrieval.edge, retrieval.server, retrieval.parsing, "
        "retrieval.ingestion, retrieval.context, retrieval.embedding\n"
        f"print([m for m in {heavy.split()!r} if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert out.stdout.strip() == "[]"
