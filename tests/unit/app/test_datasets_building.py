"""What a dataset is built from: consent, today's knowledge, served contexts, the ledger, replay."""

import shutil
import stat
from pathlib import Path

import pytest
from factories import add_answer, principal_of, write_jsonl

from app.datasets import repository, service
from app.datasets.agreement import annotator_agreement
from app.datasets.building import BuildOptions, Tools
from app.datasets.importing import import_examples
from app.datasets.signing import signing_key
from app.db.base import now
from app.db.tables import Answer, Chunk, Document, DocumentVersion, Example, HeldOutItem, UseCase
from app.errors import BadInput
from app.feedback import service as feedback
from retrieval.types import Hit
from tuning.errors import SnapshotError
from tuning.snapshot import SnapshotManifest, _manifest_text, load, load_pairs

FACTS = [
    f"The {name} plan costs {n} euros a month."
    for n, name in enumerate(
        ("Ripple", "Torrent", "Breeze", "Summit", "Canal", "Harbour", "Meadow", "Ridge"), start=41
    )
]


class World:
    def __init__(self, database, root):
        self.database, self.root = database, root
        self.hits = []
        with database.session() as session:
            self.owner = principal_of(session, "olga", "ml")
            add_answer(session, self.owner, FACTS, text="The Ripple plan costs 99 euros [1].")
            self.use_case = session.query(UseCase).one().name

    def take(self, rows, name="examples.jsonl", **options):
        path = write_jsonl(self.root / name, rows)
        with self.database.session() as session:
            use_case = session.query(UseCase).one()
            return import_examples(session, self.owner, use_case, path, **options)

    def build(self, **options):
        tools = Tools(lambda q, n: self.hits)
        return service.build(
            self.database, self.owner, self.use_case, tools, self.root, BuildOptions(**options)
        )

    def rows(self, **options):
        return {row["question"]: row for row in load(self.build(**options).path).rows}


@pytest.fixture
def world(database, tmp_path):
    return World(database, tmp_path)


def grounded(n, answer=None, **metadata):
    plan = FACTS[n].split()[1]
    fields = {"kind": "grounded", "sources": [f"doc-{n + 1}.md"], "author": "ada"}
    return {
        "instruction": f"How much do I pay for {plan} every month?",
        "output": answer or FACTS[n],
        "metadata": fields | metadata,
    }


def test_rows_without_consent_are_refused_and_a_chat_log_must_say_it(world):
    made = world.take([grounded(0), grounded(1, consent="none"), grounded(2, consent="maybe")])
    assert made["added"] == 1
    reasons = " ".join(refused["reason"] for refused in made["refused"])
    assert "nobody agreed" in reasons
    assert "choose internal, customer, public" in reasons
    log = world.root / "log.json"
    log.write_text('[[{"role":"user","content":"Hi?"},{"role":"assistant","content":"Hello."}]]')
    with world.database.session() as session:
        use_case = session.query(UseCase).one()
        with pytest.raises(BadInput, match="say with --consent"):
            import_examples(session, world.owner, use_case, log)
        assert import_examples(session, world.owner, use_case, log, consent="customer")["added"]
        stored = session.query(Example).filter_by(source_type="chat").one()
    assert (stored.consent, stored.conversation) == ("customer", "log.json: 1")


def test_one_source_may_be_named_without_a_list(world):
    world.take([grounded(0, sources="doc-1.md"), grounded(1)])
    (row,) = [r for r in world.rows().values() if "Ripple" in r["question"]]
    assert row["provenance"]["sources"] == ["doc-1.md"]


def test_a_distilled_row_waits_for_a_person(world):
    made = world.take([grounded(0), grounded(1, approved=False), grounded(2, approved=True)])
    assert made["added"] == 2
    assert "a person must approve it first" in made["refused"][0]["reason"]


