"""Push, groups, the past, damage, verification and schedules over HTTP."""

import time
from urllib.parse import quote

import pytest
from conftest import PAGES

KB = "/api/v1/knowledge-bases/docs"
QUESTION = "How much does the Ripple plan cost a month?"


@pytest.fixture(scope="module")
def tenant(service):
    return service.furnished()


def put(tenant, name, text, role="knowledge", **params):
    path = f"{KB}/documents/{quote(name)}"
    return tenant.call("PUT", path, role, content=text.encode(), params=params)


def found(tenant, query, role="client", **extra):
    reply = tenant.call("POST", f"{KB}/search", role, json={"query": query, **extra})
    assert reply.status_code == 200, reply.text
    return reply.json()["hits"]


def key_of(service, tenant, name, groups):
    body = {"name": name, "role": "client", "groups": groups}
    made = tenant.call("POST", "/api/v1/keys", json=body)
    assert made.status_code == 201, made.text
    tenant.keys[name] = made.json()["key"]


def test_push_is_idempotent_and_visible_at_once(tenant):
    page = "# Locks\n\nA folding lock weighs 900 grams.\n"
    first = put(tenant, "shop/locks.md", page)
    assert (first.status_code, first.json()["outcome"]) == (201, "added")
    assert "900 grams" in found(tenant, "folding lock weighs")[0]["text"]
    again = put(tenant, "shop/locks.md", page)
    assert (again.status_code, again.json()["outcome"]) == (200, "unchanged")
    third = put(tenant, "shop/locks.md", page.replace("900", "950"))
    assert (third.status_code, third.json()["outcome"]) == (200, "changed")
    hit = found(tenant, "folding lock weighs")[0]
    assert "950 grams" in hit["text"]
    assert (hit["version"], hit["superseded"]) == (2, False)


def test_media_type_decides_where_the_name_does_not(tenant):
    reply = tenant.service.client.put(
        f"{KB}/documents/wiki-77",
        content=b"<html><body><h1>Racks</h1><p>A rack carries 25 kilos.</p></body></html>",
        headers=tenant.as_("knowledge") | {"Content-Type": "text/html; charset=utf-8"},
    )
    assert reply.status_code == 201, reply.text
    assert found(tenant, "rack carries kilos")[0]["text"] == "A rack carries 25 kilos."


def test_bad_pushes_are_refused_and_leave_nothing(tenant, service):
    uploads = service.container.settings.root / "uploads"
    before = set(uploads.rglob("*"))
    assert put(tenant, "empty.md", " ").status_code == 400
    assert put(tenant, "big.md", "x" * 200_001).status_code == 413
    assert put(tenant, "x.md", "text", role="client").status_code == 403
    assert put(tenant, "n" * 501, "text").status_code == 400
    assert put(tenant, "x.md", "text", attribute="nocolon").status_code == 400
    assert put(tenant, "x.md", "text", valid_from="yesterday").status_code == 422
    assert tenant.call("PUT", "/api/v1/knowledge-bases/none/documents/x.md").status_code == 404
    assert set(uploads.rglob("*")) == before


def test_groups_close_documents_everywhere(tenant, service):
    key_of(service, tenant, "hr", ["hr"])
    key_of(service, tenant, "sales", ["sales"])
    secret = "# Bands\n\nThe Ripple salary band ends at 4,200 crowns.\n"
    assert put(tenant, "bands.md", secret, group="hr").status_code == 201
    query = "Ripple salary band ends"
    assert "4,200" in found(tenant, query, "hr")[0]["text"]
    assert all("4,200" not in h["text"] for h in found(tenant, query, "sales"))
    # A request may give groups up, never add one.
    assert all("4,200" not in h["text"] for h in found(tenant, query, "hr", groups=[]))
    assert all("4,200" not in h["text"] for h in found(tenant, query, "sales", groups=["hr"]))
    names = {row["document"] for row in tenant.call("GET", f"{KB}/documents", "sales").json()}
    assert "bands.md" not in names
    assert tenant.call("GET", f"{KB}/documents/bands.md", "sales").status_code == 404
    answer = tenant.ask("support", "Where does the Ripple salary band end?", "hr").json()
    assert "4,200" in answer["choices"][0]["message"]["content"]
    path = f"/api/v1/answers/{answer['tandem']['answer_id']}"
    assert tenant.call("GET", path, "hr").status_code == 200
    assert tenant.call("GET", path, "sales").status_code == 404
    other = tenant.ask("support", "Where does the Ripple salary band end?", "sales").json()
    assert "4,200" not in str(other)
    opened = tenant.call("PUT", f"{KB}/groups/bands.md", "knowledge", json={"groups": []})
    assert opened.json() == {"document": "bands.md", "groups": []}
    assert "4,200" in found(tenant, query, "sales")[0]["text"]


