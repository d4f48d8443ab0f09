"""Ingestion against real vectors and real SQL: outcomes, the flip, deletion, comparison of both."""

import os

import pytest
import sqlalchemy as sa
from factories import write_pages
from knowledge_world import RIPPLE, THREE, InlineJob

from app.db.tables import Chunk, DocumentVersion
from app.knowledge import repository, service
from app.knowledge.ingest import Ingestion
from app.knowledge.sources import collect, parse_spec
from app.knowledge.verify import verify


def test_documents_are_added_left_changed_and_deleted(world):
    assert world.counts(THREE) == {"added": 3}
    world.assert_sql_and_vectors_agree()
    assert world.counts() == {"unchanged": 3}
    assert world.counts({"plans.md": RIPPLE.format(54)}) == {"changed": 1, "unchanged": 2}
    assert "54 euros" in world.best("Ripple plan euros month")
    assert all("49 euros" not in hit.text for hit in world.search("Ripple plan 49 euros month"))
    world.assert_sql_and_vectors_agree()
    (world.pages / "sub/returns.md").unlink()
    assert world.counts() == {"unchanged": 2}  # without sync nothing is deleted
    assert "21 days" in world.best("helmet returned days")
    assert world.counts(sync=True) == {"unchanged": 2, "deleted": 1}
    assert all("21 days" not in hit.text for hit in world.search("helmet returned days"))
    world.assert_sql_and_vectors_agree()


def test_document_deleted_and_added_again_comes_back(world):
    world.ingest(THREE)
    service.delete_document(world.database, world.knowledge, world.workspace, "docs", "plans.md")
    assert all("Ripple" not in hit.text for hit in world.search("Ripple plan euros"))
    world.assert_sql_and_vectors_agree()
    assert world.counts() == {"added": 1, "unchanged": 2}
    assert "49 euros" in world.best("Ripple plan euros month")
    world.assert_sql_and_vectors_agree()
    with world.database.session() as session:
        shown = service.describe_document(session, world.kb, "plans.md")
    assert shown["deleted"] is None
    assert [v["state"] for v in shown["versions"]] == ["purged", "visible"]


def test_content_that_returns_to_an_old_one_is_a_new_version(local):
    for price in (49, 54, 49):
        local.ingest({"plans.md": RIPPLE.format(price)})
        local.assert_sql_and_vectors_agree()
    assert "49 euros" in local.best("Ripple plan euros month")
    with local.database.session() as session:
        numbers = list(session.scalars(sa.select(DocumentVersion.number)))
    assert sorted(numbers) == [1, 2, 3]


def test_unreadable_files_fail_or_are_skipped_and_the_rest_goes_in(local):
    write_pages(local.pages, THREE)
    (local.pages / "empty.md").write_bytes(b"")
    (local.pages / "program.exe").write_bytes(b"MZ\x00\x01")
    (local.pages / "broken.pdf").write_bytes(b"%PDF-1.7 nothing")
    (local.pages / ".hidden.md").write_text("secret")
    result = local.ingest()
    assert result["counts"] == {
        "added": 3,
        "changed": 0,
        "moved": 0,
        "unchanged": 0,
        "scheduled": 0,
        "deleted": 0,
        "skipped": 1,
        "failed": 2,
    }
    problems = {p["document"]: p for p in result["problems"]}
    assert problems["program.exe"]["outcome"] == "skipped"
    assert problems["empty.md"]["outcome"] == problems["broken.pdf"]["outcome"] == "failed"
    assert all(p["reason"] for p in problems.values())
    named = local.ingest(paths=[str(local.pages / "program.exe")])
    assert named["counts"]["failed"] == 1  # a file that was named must be readable


def test_file_that_became_unreadable_keeps_its_old_answers_even_with_sync(local):
    local.ingest(THREE)
    (local.pages / "plans.md").write_bytes(b"")
    assert local.counts(sync=True) == {"failed": 1, "unchanged": 2}
    assert "49 euros" in local.best("Ripple plan euros month")
    local.assert_sql_and_vectors_agree()


@pytest.mark.skipif(os.name != "posix", reason="file names are bytes on POSIX only")
def test_file_name_that_is_not_utf8_fails_alone(local):
    write_pages(local.pages, THREE)
    bad = os.path.join(os.fsencode(local.pages), b"caf\xe9.md")
    with open(bad, "w") as file:
        file.write("# Coffee\n\nCoffee text.\n")
    result = local.ingest()
    assert result["counts"]["added"] >= 3


def test_files_are_listed_without_the_means_to_reach_the_web(local, monkeypatch):
    monkeypatch.setattr("app.knowledge.ingest.Fetcher", None)
    assert local.ingest(THREE)["counts"]["added"] == len(THREE)


