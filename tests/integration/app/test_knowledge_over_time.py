"""Moves, validity, the past, groups, pushes, damage, verification: what an owner relies on."""

from datetime import UTC, datetime, timedelta

import pytest
from knowledge_world import RIPPLE, THREE

from app.db.base import new_id, now
from app.db.tables import Answer, AnswerChunk, Document, DocumentVersion, UseCase
from app.errors import BadInput
from app.knowledge import service
from app.knowledge.history import damage
from app.knowledge.push import push
from app.knowledge.schedule import activate_due
from app.knowledge.sources.types import FoundDocument
from app.knowledge.verify import mark_clean, mend_after_crash, verify

PRICE = "Ripple plan euros month"


def pushed(world, name, text, **options):
    path = world.root / new_id()
    path.write_text(text, "utf-8")
    found = FoundDocument(name, name, path, named=True, **options)
    return push(world.database, world.knowledge, world.kb, found)


def versions(world, name):
    with world.database.session() as session:
        return service.describe_document(session, world.kb, name)["versions"]


def test_moved_documents_keep_identity_history_and_vectors(world):
    world.ingest(THREE)
    with world.database.session() as session:
        before = {d.external_id: d.id for d in session.query(Document)}
    (world.pages / "archive").mkdir()
    (world.pages / "plans.md").rename(world.pages / "archive/plans-2024.md")
    embedded = world.part.embedder.n_passages
    result = world.ingest(sync=True)
    assert result["counts"]["moved"] == 1
    assert result["counts"]["deleted"] == result["counts"]["added"] == 0
    assert world.part.embedder.n_passages == embedded
    assert result["notes"][0]["reason"] == "from plans.md"
    with world.database.session() as session:
        document = session.query(Document).filter_by(external_id="archive/plans-2024.md").one()
        assert document.id == before["plans.md"]
        assert document.former_ids == ["plans.md"]
    assert "49 euros" in world.best(PRICE)
    world.assert_sql_and_vectors_agree()


def test_title_that_comes_from_the_name_moves_with_it(local):
    local.ingest({"hours.txt": "Opening hours of the workshop are 8:30 to 18:00.\n"})
    title = local.search("opening hours")[0].title
    (local.pages / "hours.txt").rename(local.pages / "openings.txt")
    assert local.counts(sync=True) == {"moved": 1}
    moved = local.search("opening hours")[0].title
    assert ("hours" in title) == ("openings" in moved)
    local.assert_sql_and_vectors_agree()


def test_two_candidates_are_no_move(local):
    local.ingest({"a.md": "# Same\n\nThe very same words.\n"})
    (local.pages / "a.md").rename(local.pages / "b.md")
    (local.pages / "c.md").write_bytes((local.pages / "b.md").read_bytes())
    assert local.counts(sync=True) == {"added": 2, "deleted": 1}
    local.assert_sql_and_vectors_agree()


def test_the_past_is_answered_from_and_the_present_is_not(world):
    moments = []
    for price in (49, 54, 60):
        world.ingest({"plans.md": RIPPLE.format(price)})
        moments.append(now())
    for moment, price in zip(moments, (49, 54, 60), strict=True):
        assert f"{price} euros" in world.best(PRICE, as_of=moment)
        texts = [hit.text for hit in world.search(PRICE, as_of=moment)]
        assert len([text for text in texts if "euros" in text]) == 1
    assert not world.search(PRICE, as_of=moments[0] - timedelta(days=1))
    assert "60 euros" in world.best(PRICE)
    world.assert_sql_and_vectors_agree()


def test_documents_gone_from_the_source_stay_in_the_past_deleted_ones_do_not(local):
    local.ingest(THREE)
    moment = now()
    (local.pages / "plans.md").unlink()
    assert local.counts(sync=True)["deleted"] == 1
    assert all("Ripple" not in hit.text for hit in local.search(PRICE))
    assert "49 euros" in local.best(PRICE, as_of=moment)
    service.delete_document(local.database, local.knowledge, local.workspace, "docs", "plans.md")
    assert all("Ripple" not in hit.text for hit in local.search(PRICE, as_of=moment))
    local.assert_sql_and_vectors_agree()


def test_content_valid_from_an_earlier_day_ends_the_old_one_there(local):
    local.ingest({"plans.md": RIPPLE.format(49)}, valid_from="2024-01-01T00:00:00+00:00")
    local.ingest({"plans.md": RIPPLE.format(54)}, valid_from="2025-01-01T00:00:00+00:00")
    assert "49 euros" in local.best(PRICE, as_of=datetime(2024, 12, 31, tzinfo=UTC))
    assert "54 euros" in local.best(PRICE, as_of=datetime(2025, 1, 1, tzinfo=UTC))
    assert not local.search(PRICE, as_of=datetime(2023, 12, 31, tzinfo=UTC))


