"""Random edits, moves and deletions under concurrent questions: is every answer the owner's list?

  python -m benchmarks.churn [--rounds 1000] [--seed 7] [--url postgresql://...]

Each round changes one file of a folder (edit, move, delete, bring back) and either syncs the
folder or pushes or deletes that one document. Threads ask without pause; a hit is stale when it
shows a value that had been replaced or deleted before the question was asked. In the end the
index is verified against SQL and against the folder. The embedder is a hashing one, so that the
rounds are spent on the machinery; SQL, vectors, files and fsync are real.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

_FACT = re.compile(r"item(\d+) has edition (\d+)")


class Owner:
    """What the owner's list says, as a history that the askers check hits against."""

    def __init__(self, n: int) -> None:
        self.lock = threading.Lock()
        self.edition: dict[int, int | None] = dict.fromkeys(range(n))
        self.counter = 0
        # When an edition of an item stopped to count, by (item, edition).
        self.ended: dict[tuple[int, int], float] = {}

    def set(self, item: int, edition: int | None) -> None:
        """The change is done: from now on the edition before must not be seen."""
        with self.lock:
            before = self.edition[item]
            if before is not None and before != edition:
                self.ended[item, before] = time.monotonic()
            self.edition[item] = edition


class Asker(threading.Thread):
    """Asks about random items and notes stale hits."""

    def __init__(self, world: Any, owner: Owner, n: int, seed: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.world, self.owner, self.n, self.stop = world, owner, n, stop
        self.chance = random.Random(seed)
        self.asked = 0
        self.stale: list[str] = []
        self.errors: list[str] = []

    def run(self) -> None:
        """Ask until told to stop."""
        while not self.stop.is_set():
            item = self.chance.randrange(self.n)
            started = time.monotonic()
            try:
                hits = self.world.search(f"item{item} has edition", 3)
            except Exception as error:  # noqa: BLE001 - any failed question counts
                self.errors.append(f"{type(error).__name__}: {error}")
                continue
            self.asked += 1
            with self.owner.lock:
                for hit in hits:
                    for found in _FACT.finditer(hit.text):
                        key = (int(found.group(1)), int(found.group(2)))
                        if self.owner.ended.get(key, started) < started:
                            self.stale.append(f"{key} in {hit.text[:60]!r}")


def text_of(item: int, edition: int) -> str:
    """A page with one fact that tells item and edition."""
    return f"# Item {item}\n\nThe item{item} has edition {edition}.\n"


def play(world: Any, rounds: int, seed: int, n: int = 40) -> dict[str, Any]:
    """All rounds; the figures."""
    chance = random.Random(seed)
    owner, names = Owner(n), {i: f"p{i:03}.md" for i in range(n)}
    world.pages.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    askers = [Asker(world, owner, n, seed + i, stop) for i in range(2)]
    for asker in askers:
        asker.start()
    counts: dict[str, int] = {}
    started = time.monotonic()
    for number in range(rounds):
        kind = _round(world, owner, names, chance)
        counts[kind] = counts.get(kind, 0) + 1
        if sys.stderr.isatty():
            print(f"\r{number + 1}/{rounds}", end="", file=sys.stderr)
    stop.set()
    for asker in askers:
        asker.join()
    return _figures(world, owner, names, askers) | {
        "rounds": counts,
        "seconds": round(time.monotonic() - started, 1),
    }


def _round(world: Any, owner: Owner, names: dict[int, str], chance: random.Random) -> str:
    from app.knowledge import service

    item = chance.randrange(len(names))
    path = world.pages / names[item]
    kind = chance.choice(("edit", "edit", "edit", "move", "delete", "push", "drop"))
    if owner.edition[item] is None:
        kind = chance.choice(("edit", "push"))
    if kind in ("edit", "push"):
        owner.counter += 1
        path.write_text(text_of(item, owner.counter), "utf-8")
        if kind == "edit":
            world.ingest(sync=True)
        else:
            _push(world, names[item], path)
        owner.set(item, owner.counter)
    elif kind == "move":
        names[item] = f"p{item:03}-{chance.randrange(10**9)}.md"
        path.rename(world.pages / names[item])
        world.ingest(sync=True)
    else:
        path.unlink()
        if kind == "drop":
            world.ingest(sync=True)
        else:
            service.delete_document(
                world.database, world.knowledge, world.workspace, "docs", names[item]
            )
        owner.set(item, None)
    return kind


def _push(world: Any, name: str, path: Path) -> None:
    from app.knowledge.push import push
    from app.knowledge.sources.types import FoundDocument

    push(world.database, world.knowledge, world.kb, FoundDocument(name, name, path, named=True))


def _figures(
    world: Any, owner: Owner, names: dict[int, str], askers: list[Asker]
) -> dict[str, Any]:
    from app.knowledge import service
    from app.knowledge.verify import verify

    with world.database.session() as session:
        listed = {row["document"] for row in service.describe_documents(session, world.kb)}
    alive = {names[i] for i, edition in owner.edition.items() if edition is not None}
    wrong = []
    for item, edition in owner.edition.items():
        texts = [hit.text for hit in world.search(f"item{item} has edition", 3)]
        found = {m.groups() for t in texts for m in _FACT.finditer(t) if m.group(1) == str(item)}
        if found != ({(str(item), str(edition))} if edition is not None else set()):
            wrong.append((item, edition, sorted(found)))
    report = verify(world.database, world.knowledge, world.kb.id, repair=False, sample=10_000)
    return {
        "asked": sum(a.asked for a in askers),
        "stale_hits": sum(len(a.stale) for a in askers),
        "failed_questions": sum(len(a.errors) for a in askers),
        "examples": [*(a.stale[:2] for a in askers), *(a.errors[:2] for a in askers)],
        "list_is_the_folder": listed == alive,
        "wrong_in_the_end": wrong[:5],
        "verify_clean": report.clean,
        "past_chunks": report.shards[1].expected,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--url", help="database; default: SQLite in a temporary folder")
    options = parser.parse_args()
    from knowledge_world import World

    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), options.url)
        result = play(world, options.rounds, options.seed)
        world.close()
    print(json.dumps(result, indent=1))
    clean = result["verify_clean"] and result["list_is_the_folder"] and not result["stale_hits"]
    return 0 if clean and not result["failed_questions"] and not result["wrong_in_the_end"] else 1


if __name__ == "__main__":
    sys.exit(main())