def test_versions_that_an_example_was_written_from_are_kept(world):
    said = {"document_versions": ["v1", "v2"], "approved": True, "kind": "style"}
    world.take([{"instruction": "Hi", "output": "Ahoy there!", "metadata": said}, grounded(1)])
    assert world.rows()["Hi"]["provenance"]["document_versions"] == ["v1", "v2"]


def test_held_out_passages_are_no_distractors_of_training_rows(world):
    world.hits = [
        Hit(f"h{n}", f"d{n}", "v", 1.0, 1.0, "w", "kb", fact, "Plans", (), None, None, 0, 9, 0)
        for n, fact in enumerate(FACTS[:6])
    ]
    world.take([grounded(n) for n in range(8)])

    def shown(snapshot):
        rows = load(snapshot.path).rows
        held = {p["text"] for row in rows if row["split"] != "train" for p in row["gold"]}
        others = [p["text"] for r in rows if r["split"] == "train" for p in r["distractors"]]
        return held, [text for text in others if text in held], len(others)

    kept = world.build(test=0.3, dev=0.0, held_out_distractors="keep")
    held, leaked, _ = shown(kept)
    assert held
    assert leaked
    assert kept.manifest["audit"]["train_rows_showing_held_out_gold"] > 0
    (flag,) = [f for f in service.card(kept)[1] if f["kind"] == "leaks"]
    assert "training rows show a passage that held-out rows" in flag["sentence"]
    dropped = world.build(test=0.3, dev=0.0)
    again, left, others = shown(dropped)
    assert (again, left) == (held, [])
    assert others > 0
    audit = dropped.manifest["audit"]
    assert audit["held_out_distractors_dropped"] == len(leaked)
    assert audit["train_rows_showing_held_out_gold"] == 0
    assert not [f for f in service.card(dropped)[1] if f["kind"] == "leaks"]
    with pytest.raises(BadInput, match="held_out_distractors='move': choose drop, keep"):
        BuildOptions(held_out_distractors="move")


def test_provenance_of_a_row_names_its_versions_and_its_right(world):
    world.take([grounded(n) for n in range(4)], consent="public")
    row = world.rows()["How much do I pay for Ripple every month?"]
    with world.database.session() as session:
        version = session.query(Document).filter_by(external_id="doc-1.md").one()
        current = version.current_version_id
    assert row["provenance"]["document_versions"] == [current]
    assert row["provenance"]["consent"] == "public"
    assert (row["provenance"]["author"], row["provenance"]["reviewer"]) == ("ada", "olga")


def test_a_value_its_document_no_longer_says_is_left_out(world):
    world.take([grounded(0), grounded(1), grounded(2, "The Breeze plan costs 99 euros a month.")])
    snapshot = world.build()
    (refused,) = snapshot.manifest["provenance"]["refused"]
    assert "'doc-3.md' does not say 99 euros today" in refused["reason"]


def test_a_style_example_may_not_teach_a_fact_of_the_knowledge_base(world):
    found = Hit("h", "d", "v", 1.0, 1.0, "w", "kb", FACTS[0], "Plans", (), None, None, 0, 9, 0)
    world.hits = [found]
    said = {"instruction": "And Ripple?", "output": "Ahoy! It is 41 euros.", "metadata": {}}
    greeting = {"instruction": "Hi", "output": "Ahoy there! Two of us are here.", "metadata": {}}
    world.take([grounded(1), said, greeting])
    snapshot = world.build()
    assert {row["question"] for row in load(snapshot.path).rows} >= {"Hi"}
    (refused,) = snapshot.manifest["provenance"]["refused"]
    assert "states 41 euros, which the knowledge base holds" in refused["reason"]


