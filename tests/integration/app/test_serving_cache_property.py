"""No stale answer from the cache, whatever changes in whatever order while questions come in."""

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from factories import add_adapter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from app.db.tables import Adapter, UseCase
from app.engines.types import Generation

KINDS = ("document", "prompt", "adapter", "retrained")
QUESTIONS = (
    "What does the Ripple plan cost a month, please?",
    "please, what does the Ripple plan cost a month",
    "What does the Ripple plan cost a month please",
)
ASKERS = 3


@dataclass
class Known:
    """Of each kind of change, the newest that is in force and the newest that has begun."""

    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS[:3], 0))
    begun: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS[:3], 0))


@pytest.fixture(scope="module")
def tenant(service):
    tenant = service.furnished()
    for kind in KINDS[:3]:
        change(tenant, kind, 0)
    return tenant


@pytest.fixture(scope="module")
def known():
    return Known()


def digest_of(number):
    return f"{number:064x}"


def change(tenant, kind, number):
    """Put the `number`-th document, system text or adapter in force."""
    container = tenant.service.container
    if kind == "document":
        page = f"# Plans\n\nThe Ripple plan costs {1000 + number} euros a month.\n"
        path = "/api/v1/knowledge-bases/docs/documents/plans.md"
        assert tenant.call("PUT", path, content=page.encode()).is_success
    elif kind == "prompt":
        with container.database.session() as session:
            row = session.query(UseCase).filter_by(workspace_id=tenant.id, name="support").one()
            row.system_prompt = f"House rule {number}."
    elif kind == "adapter":
        name = f"house-{number}"
        adapter = add_adapter(container, name, digest_of(number), workspace_id=tenant.id)
        made = tenant.call("PATCH", "/api/v1/use-cases/support", json={"adapter": adapter})
        assert made.is_success, made.text
    else:  # other weights under the id that serves already
        with container.database.session() as session:
            row = session.query(UseCase).filter_by(workspace_id=tenant.id, name="support").one()
            session.get(Adapter, row.adapter_id).digest = digest_of(number)


def apply(tenant, known, kind):
    counter = "adapter" if kind == "retrained" else kind
    number = known.begun[counter] + 1
    known.begun[counter] = number
    change(tenant, kind, number)
    known.done[counter] = number


def telling(tokenizer, generated):
    """An engine's stream that says which document, system text and adapter it was given."""

    def stream(request):
        prompt = tokenizer.decode(request.prompt_ids)
        price = int(re.findall(r"costs (\d+) euros", prompt)[-1]) - 1000
        rule = re.findall(r"House rule (\d+)", prompt)[-1]
        text = f"document {price} prompt {rule} adapter {int(request.adapter.digest, 16)}"
        generated.append(text)
        yield text
        yield Generation(text, "stop", len(request.prompt_ids), 7, 0.0, 0.0)

    return stream


def wrong_kinds(text, before, after):
    said = dict(re.findall(r"(document|prompt|adapter) (\d+)", text))
    assert said.keys() == before.keys(), text
    return {
        kind: (before[kind], int(number), after[kind])
        for kind, number in said.items()
        if not before[kind] <= int(number) <= after[kind]
    }


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    changes=st.lists(st.sampled_from(KINDS), min_size=4, max_size=10),
    mode=st.sampled_from(["exact", "semantic"]),
)
def test_no_stale_hit_whatever_changes_mid_traffic(tenant, known, monkeypatch, changes, mode):
    """Each answer is made of what was in force at some moment between question and reply."""
    engine, generated, stale, hits = tenant.service.container.engine, [], [], []
    monkeypatch.setattr(engine, "stream", telling(engine._tokenizer, generated))
    options = {"cache": mode, "cache_similarity": 0.9}
    made = tenant.call("PATCH", "/api/v1/use-cases/support", json={"options": options})
    assert made.is_success, made.text
    stop = threading.Event()

    def ask(number):
        before = dict(known.done)
        reply = tenant.ask("support", QUESTIONS[number % len(QUESTIONS)])
        assert reply.status_code == 200, reply.text
        after = dict(known.begun)
        text = reply.json()["choices"][0]["message"]["content"]
        if wrong := wrong_kinds(text, before, after):
            stale.append(wrong)
        if reply.json()["tandem"]["cached_from"] is not None:
            hits.append(text)

    def keep_asking(number):
        while not stop.is_set():
            ask(number)

    with ThreadPoolExecutor(ASKERS) as pool:
        asking = [pool.submit(keep_asking, number) for number in range(ASKERS)]
        try:
            for kind in changes:
                apply(tenant, known, kind)
                stop.wait(0.02)
        finally:
            stop.set()
        for task in asking:
            task.result()
    for number in range(2 * len(QUESTIONS)):  # at rest: nothing but the newest, and given again
        ask(number)
    assert stale == []
    assert hits
    assert hits[-1] == " ".join(f"{kind} {n}" for kind, n in known.done.items())
