"""Uploads, documents and their errors over HTTP."""

import pytest

UPLOAD = "/api/v1/knowledge-bases/docs/documents"


@pytest.fixture(scope="module")
def tenant(service):
    tenant = service.tenant()
    assert tenant.call("POST", "/api/v1/knowledge-bases", json={"name": "docs"}).is_success
    return tenant


def uploads_of(service):
    root = service.container.settings.root / "uploads"
    return {p.relative_to(root).as_posix(): p for p in root.rglob("*")} if root.exists() else {}


def test_202_means_the_bytes_are_on_disk(tenant, service):
    before = uploads_of(service)
    reply = tenant.call("POST", UPLOAD, files=[("files", ("a.md", b"# A\n\nAlpha text.\n"))])
    assert reply.status_code == 202
    new = [p for name, p in uploads_of(service).items() if name not in before and p.is_file()]
    assert [p.read_bytes() for p in new] == [b"# A\n\nAlpha text.\n"]
    job = tenant.wait(reply.json()["id"])
    assert job["result"]["counts"]["added"] == 1


@pytest.mark.parametrize(
    "name", ["..", ".hidden.md", "/", "..\\..", "x/..", ".", "n" * 400 + ".md"]
)
def test_unusable_upload_names_are_refused_and_nothing_is_left(tenant, service, name):
    before = set(uploads_of(service))
    reply = tenant.call("POST", UPLOAD, files=[("files", (name, b"text"))])
    assert reply.status_code == 400, reply.text
    assert reply.json()["title"] == "Bad input"
    assert set(uploads_of(service)) == before


@pytest.mark.parametrize("name", ["../../escape.md", "/etc/escape.md", "..\\..\\escape.md"])
def test_directories_of_upload_names_are_dropped(tenant, service, name):
    reply = tenant.call("POST", UPLOAD, files=[("files", (name, b"# E\n\nEscape text.\n"))])
    assert reply.status_code == 202
    tenant.wait(reply.json()["id"])
    root = service.container.settings.root
    assert all("uploads" in p.parts for p in root.parent.rglob("escape.md"))
    documents = {row["document"] for row in tenant.call("GET", UPLOAD).json()}
    assert "escape.md" in documents


def test_too_large_upload_is_refused_and_nothing_is_left(tenant, service):
    before = set(uploads_of(service))
    reply = tenant.call("POST", UPLOAD, files=[("files", ("big.txt", b"x" * 200_001))])
    assert reply.status_code == 413
    assert "big.txt" in reply.json()["detail"]
    assert set(uploads_of(service)) == before


def test_two_uploads_of_one_name_are_refused(tenant, service):
    before = set(uploads_of(service))
    files = [("files", ("same.md", b"one")), ("files", ("same.md", b"two"))]
    reply = tenant.call("POST", UPLOAD, files=files)
    assert reply.status_code == 400
    assert "same.md" in reply.json()["detail"]
    assert set(uploads_of(service)) == before


def test_upload_to_an_unknown_knowledge_base_names_the_known_ones(tenant, service):
    before = set(uploads_of(service))
    path = "/api/v1/knowledge-bases/dox/documents"
    reply = tenant.call("POST", path, files=[("files", ("a.md", b"x"))])
    assert reply.status_code == 404
    assert "docs" in reply.json()["detail"]
    assert set(uploads_of(service)) == before


def test_unreadable_upload_is_reported_by_its_job(tenant):
    job = tenant.upload("docs", {"broken.pdf": "%PDF-1.4 not really"})
    problems = job["result"]["problems"]
    assert [p["document"] for p in problems] == ["broken.pdf"]
    assert problems[0]["reason"]


def test_only_the_operator_names_files_of_the_machine(tenant, service, pages):
    path = "/api/v1/knowledge-bases/docs/ingest"
    body = {"paths": [str(pages)]}
    assert tenant.call("POST", path, "owner", json=body).status_code == 403
    reply = service.operator_in(tenant, "POST", path, json=body)
    assert reply.status_code == 202
    assert tenant.wait(reply.json()["id"])["state"] == "succeeded"


@pytest.mark.parametrize("valid_from", ["2026-01-01", "2026-01-01T10:00:00+02:00"])
def test_valid_from_may_be_a_date_or_a_moment(service, pages, valid_from):
    tenant = service.tenant()
    tenant.call("POST", "/api/v1/knowledge-bases", json={"name": "dated"})
    path = "/api/v1/knowledge-bases/dated/ingest"
    body = {"paths": [str(pages)], "valid_from": valid_from}
    job = tenant.wait(service.operator_in(tenant, "POST", path, json=body).json()["id"])
    assert job["state"] == "succeeded", job["error"]
    listed = tenant.call("GET", "/api/v1/knowledge-bases/dated/documents").json()
    assert listed[0]["valid_from"].startswith("2026-01-01T")


def test_path_that_does_not_exist_is_named(tenant, service):
    path = "/api/v1/knowledge-bases/docs/ingest"
    reply = service.operator_in(tenant, "POST", path, json={"paths": ["/no/such/place"]})
    assert reply.status_code == 404
    assert "/no/such/place" in reply.json()["detail"]


def test_rebuild_makes_the_same_index_from_sql_alone(service):
    tenant = service.furnished()
    query = {"query": "Ripple plan price a month", "limit": 5}
    path = "/api/v1/knowledge-bases/docs"
    before = tenant.call("POST", f"{path}/search", json=query).json()
    made = tenant.call("POST", f"{path}/rebuild").json()
    assert made["documents"] == 3
    assert tenant.call("POST", f"{path}/search", json=query).json() == before


def test_document_shows_its_versions(service):
    tenant = service.furnished()
    tenant.upload("docs", {"returns.md": "# Returns\n\nHelmets are returned within 30 days.\n"})
    record = tenant.call("GET", "/api/v1/knowledge-bases/docs/documents/returns.md").json()
    assert [v["state"] for v in record["versions"]] == ["retired", "visible"]
    assert record["versions"][0]["valid_to"] is not None
    assert "30 days" in record["chunks"][0]["text"]


def test_job_events_end_with_the_finished_job(tenant):
    reply = tenant.call("POST", UPLOAD, files=[("files", ("ev.md", b"# Ev\n\nEvent text.\n"))])
    with tenant.service.client.stream(
        "GET", f"/api/v1/jobs/{reply.json()['id']}/events", headers=tenant.as_("client")
    ) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in stream.iter_lines() if line]
    assert '"state": "succeeded"' in lines[-1]
    assert all(line.startswith("data: {") for line in lines)


def test_unknown_address_is_a_problem_document(tenant):
    reply = tenant.call("GET", "/api/v1/nothing-here")
    assert reply.status_code == 404
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["detail"]


def test_wrong_method_is_a_problem_document(tenant):
    reply = tenant.call("PUT", "/api/v1/knowledge-bases")
    assert reply.status_code == 405
    assert reply.headers["content-type"] == "application/problem+json"