def test_a_version_valid_later_is_shown_when_its_time_comes(world):
    world.ingest({"plans.md": RIPPLE.format(49)})
    later = now() + timedelta(days=3)
    assert world.counts({"plans.md": RIPPLE.format(54)}, valid_from=later.isoformat()) == {
        "scheduled": 1
    }
    assert "49 euros" in world.best(PRICE)
    assert all("54" not in hit.text for hit in world.search(PRICE))
    world.part.index.flush()
    assert verify(world.database, world.knowledge, world.kb.id, repair=False).clean
    assert activate_due(world.database, lambda: world.knowledge, now()) == 0
    assert activate_due(world.database, lambda: world.knowledge, later) == 1
    assert [v["state"] for v in versions(world, "plans.md")] == ["retired", "visible"]
    assert "54 euros" in world.best(PRICE)
    world.assert_sql_and_vectors_agree()


def test_closed_documents_are_answered_from_for_their_groups_only(world):
    world.ingest(THREE)
    pay = "# Pay\n\nThe salary band of the Ripple team is 4,200.\n"
    pushed(world, "pay.md", pay, groups=("hr",))
    question = "salary band Ripple team"
    assert "4,200" in world.best(question)
    assert "4,200" in world.best(question, groups=frozenset({"hr", "x"}))
    for groups in (frozenset(), frozenset({"sales"})):
        assert all("4,200" not in hit.text for hit in world.search(question, groups=groups))
        assert "49 euros" in world.best(PRICE, groups=groups)
    with world.database.session() as session:
        service.set_groups(session, world.kb, "pay.md", [])
        service.set_groups(session, world.kb, "plans.md", ["sales"])
    assert "4,200" in world.best(question, groups=frozenset())
    assert all("49" not in hit.text for hit in world.search(PRICE, groups=frozenset({"hr"})))
    with world.database.session() as session:
        seen = service.describe_documents(session, world.kb, frozenset({"hr"}))
    assert "plans.md" not in {row["document"] for row in seen}


def test_many_closed_documents_take_nobodys_place(local):
    pages = {f"secret{n:02}.md": f"# Salary {n}\n\nSalary salary salary {n}.\n" for n in range(40)}
    local.ingest(pages, groups=["hr"])
    pushed(local, "open.md", "# Open\n\nSalary questions go to the office.\n")
    hits = local.search("salary", 3, groups=frozenset({"sales"}))
    assert [hit.title for hit in hits] == ["Open"]


def test_searches_can_be_narrowed_by_attributes(world):
    world.ingest({"a.md": "# A\n\nBikes for children.\n"}, attributes={"lang": "en"})
    pushed(world, "b.md", "# B\n\nBikes for adults.\n", metadata={"lang": "fr"})
    assert {h.title for h in world.search("bikes")} == {"A", "B"}
    assert {h.title for h in world.search("bikes", where={"lang": "fr"})} == {"B"}
    assert not world.search("bikes", where={"lang": "de"})
    assert not world.search("bikes", where={"lang": "fr", "x": "y"})


def test_a_push_is_answered_from_when_it_returns_and_repeating_it_changes_nothing(world):
    assert pushed(world, "plans.md", RIPPLE.format(49)).outcome == "added"
    assert "49 euros" in world.best(PRICE)
    assert pushed(world, "plans.md", RIPPLE.format(49)).outcome == "unchanged"
    assert pushed(world, "plans.md", RIPPLE.format(50)).outcome == "changed"
    assert "50 euros" in world.best(PRICE)
    assert len(versions(world, "plans.md")) == 2
    world.assert_sql_and_vectors_agree()


@pytest.mark.parametrize("name", ["", "a" * 501, "a\x00b", "a\nb"])
def test_unusable_names_are_refused(local, name):
    with pytest.raises(BadInput, match="document id"):
        pushed(local, name, "text")


def test_a_push_that_cannot_be_read_leaves_the_document_as_it_was(local):
    pushed(local, "plans.md", RIPPLE.format(49))
    with pytest.raises(BadInput, match="empty"):
        pushed(local, "plans.md", " \n")
    assert "49 euros" in local.best(PRICE)


