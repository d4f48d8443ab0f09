"""Datasets over HTTP: card, diff, tickets and the recall probe, each within its workspace."""

import pytest
from factories import write_jsonl

PLANS = {
    "Ripple": ("What does the Ripple plan cost a month?", "49 euros a month", "plans.md"),
    "Torrent": ("What does the Torrent plan cost a month?", "79 euros a month", "plans.md"),
    "helmet": ("How long can a helmet be returned after delivery?", "within 21 days", "returns.md"),
}


def records(names):
    return [
        {
            "instruction": PLANS[name][0],
            "output": f"It is {PLANS[name][1]} {{cite}}.",
            "metadata": {"sources": [PLANS[name][2]], "gold_text": PLANS[name][1], "author": "ada"},
        }
        for name in names
    ]


@pytest.fixture(scope="module")
def built(service):
    tenant = service.furnished()
    made = []
    for names in (("Ripple",), ("Ripple", "Torrent", "helmet")):
        file = write_jsonl(service.folder / f"{len(names)}.jsonl", records(names))
        body = {"use_case": "support", "from_file": str(file), "dev": 0, "test": 0}
        reply = service.operator_in(tenant, "POST", "/api/v1/datasets", json=body)
        assert reply.status_code == 201, reply.text
        made.append(reply.json())
    return tenant, made


def test_card_is_a_page_and_its_flags(built):
    tenant, (_, second) = built
    path = f"/api/v1/datasets/{second['id']}/card"
    page = tenant.call("GET", path, "client")
    assert page.headers["content-type"].startswith("text/html")
    assert second["content_sha256"] in page.text
    record = tenant.call("GET", path, "client", params={"as_json": True}).json()
    assert record["html"] == page.text
    assert isinstance(record["flags"], list)


def test_diff_of_two_snapshots(built):
    tenant, (first, second) = built
    path = f"/api/v1/datasets/{first['id']}/diff/{second['id']}"
    found = tenant.call("GET", path, "client").json()
    assert (len(found["added"]), found["removed"], found["same"]) == (2, [], 1)
    assert found["identical"] is False
    assert second["signed"] is True
    assert len(tenant.call("GET", "/api/v1/datasets", "client").json()) == 2


def test_recall_probe_tells_reading_from_knowing(built):
    tenant, (_, second) = built
    adapter = tenant.call("GET", "/api/v1/adapters").json()[0]["id"]
    path, body = f"/api/v1/adapters/{adapter}/recall", {"dataset": second["id"]}
    found = tenant.call("POST", path, "ml", json=body).json()
    # The stand-in engine answers without passages with one fixed sentence.
    assert (found["asked"], found["tuned"]) == (3, 0.0)
    assert (found["passed"], found["verdict"]) == (None, "not measured")  # of five at least
    missing = tenant.call("POST", "/api/v1/adapters/none/recall", "ml", json=body)
    assert missing.status_code == 404
    assert tenant.call("POST", path, "client", json=body).status_code == 403


def test_ticket_is_opened_listed_and_closed(built):
    tenant, _ = built
    answer = tenant.ask("support", PLANS["Ripple"][0]).json()["tandem"]["answer_id"]
    body = {"answer_id": answer, "rating": "down", "correction": "It costs 99 euros a month."}
    review = tenant.call("POST", "/api/v1/feedback", "client", json=body).json()["review"]
    verdict = {"decision": "approve"}
    made = tenant.call("POST", f"/api/v1/reviews/{review}", "reviewer", json=verdict).json()
    assert (made["outcome"], made["class"]) == ("knowledge_gap", "value")
    (ticket,) = tenant.call("GET", "/api/v1/tickets", "client").json()
    assert (ticket["id"], ticket["kind"]) == (made["ticket"], "knowledge")
    path = f"/api/v1/tickets/{ticket['id']}/close"
    assert tenant.call("POST", path, "client").status_code == 403
    assert tenant.call("POST", path, "knowledge").json()["state"] == "closed"
    assert tenant.call("POST", path, "knowledge").status_code == 409


def test_nothing_of_another_workspace_is_seen(built, service):
    _tenant, (first, second) = built
    other = service.tenant()
    for path in (
        f"datasets/{first['id']}/card",
        f"datasets/{first['id']}/diff/{second['id']}",
    ):
        assert other.call("GET", f"/api/v1/{path}").status_code == 404, path
    assert other.call("GET", "/api/v1/datasets").json() == []
    assert other.call("GET", "/api/v1/tickets", params={"state": "all"}).json() == []
