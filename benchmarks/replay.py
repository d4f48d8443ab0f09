"""Whether recorded answers replay to the same bytes, with the real engine and reader.

    tandem bench replay [--answers 200] [--at-once 2] [--json]

Answers questions of the sample company, several at the same time, then replays every answer in
another order and counts the texts that differ.
"""

import argparse
import json
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from app.answers.replay import replay
from app.answers.types import AnswerRequest
from app.bootstrap import Container
from app.config import Settings
from app.knowledge import service as knowledge
from app.knowledge.push import push
from app.knowledge.sources.types import FoundDocument
from app.use_cases import service as use_cases
from app.workspaces import service as workspaces
from retrieval.types import WorkspaceId

_ROOT = Path(__file__).resolve().parents[1]
_ARMS = ("hybrid", "rag", "hybrid", "prompt")


def measure(home: Path, models: Path, answers: int, at_once: int) -> dict[str, Any]:
    """Answer, replay, compare."""
    (home / "models").symlink_to(models.resolve())
    settings = Settings(_env_file=None, home=home, slots=at_once, threads=1, max_answer_tokens=48)
    container = Container(settings)
    container.prepare()
    with container.database.session() as session:
        workspace = WorkspaceId(workspaces.ensure_default_workspace(session).id)
        kb = knowledge.create(session, workspace, "docs", container.embedder_name)
        use_cases.create(session, workspace, "support", knowledge_bases=["docs"])
    for page in sorted((_ROOT / "samples" / "knowledge" / "v1").iterdir()):
        found = FoundDocument(page.name, page.name, page, named=True)
        push(container.database, container.knowledge, kb, found)
    lines = (_ROOT / "samples" / "questions.jsonl").read_text("utf-8").splitlines()
    asked = [json.loads(line)["question"] for line in lines]
    service = container.answers

    def ask(number: int) -> str:
        question, arm = asked[number % len(asked)], _ARMS[number // len(asked) % len(_ARMS)]
        return service.answer(AnswerRequest(workspace, "support", question, arm=arm)).id

    def again(answer_id: str) -> tuple[bool | None, int]:
        made = replay(container.database, service.chain, workspace, answer_id)
        return made.same, len(made.changed)

    started = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        ids = list(pool.map(ask, range(answers)))
        random.Random(1).shuffle(ids)
        replayed = list(pool.map(again, ids))
    container.close()
    return {
        "answers": answers,
        "at_once": at_once,
        "same": sum(same is True for same, _ in replayed),
        "different": sum(same is False for same, _ in replayed),
        "not_replayed": sum(same is None for same, _ in replayed),
        "with_changes": sum(changed > 0 for _, changed in replayed),
        "seconds": round(time.perf_counter() - started, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, default=_ROOT / ".tandem" / "models")
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = measure(Path(scratch), options.models, options.answers, options.at_once)
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(f"{name:14} {value}")


if __name__ == "__main__":
    main()
