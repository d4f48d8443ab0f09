"""From approved examples to a sealed snapshot."""

import json

import pytest
from factories import add_answer, principal_of, write_jsonl

from app.datasets import service
from app.datasets.building import BuildOptions, Tools
from app.datasets.importing import import_examples
from app.db.tables import DatasetSnapshot, Example, UseCase
from app.errors import BadInput, NotFound
from app.feedback.service import example_digest
from tuning.snapshot import load

FACTS = [
    f"The {name} plan costs {n} euros a month."
    for n, name in enumerate(
        ("Ripple", "Torrent", "Breeze", "Summit", "Canal", "Harbour"), start=41
    )
]


class World:
    def __init__(self, database, root):
        self.database, self.root = database, root
        with database.session() as session:
            self.owner = principal_of(session, "olga", "ml")
            # One page per fact, each a document of one chunk.
            add_answer(session, self.owner, FACTS)
            self.use_case = session.query(UseCase).one().name

    def import_rows(self, rows, who=None):
        path = write_jsonl(self.root / "examples.jsonl", rows)
        with self.database.session() as session:
            use_case = session.query(UseCase).one()
            return import_examples(session, who or self.owner, use_case, path)

    def build(self, **shares):
        return service.build(
            self.database,
            self.owner,
            self.use_case,
            Tools(lambda q, n: []),
            self.root / "datasets",
            BuildOptions(**shares),
        )


def row(question, answer, author="ada", **metadata):
    return {
        "messages": [
            {"role": "user", "content": question},
            {"role": "assistant", "content": answer},
        ],
        "metadata": {"author": author} | metadata,
    }


def grounded(n, **changes):
    fields = {"kind": "grounded", "sources": [f"doc-{n + 1}.md"], "gold_text": FACTS[n]} | changes
    return row(f"What is the price number {n}?", FACTS[n], **fields)


@pytest.fixture
def world(database, tmp_path):
    return World(database, tmp_path)


def test_gold_passage_is_the_current_chunk_of_its_document(world):
    world.import_rows([grounded(n) for n in range(6)])
    snapshot = world.build()
    rows = load(snapshot.path).rows
    assert {r["gold"][0]["text"] for r in rows} == set(FACTS)
    assert all(r["gold"][0]["title"].startswith("Document") for r in rows)


def test_example_whose_fact_is_nowhere_is_left_out_with_a_reason(world):
    world.import_rows([grounded(0), grounded(1), grounded(2, sources=["gone.md"])])
    snapshot = world.build()
    refused = snapshot.manifest["provenance"]["refused"]
    assert len(refused) == 1
    assert "gone.md" in refused[0]["reason"]
    assert len(load(snapshot.path).rows) == 2


def test_fact_that_its_document_no_longer_holds_is_left_out(world):
    other = grounded(1, gold_text="Helmets weigh nothing at all and nobody minds.")
    other["messages"][1]["content"] = "Helmets weigh nothing."
    world.import_rows([grounded(0), other])
    snapshot = world.build()
    assert len(load(snapshot.path).rows) == 1


def test_examples_of_one_document_never_straddle_splits(world):
    rows = [grounded(n) for n in range(6)]
    rows += [
        row(
            f"And number {n} again, please?",
            FACTS[n],
            kind="grounded",
            sources=[f"doc-{n + 1}.md"],
            gold_text=FACTS[n],
        )
        for n in range(6)
    ]
    world.import_rows(rows)
    split_of = {}
    for made in load(world.build(dev=0.3, test=0.3).path).rows:
        for source in made["provenance"]["sources"]:
            split_of.setdefault(source, set()).add(made["split"])
    assert len(split_of) == 6
    assert all(len(splits) == 1 for splits in split_of.values())
    assert len(set.union(*split_of.values())) > 1


def test_same_examples_give_the_same_snapshot(world):
    world.import_rows([grounded(n) for n in range(3)])
    first, second = world.build(), world.build()
    assert (first.id, first.content_sha256) == (second.id, second.content_sha256)
    world.import_rows([grounded(4)])
    assert world.build().content_sha256 != first.content_sha256
    with world.database.session() as session:
        assert session.query(DatasetSnapshot).count() == 2


def test_snapshot_with_a_changed_byte_is_refused(world):
    world.import_rows([grounded(n) for n in range(3)])
    snapshot = world.build()
    from pathlib import Path

    from tuning.errors import TuningError

    file = next(p for p in Path(snapshot.path).rglob("*.jsonl"))
    file.write_bytes(file.read_bytes().replace(b"euros", b"EUROS", 1))
    with pytest.raises(TuningError):
        service.show(snapshot)


def test_importer_cannot_approve_the_own_examples(world):
    result = world.import_rows([grounded(0, author="olga"), grounded(1)])
    assert (result["added"], len(result["refused"])) == (1, 1)
    assert "somebody else must import it" in result["refused"][0]["reason"]


def test_bad_lines_are_refused_by_number_and_the_rest_goes_in(world):
    path = world.root / "mixed.jsonl"
    path.write_text(json.dumps(grounded(0)) + "\n{broken\n" + json.dumps({"messages": []}) + "\n")
    with world.database.session() as session:
        use_case = session.query(UseCase).one()
        result = import_examples(session, world.owner, use_case, path)
    assert result["added"] == 1
    assert [r["line"] for r in result["refused"]] == [2, 3]
    assert all(r["reason"] for r in result["refused"])


def test_known_examples_are_not_doubled(world):
    assert world.import_rows([grounded(0), grounded(0)])["added"] == 1
    again = world.import_rows([grounded(0), grounded(1)])
    assert (again["added"], again["known_already"]) == (1, 1)


def test_unreviewed_examples_are_not_trained_on(world):
    world.import_rows([grounded(n) for n in range(3)])
    with world.database.session() as session:
        session.query(Example).first().reviewer = None
    assert len(load(world.build().path).rows) == 2


def test_use_case_without_examples_says_what_to_do(world):
    with pytest.raises(BadInput, match="has no approved examples"):
        world.build()


def test_missing_snapshot_lists_the_known_ones(world):
    world.import_rows([grounded(n) for n in range(3)])
    made = world.build()
    with world.database.session() as session:
        prefix = made.content_sha256[:10]
        assert service.find(session, world.owner.workspace_id, prefix).id == made.id
        with pytest.raises(NotFound, match=made.content_sha256[:12]):
            service.find(session, world.owner.workspace_id, "0000")
        with pytest.raises(NotFound, match="none yet"):
            service.find(session, "another", made.id)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (("What?", "This."), ("what?  ", " THIS."), True),
        (("What?", "This."), ("What?", "That."), False),
        (("a", "b c"), ("a b", "c"), False),
    ],
)
def test_identity_of_an_example_folds_case_and_blanks_only(one, other, same):
    assert (example_digest(*one) == example_digest(*other)) is same