def test_the_damage_list_names_answers_whose_knowledge_changed(world):
    world.ingest(THREE)
    hit = world.search(PRICE, 1)[0]
    with world.database.session() as session:
        use_case = UseCase(
            workspace_id=world.workspace,
            name="support",
            arm="hybrid",
            system_prompt="",
            abstain_sentence="",
            knowledge_base_ids=[world.kb.id],
            options={},
        )
        session.add(use_case)
        session.flush()
        for number in (1, 2):
            answer = Answer(
                workspace_id=world.workspace,
                use_case_id=use_case.id,
                question=f"q{number}",
                history=[],
                text="49 euros [1]",
                arm="hybrid",
                abstained=False,
                grounded=True,
                finish_reason="stop",
                identity={},
                identity_sha256="0",
                timings={},
                prompt_tokens=1,
                completion_tokens=1,
                asked_by="test",
            )
            session.add(answer)
            session.flush()
            session.add(
                AnswerChunk(
                    answer_id=answer.id,
                    number=1,
                    chunk_id=hit.chunk_id,
                    document_id=hit.document_id,
                    version_id=hit.version_id,
                    score=1.0,
                    cited=number == 1,
                    quote="The Ripple plan costs 49 euros a month." if number == 1 else None,
                )
            )

    def listed(**options):
        with world.database.session() as session:
            return damage(session, world.kb, options.get("since"), options.get("groups"))

    assert listed() == []
    world.ingest({"plans.md": RIPPLE.format(49) + "\nBilled monthly.\n"})
    rows = listed()
    assert {row["question"] for row in rows} == {"q1", "q2"}
    cited = next(row for row in rows if row["cited"])
    assert (cited["version"], cited["now"], cited["quote_still_there"]) == (1, 2, True)
    world.ingest({"plans.md": RIPPLE.format(54)})
    cited = next(row for row in listed() if row["cited"])
    assert (cited["now"], cited["quote_still_there"]) == (3, False)
    assert listed(since=now() + timedelta(hours=1)) == []
    with world.database.session() as session:
        service.set_groups(session, world.kb, "plans.md", ["hr"])
    assert listed(groups=frozenset({"sales"})) == []


def test_every_kind_of_drift_is_found_and_mended(world):
    pages = {f"p{n}.md": f"# Page {n}\n\nWords about subject {n}.\n" for n in range(12)}
    world.ingest(pages)
    world.ingest({"p0.md": "# Page 0\n\nOther words about subject 0.\n"})
    index, scope = world.part.index, world.scope
    ids = sorted(index.chunk_ids(scope))
    chunk = index.chunks_of_version(scope, world.search("subject 3", 1)[0].version_id)[0]
    index.delete_chunks(scope, [ids[0]])
    other = index.chunks_of_version(scope, world.search("subject 5", 1)[0].version_id)[0]
    from dataclasses import replace

    index.upsert(
        [
            replace(chunk, chunk_id=new_id()),  # a ghost
            replace(other, content_hash="0" * 64),  # another text
        ]
    )
    index.flush()
    report = verify(world.database, world.knowledge, world.kb.id, repair=False)
    present = report.shards[0]
    assert (present.missing, present.ghosts, present.changed) == (1, 1, 1)
    assert not verify(world.database, world.knowledge, world.kb.id, repair=True).clean
    world.assert_sql_and_vectors_agree()


def test_a_wrong_vector_is_found_by_computing_it_again(local):
    from dataclasses import replace

    local.ingest(THREE)
    index = local.part.index
    chunk = index.chunks_of_version(local.scope, local.search("helmet", 1)[0].version_id)[0]
    index.upsert([replace(chunk, vector=local.part.embedder.embed_query("something else"))])
    index.flush()
    assert verify(local.database, local.knowledge, local.kb.id, repair=False).clean
    report = verify(local.database, local.knowledge, local.kb.id, repair=True, sample=100)
    assert report.shards[0].wrong_vectors == 1
    local.assert_sql_and_vectors_agree()


def test_only_a_process_that_did_not_end_well_is_mended_after(local):
    local.ingest(THREE)
    ids = sorted(local.part.index.chunk_ids(local.scope))
    mark_clean(local.root)
    local.part.index.delete_chunks(local.scope, ids[:1])
    assert mend_after_crash(local.database, local.knowledge, local.root) == []
    (report,) = mend_after_crash(local.database, local.knowledge, local.root)
    assert report.repaired == 1
    local.assert_sql_and_vectors_agree()


def test_rebuild_makes_present_and_past_again(local):
    local.ingest(THREE)
    moment = now()
    local.ingest({"plans.md": RIPPLE.format(54)})
    local.part.index.drop(local.scope)
    service.rebuild(local.database, local.knowledge, local.workspace, "docs")
    local.assert_sql_and_vectors_agree()
    assert "49 euros" in local.best(PRICE, as_of=moment)
    with local.database.session() as session:
        states = {v.state for v in session.query(DocumentVersion)}
    assert states == {"visible", "retired"}