def test_an_outdated_version_is_kept_beside_its_gold_with_dates(world):
    with world.database.session() as session:
        document = session.query(Document).filter_by(external_id="doc-1.md").one()
        old = DocumentVersion(
            workspace_id=document.workspace_id,
            knowledge_base_id=document.knowledge_base_id,
            document_id=document.id,
            number=0,
            content_sha256="2" * 64,
            title="Document 1",
            media_type="text/markdown",
            state="retired",
            valid_from=now().replace(year=2020),
            valid_to=now(),
        )
        session.add(old)
        session.flush()
        text = FACTS[0].replace("41", "35")
        session.add(
            Chunk(
                id="old",
                version_id=old.id,
                document_id=document.id,
                ordinal=0,
                text=text,
                heading_path=[],
                start_char=0,
                end_char=len(text),
                n_tokens=8,
                content_sha256="0" * 64,
            )
        )
    world.take([grounded(0), grounded(1)])
    rows = world.rows()
    row = rows["How much do I pay for Ripple every month?"]
    assert [(p["text"], p["valid_from"][:4]) for p in row["outdated"]] == [(text, "2020")]
    assert row["gold"][0]["valid_from"]
    assert "outdated" not in rows["How much do I pay for Torrent every month?"]


def test_a_correction_brings_the_passages_it_was_served_with_and_its_pair(world):
    with world.database.session() as session:
        answer = session.query(Answer).one()
        ada = principal_of(session, "ada", "client")
        rob = principal_of(session, "rob", "reviewer")
        _, review = feedback.give(session, ada, answer.id, rating="down", correction=FACTS[0])
        feedback.decide(session, rob, review.id, decision="approve")
    snapshot = world.build(dev=0.0, test=0.0)
    (row,) = load(snapshot.path).rows
    assert row["gold"][0]["text"] == FACTS[0]
    assert [passage["text"] for passage in row["distractors"]] == FACTS[1:7]
    (pair,) = load_pairs(snapshot.path)
    assert (pair["chosen"], pair["rejected"]) == (
        f"{FACTS[0]} [1]",
        "The Ripple plan costs 99 euros [1].",
    )


def test_what_a_snapshot_tested_with_never_trains_later(world):
    world.take([grounded(n) for n in range(8)])
    first = {q: row["split"] for q, row in world.rows(test=0.3, confirm=0.2, dev=0.0).items()}
    held = {q for q, split in first.items() if split in ("test", "confirm")}
    assert held
    with world.database.session() as session:
        assert session.query(HeldOutItem).count() == len(held)
    for seed in range(1, 4):
        again = world.rows(seed=seed, test=0.0, dev=0.0, confirm=0.0)
        assert {q for q, row in again.items() if row["split"] != "train"} == held
    world.take([{"instruction": "Hi", "output": "Ahoy there!", "metadata": {}}])
    assert load(world.build(test=0.0, dev=0.0).path).manifest.audit["pinned"] == len(held)


def test_personal_data_is_masked_or_refused_or_kept(world):
    said = {"instruction": "Write to jo@example.org?", "output": "We shall!", "metadata": {}}
    world.take([said, grounded(0), grounded(1)])
    assert "Write to <EMAIL>?" in world.rows()
    assert "Write to jo@example.org?" in world.rows(personal_data="keep")
    refused = world.build(personal_data="refuse").manifest["provenance"]["refused"]
    assert "it holds email" in refused[0]["reason"]
    with pytest.raises(BadInput, match="choose mask, refuse, keep"):
        BuildOptions(personal_data="hide")


def test_no_score_lets_personal_data_in_that_is_refused(world):
    said = {"instruction": "Write to jo@example.org?", "output": "We shall!", "metadata": {}}
    world.take([said, grounded(0), grounded(1)])
    assert "Write to jo@example.org?" not in world.rows(personal_data="refuse", min_score=0.0)


def test_a_refusal_does_not_quote_personal_data_into_the_manifest(world):
    number = "555-123-4567"
    both = [
        {"instruction": "Whom to call?", "output": f"Call {n} now!", "metadata": {}}
        for n in (number, "555-999-4567")
    ]
    world.take([*both, grounded(0), grounded(1), grounded(2, answer=f"Call {number}.")])
    snapshot = world.build(personal_data="refuse")
    refused = snapshot.manifest["provenance"]["refused"]
    assert any("answers" in entry["reason"] or "values" in entry["reason"] for entry in refused)
    sealed = "".join(file.read_text() for file in Path(snapshot.path).iterdir())
    assert number not in sealed


