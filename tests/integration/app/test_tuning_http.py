"""Stages, rollback, run events and recommendations over HTTP, as people call them."""

import pytest
from factories import add_adapter

from app.db.tables import Adapter, UseCase


@pytest.fixture(scope="module")
def tenant(service, tmp_path_factory):
    """A tenant whose use case owns two candidates beside the adapter that serves."""
    tenant = service.furnished()
    for letter in "ab":
        made = add_adapter(service.container, f"house-{letter}", letter * 64, tenant.id)
        with service.container.database.session() as session:
            use_case = session.query(UseCase).filter_by(workspace_id=tenant.id).one()
            adapter = session.get_one(Adapter, made)
            adapter.use_case_id = use_case.id
            # Only an adapter whose folder is there may go live.
            adapter.path = str(tmp_path_factory.mktemp(adapter.name))
    return tenant


def stage(tenant, adapter, to, role="ml"):
    body = {"stage": to, "reason": "tested"}
    return tenant.call("POST", f"/api/v1/adapters/{adapter}/stage", role, json=body)


def serving(tenant):
    found = tenant.call("GET", "/api/v1/adapters").json()
    return {row["name"]: row["stage"] for row in found if not row["shipped"]}


def test_adapters_go_live_and_back(tenant):
    for adapter in ("house-a", "house-b"):
        assert stage(tenant, adapter, "staged").status_code == 200
        assert stage(tenant, adapter, "live").json()["stage"] == "live"
    assert serving(tenant) == {"house": "staged", "house-a": "staged", "house-b": "live"}
    path = "/api/v1/use-cases/support/adapters/rollback"
    back = tenant.call("POST", path, "ml", json={"reason": "complaints"})
    assert back.json()["name"] == "house-a"
    assert serving(tenant)["house-b"] == "retired"
    answer = tenant.ask("support", "How long do refunds take?").json()
    assert answer["tandem"]["identity"]["adapter"] == "a" * 64
    moves = tenant.call("GET", "/api/v1/adapters/house-b/history").json()
    assert [(m["from"], m["to"]) for m in moves] == [
        ("candidate", "staged"),
        ("staged", "live"),
        ("live", "retired"),
    ]
    assert moves[-1]["by"] == "ml-person"


def test_stages_are_refused_with_the_choices_and_by_role(tenant):
    assert stage(tenant, "house-a", "prod").status_code == 400
    assert stage(tenant, "house-b", "live").status_code == 409
    assert "next can be staged" in stage(tenant, "house-b", "live").json()["detail"]
    assert stage(tenant, "house-b", "staged", role="client").status_code == 403
    assert stage(tenant, "nobody", "staged").status_code == 404


def test_events_and_recommendations_of_unknown_things_are_not_found(tenant):
    assert tenant.call("GET", "/api/v1/tuning-runs/none/events").status_code == 404
    body = {"use_case": "support", "dataset": "none"}
    reply = tenant.call("POST", "/api/v1/tuning-runs/explain", "ml", json=body)
    assert reply.status_code == 404
    bad = {**body, "settings": {"method": "adalora"}}
    assert tenant.call("POST", "/api/v1/tuning-runs", "ml", json=bad).status_code in (400, 404)
