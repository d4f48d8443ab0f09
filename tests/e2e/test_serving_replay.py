"""Replay with the real engine, reader and embedder: the same bytes."""

import json
import shutil
from pathlib import Path

import pytest

from app.answers.replay import replay
from app.answers.types import AnswerRequest
from app.knowledge.sources.types import FoundDocument

pytestmark = pytest.mark.needs_models
ROOT = Path(__file__).parents[2]
PAGES = ("plans.md", "returns-and-refunds.md", "contact-and-hours.txt")


@pytest.fixture(scope="module")
def furnished(models_home, tmp_path_factory):
    from app.bootstrap import Container
    from app.config import Settings
    from app.knowledge import service as knowledge
    from app.knowledge.push import push
    from app.use_cases import service as use_cases
    from app.workspaces import service as workspaces

    home = tmp_path_factory.mktemp("home")
    (home / "models").symlink_to(models_home / "models")
    settings = Settings(_env_file=None, home=home, slots=2, threads=1, max_answer_tokens=24)
    container = Container(settings)
    container.prepare()
    with container.database.session() as session:
        container.workspace = workspaces.ensure_default_workspace(session).id
        kb = knowledge.create(session, container.workspace, "docs", container.embedder_name)
        use_cases.create(session, container.workspace, "support", knowledge_bases=["docs"])
    for name in PAGES:
        page = shutil.copyfile(ROOT / "samples" / "knowledge" / "v1" / name, home / name)
        push(container.database, container.knowledge, kb, FoundDocument(name, name, page))
    yield container
    container.close()


def test_ten_answers_replay_to_the_same_bytes(furnished):
    lines = (ROOT / "samples" / "questions.jsonl").read_text("utf-8").splitlines()
    service = furnished.answers
    made = [
        service.answer(
            AnswerRequest(
                furnished.workspace,
                "support",
                json.loads(line)["question"],
                arm="rag" if number % 3 == 0 else "hybrid",
            )
        )
        for number, line in enumerate(lines[:10])
    ]
    replayed = [
        replay(furnished.database, service.chain, furnished.workspace, answer.id)
        for answer in reversed(made)
    ]
    assert [r.same for r in replayed] == [True] * 10
    assert all(r.changed == () for r in replayed)
    assert len({r.text for r in replayed}) > 3


def test_json_answer_follows_its_schema_with_the_real_engine(furnished):
    schema = {
        "type": "object",
        "properties": {"urgency": {"enum": ["low", "high"]}, "refund": {"type": "boolean"}},
        "required": ["urgency", "refund"],
        "additionalProperties": False,
    }
    result = furnished.answers.answer(
        AnswerRequest(
            furnished.workspace,
            "support",
            "My helmet broke and I want my money back now! Triage as JSON.",
            arm="prompt",
            json_schema=schema,
        )
    )
    assert json.loads(result.text)["urgency"] in ("low", "high")
    assert replay(furnished.database, furnished.answers.chain, furnished.workspace, result.id).same