def test_a_snapshot_in_anothers_place_is_refused(world):
    world.take([grounded(0), grounded(1)])
    first = world.build()
    world.take([grounded(2)], name="more.jsonl")
    second = world.build()
    shutil.rmtree(first.path)
    shutil.copytree(second.path, first.path)
    with pytest.raises(SnapshotError, match="holds dataset"):
        service.checked(first, world.root)
    service.checked(second, world.root)


def test_a_manifest_without_its_signature_is_refused(world):
    world.take([grounded(0), grounded(1)])
    snapshot = world.build()
    rows = load(snapshot.path).rows
    old = SnapshotManifest(snapshot.content_sha256, len(rows), {}, "2020", {}, {}, 1)
    Path(snapshot.path, "quality.jsonl").unlink()
    Path(snapshot.path, "manifest.json").write_text(_manifest_text(old))
    with pytest.raises(SnapshotError, match="lost its signature"):
        service.checked(snapshot, world.root)


def test_a_damaged_key_signs_nothing(tmp_path):
    assert len(signing_key(tmp_path)) == 32
    assert [file.name for file in tmp_path.iterdir()] == ["datasets.key"]
    (tmp_path / "datasets.key").write_text("")
    with pytest.raises(BadInput, match="is damaged"):
        signing_key(tmp_path)


def test_the_ledger_holds_preferences_out_too(world):
    world.take([grounded(n) for n in range(8)])
    held = [q for q, row in world.rows(test=0.5, dev=0.0).items() if row["split"] == "test"]
    with world.database.session() as session:
        use_case = session.query(UseCase).one()
        asked = {"pair:1": held[0].upper(), "pair:2": "Something else?"}
        assert repository.held_out(session, use_case, asked) == {"pair:1": "test"}


def test_replay_rows_are_the_share_that_was_asked_for(world):
    general = [{"instruction": f"Count to {n}.", "output": "One, two."} for n in range(9)]
    replay = write_jsonl(world.root / "general.jsonl", general)
    world.take([grounded(n) for n in range(8)])
    rows = world.rows(dev=0.0, test=0.0, replay=replay, replay_share=0.2)
    assert sum(row["kind"] == "replay" for row in rows.values()) == 2
    few = write_jsonl(world.root / "few.jsonl", general[:1])
    with pytest.raises(BadInput, match=r"holds 1 examples, a share of 0.5 takes 8"):
        world.build(dev=0.0, test=0.0, replay=few, replay_share=0.5)


def test_the_signing_key_is_the_owners_alone(world):
    world.take([grounded(n) for n in range(3)])
    snapshot = world.build()
    mode = stat.S_IMODE((world.root / "datasets.key").stat().st_mode)
    assert mode == 0o600
    assert service.show(snapshot, world.root)["signed"] is True


def test_agreement_of_annotators_says_whether_labels_are_gold(tmp_path):
    rows = [
        {"item": n, "annotator": who, "label": ("yes", "no")[n % 2]}
        for n in range(60)
        for who in ("ada", "bo")
    ]
    good = annotator_agreement(write_jsonl(tmp_path / "a.jsonl", rows))
    assert good["usable_as_gold"]
    assert good["alpha"] == pytest.approx(1.0)
    for row in rows[3::4]:
        row["label"] = "yes"
    assert not annotator_agreement(write_jsonl(tmp_path / "b.jsonl", rows))["usable_as_gold"]
    with pytest.raises(BadInput, match="choose the level nominal"):
        annotator_agreement(tmp_path / "a.jsonl", "interval")
    with pytest.raises(BadInput, match="line 1"):
        annotator_agreement(write_jsonl(tmp_path / "c.jsonl", [{"item": 1}]))
