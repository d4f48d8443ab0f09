"""Records, git trees and web pages through the whole service: job, SQL, index, search."""

import json
import shutil
import subprocess

import pytest


def ingest(service, tenant, *specs, sync=True):
    body = {"specs": list(specs), "sync": sync}
    reply = service.operator_in(tenant, "POST", "/api/v1/knowledge-bases/docs/ingest", json=body)
    assert reply.status_code == 202, reply.text
    job = tenant.wait(reply.json()["id"])
    assert job["state"] == "succeeded", job
    return job["result"]


def documents(tenant):
    rows = tenant.call("GET", "/api/v1/knowledge-bases/docs/documents").json()
    return {row["document"]: row for row in rows}


@pytest.fixture
def tenant(service):
    made = service.tenant()
    assert made.call("POST", "/api/v1/knowledge-bases", json={"name": "docs"}).is_success
    return made


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"kind": "records", "path": str(path)}


def test_records_are_followed_through_changes_deletions_and_bad_lines(service, tenant, tmp_path):
    path = tmp_path / "rows.jsonl"
    first = write(
        path,
        {"id": "faq/1", "text": "The Ripple plan costs 49 euros.", "title": "Ripple"},
        {"id": "faq/2", "markdown": "# Torrent\n\nThe Torrent plan costs 79 euros."},
        {"id": "faq/3", "html": "<p>The workshop opens at eight.</p>"},
        {"id": "faq/4"},
    )
    result = ingest(service, tenant, first)
    assert result["counts"]["added"] == 3
    assert "rows.jsonl line 4 needs exactly one of" in result["problems"][0]["reason"]
    assert set(documents(tenant)) == {"faq/1", "faq/2", "faq/3"}
    body = {"query": "What does Ripple cost?", "limit": 1}
    hits = tenant.call("POST", "/api/v1/knowledge-bases/docs/search", json=body).json()["hits"]
    assert "49 euros" in hits[0]["text"]

    second = write(
        path,
        {"id": "faq/1", "text": "The Ripple plan costs 55 euros.", "title": "Ripple"},
        {"id": "faq/2", "deleted": True},
        {"id": "faq/3", "html": ["broken"]},
    )
    result = ingest(service, tenant, second)
    assert (result["counts"]["changed"], result["counts"]["deleted"]) == (1, 1)
    # The bad line's document stays as it was: it is not gone, it could not be read.
    assert set(documents(tenant)) == {"faq/1", "faq/3"}


def test_a_line_without_readable_id_keeps_sync_from_deleting(service, tenant, tmp_path):
    path = tmp_path / "rows.jsonl"
    ingest(service, tenant, write(path, {"id": "a", "text": "One."}, {"id": "b", "text": "Two."}))
    path.write_text('{"id": "a", "text": "One."}\n{"id": "b", "te\n')
    ingest(service, tenant, {"kind": "records", "path": str(path)})
    assert set(documents(tenant)) == {"a", "b"}


@pytest.mark.skipif(shutil.which("git") is None, reason="no git on this machine")
def test_a_git_tree_becomes_documents(service, tenant, tmp_path):
    folder = tmp_path / "clone"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "plans.md").write_text("# Plans\n\nRipple costs 49 euros.\n")
    identity = ["-c", "user.name=a", "-c", "user.email=a@e.example"]
    for arguments in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "one"]):
        subprocess.run(["git", *identity, *arguments], cwd=folder, check=True)
    ingest(service, tenant, {"kind": "git", "path": str(folder), "ref": "main", "subdir": "docs"})
    assert documents(tenant)["docs/plans.md"]["version"] == 1


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1/", "http://localhost/", "http://169.254.169.254/latest/meta-data/"]
)
def test_internal_addresses_are_told_as_problems_and_delete_nothing(service, tenant, url, tmp_path):
    ingest(service, tenant, write(tmp_path / "r.jsonl", {"id": "a", "text": "One."}))
    result = ingest(service, tenant, {"kind": "url", "url": url})
    assert result["counts"]["deleted"] == 0
    assert "not permitted" in json.dumps(result["problems"])
    assert set(documents(tenant)) == {"a"}