def test_whoever_is_held_to_groups_hands_out_no_others(tenant):
    body = {"name": "held", "role": "owner", "groups": ["hr"]}
    tenant.keys["held"] = tenant.call("POST", "/api/v1/keys", json=body).json()["key"]
    for wanted, got in ((None, ["hr"]), (["hr", "sales"], ["hr"]), (["sales"], [])):
        body = {"name": f"made-{got}-{wanted}"[:40], "role": "client", "groups": wanted}
        made = tenant.call("POST", "/api/v1/keys", "held", json=body)
        assert made.json()["groups"] == got


def test_answers_from_the_past_warn_that_they_are(tenant):
    from app.db.base import now

    moment = now().isoformat()
    time.sleep(0.01)
    put(tenant, "plans.md", PAGES["plans.md"].replace("49 euros", "54 euros"))
    past = tenant.ask("support", QUESTION, tandem={"as_of": moment}).json()
    assert "49 euros" in past["choices"][0]["message"]["content"]
    assert past["tandem"]["citations"][0]["superseded_by"] == 2
    present = tenant.ask("support", QUESTION).json()
    assert "54 euros" in present["choices"][0]["message"]["content"]
    assert present["tandem"]["citations"][0]["superseded_by"] is None
    rows = tenant.call("GET", f"{KB}/damage").json()
    assert all(row["document"] != "plans.md" or row["version"] == 1 for row in rows)
    assert found(tenant, "Ripple plan costs", as_of=moment)[0]["superseded"]


def test_damage_names_the_answers_a_change_touches(tenant):
    asked = tenant.ask("support", "Within how many days can a helmet be returned?").json()
    put(tenant, "returns.md", PAGES["returns.md"].replace("21 days", "30 days"))
    rows = tenant.call("GET", f"{KB}/damage").json()
    mine = [r for r in rows if r["answer"] == asked["tandem"]["answer_id"] and r["cited"]]
    assert [(r["document"], r["version"], r["now"], r["quote_still_there"]) for r in mine] == [
        ("returns.md", 1, 2, False)
    ]


def test_verify_and_rebuild(tenant):
    report = tenant.call("POST", f"{KB}/verify", "knowledge", json={"sample": 50}).json()
    assert report["clean"], report
    assert tenant.call("POST", f"{KB}/verify", "client", json={}).status_code == 403
    assert tenant.call("POST", f"{KB}/rebuild", "knowledge").is_success
    assert tenant.call("POST", f"{KB}/verify", "knowledge", json={}).json()["clean"]


def test_only_the_operator_names_files_of_the_machine(tenant, service, pages):
    for spec in (str(pages), {"kind": "git", "path": str(pages)}, {"kind": "records", "path": "x"}):
        body = {"specs": [spec]}
        assert tenant.call("POST", f"{KB}/ingest", "owner", json=body).status_code == 403
        assert tenant.call("POST", f"{KB}/syncs", "owner", json=body).status_code == 403
    body = {"specs": [{"kind": "ftp", "url": "x"}]}
    refused = tenant.call("POST", f"{KB}/ingest", "owner", json=body)
    assert refused.status_code == 400
    assert "records" in refused.json()["detail"]


def test_schedules_read_again_by_the_clock(tenant, service, pages):
    from datetime import timedelta

    from app.db.base import now

    body = {"specs": [str(pages)], "every_s": 3600, "sync": False}
    made = service.operator_in(tenant, "POST", f"{KB}/syncs", json=body)
    assert made.status_code == 201, made.text
    assert tenant.wait(made.json()["last_job"]["id"])["state"] == "succeeded"
    (pages / "new.md").write_text("# New\n\nUnicycles are sold from spring on.\n")
    service.container.ticker.tick(now())
    assert all("Unicycles" not in h["text"] for h in found(tenant, "Unicycles sold"))
    service.container.ticker.tick(now() + timedelta(seconds=3601))
    (row,) = tenant.call("GET", f"{KB}/syncs", "knowledge").json()
    assert tenant.wait(row["last_job"]["id"])["result"]["counts"]["added"] == 1
    assert "Unicycles" in found(tenant, "Unicycles sold")[0]["text"]
    path = f"{KB}/syncs/{row['id']}"
    assert tenant.call("POST", f"{path}/run", "knowledge").status_code == 202
    assert tenant.call("DELETE", path, "knowledge").is_success
    assert tenant.call("GET", f"{KB}/syncs", "knowledge").json() == []
    assert tenant.call("POST", f"{path}/run", "knowledge").status_code == 404