def test_old_version_is_answered_from_until_the_flip(local, monkeypatch):
    local.ingest(THREE)
    seen = []
    make_visible = repository.make_visible

    def looking(session, version_id):
        # Vectors of the new version are on disk already; SQL does not show it yet.
        assert local.part.index.count(local.scope) > len(before)
        seen.append(version_id)
        return make_visible(session, version_id)

    before = local.visible_chunks()
    flush = local.part.index.flush

    def asking():
        flush()
        if not seen:
            texts = [hit.text for hit in local.search("Ripple plan euros month")]
            assert any("49 euros" in text for text in texts)
            assert not any("54 euros" in text for text in texts)

    monkeypatch.setattr(repository, "make_visible", looking)
    monkeypatch.setattr(local.part.index, "flush", asking)
    local.ingest({"plans.md": RIPPLE.format(54)})
    assert len(seen) == 1
    assert "54 euros" in local.best("Ripple plan euros month")


def test_document_deleted_while_its_update_is_embedded_stays_deleted(local, monkeypatch):
    local.ingest(THREE)
    embed = local.part.embedder.embed_passages

    def deleting(texts, batch_size=None):
        if not deleted:
            deleted.append(True)
            service.delete_document(
                local.database, local.knowledge, local.workspace, "docs", "plans.md"
            )
        return embed(texts)

    deleted = []
    monkeypatch.setattr(local.part.embedder, "embed_passages", deleting)
    local.ingest({"plans.md": RIPPLE.format(54)})
    assert deleted
    assert all("Ripple" not in hit.text for hit in local.search("Ripple plan euros month"))
    local.assert_sql_and_vectors_agree()


def test_vectors_of_a_version_that_never_became_visible_are_removed(local, monkeypatch):
    local.ingest({"plans.md": RIPPLE.format(49)})

    def killed(session, version_id):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(repository, "make_visible", killed)
        with pytest.raises(KeyboardInterrupt):
            local.ingest({"plans.md": RIPPLE.format(54)})
    assert "49 euros" in local.best("Ripple plan euros month")
    assert local.counts({"plans.md": RIPPLE.format(60)}) == {"changed": 1}
    assert "60 euros" in local.best("Ripple plan euros month")
    assert not verify(local.database, local.knowledge, local.kb.id, repair=True).clean
    local.assert_sql_and_vectors_agree()


def test_vectors_left_by_a_killed_deletion_are_found_and_removed(local, monkeypatch):
    local.ingest(THREE)
    with monkeypatch.context() as patch:
        patch.setattr(type(local.part.index), "delete_document", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            service.delete_document(
                local.database, local.knowledge, local.workspace, "docs", "plans.md"
            )
    assert all("Ripple" not in hit.text for hit in local.search("Ripple plan euros"))
    assert not verify(local.database, local.knowledge, local.kb.id, repair=True).clean
    local.assert_sql_and_vectors_agree()


def test_unchanged_chunks_are_not_embedded_again(local):
    text = "# A\n\n" + "\n\n".join(
        f"## Part {n}\n\n" + f"Sentence about subject number {n} stands here. " * 12
        for n in range(6)
    )
    assert local.ingest({"a.md": text})["embedded"] >= 6
    changed = local.ingest({"a.md": text.replace("number 3 stands", "number 3 sits")})
    assert 0 < changed["embedded"] <= 2
    local.assert_sql_and_vectors_agree()


def test_chunk_rows_cite_their_place_in_the_document(local):
    local.ingest(THREE)
    with local.database.session() as session:
        rows = [(c.text, c.start_char, c.end_char) for c in session.scalars(sa.select(Chunk))]
    assert all(len(text) == end - start for text, start, end in rows)


def test_two_sources_of_one_name_are_refused(tmp_path):
    from app.errors import BadInput

    write_pages(tmp_path / "a", {"x.md": "1"})
    write_pages(tmp_path / "b", {"x.md": "2"})
    with pytest.raises(BadInput, match=r"'x\.md'"):
        collect([parse_spec(str(tmp_path / name)) for name in "ab"], tmp_path / "into")


def test_many_files_are_ingested_in_batches_with_progress(local):
    pages = {f"p{n:02}.md": f"# Page {n}\n\nText of page number {n}.\n" for n in range(40)}
    write_pages(local.pages, pages)
    job = InlineJob(knowledge_base_id=local.kb.id, paths=[str(local.pages)])
    result = Ingestion(local.database, local.knowledge, local.root).run(job)
    assert result["counts"]["added"] == 40
    assert job.shown[-1] == (40, 40)
    local.assert_sql_and_vectors_agree()
