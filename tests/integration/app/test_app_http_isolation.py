"""A workspace never sees what another one has; a role does only what the policy table says."""

import json

import pytest
from fastapi import APIRouter
from fastapi.routing import APIRoute

from app.workspaces.policy import ROLES

SECRET = "Quagga"
PAGES = {"secret.md": f"# Vault\n\nThe vault password of the company is {SECRET} today.\n"}


@pytest.fixture(scope="module")
def alpha(service):
    tenant = service.furnished(PAGES)
    asked = tenant.ask("support", "What is the vault password of the company?").json()
    tenant.answer = asked["tandem"]["answer_id"]
    assert SECRET in asked["choices"][0]["message"]["content"]
    body = {"answer_id": tenant.answer, "rating": "down", "correction": f"{SECRET}!"}
    tenant.review = tenant.call("POST", "/api/v1/feedback", "client", json=body).json()["review"]
    tenant.job = tenant.call("GET", "/api/v1/jobs").json()[0]["id"]
    return tenant


@pytest.fixture(scope="module")
def beta(service, alpha):
    return service.furnished({"other.md": "# Other\n\nNothing to see in this company page.\n"})


def test_items_of_another_workspace_are_not_found(alpha, beta):
    kb = "/api/v1/knowledge-bases"
    with alpha.service.container.database.session() as session:
        from app.db.tables import Adapter, KnowledgeBase, UseCase

        kb_id = session.query(KnowledgeBase).filter_by(workspace_id=alpha.id).one().id
        adapter = session.query(Adapter).filter_by(workspace_id=alpha.id).one().id
        use_case = session.query(UseCase).filter_by(workspace_id=alpha.id).one().id
    keys = alpha.call("GET", "/api/v1/keys").json()
    attempts = [
        ("GET", f"/api/v1/answers/{alpha.answer}", None),
        ("GET", f"/api/v1/jobs/{alpha.job}", None),
        ("GET", f"/api/v1/jobs/{alpha.job}/events", None),
        ("POST", f"/api/v1/reviews/{alpha.review}", {"decision": "approve"}),
        ("POST", "/api/v1/feedback", {"answer_id": alpha.answer, "rating": "up"}),
        ("GET", f"{kb}/{kb_id}/documents", None),
        ("GET", f"{kb}/{kb_id}/documents/secret.md", None),
        ("DELETE", f"{kb}/{kb_id}/documents/secret.md", None),
        ("POST", f"{kb}/{kb_id}/search", {"query": "vault password"}),
        ("POST", f"{kb}/{kb_id}/rebuild", None),
        ("GET", f"{kb}/docs/documents/secret.md", None),
        ("GET", f"/api/v1/use-cases/{use_case}", None),
        ("PATCH", "/api/v1/use-cases/support", {"adapter": adapter}),
        ("DELETE", f"/api/v1/keys/{keys[0]['id']}", None),
        ("POST", "/api/v1/use-cases", {"name": "x", "knowledge_bases": [kb_id]}),
    ]
    for method, path, body in attempts:
        reply = beta.call(method, path, json=body)
        assert reply.status_code == 404, (method, path, reply.text)
        assert SECRET not in reply.text


def test_lists_and_searches_show_only_the_own_workspace(alpha, beta):
    for path in ("knowledge-bases", "use-cases", "jobs", "reviews?state=all", "keys", "workspaces"):
        reply = beta.call("GET", f"/api/v1/{path}")
        assert reply.status_code == 200
        assert SECRET not in reply.text
        assert alpha.id not in reply.text
        assert alpha.name not in reply.text
    found = beta.call(
        "POST", "/api/v1/knowledge-bases/docs/search", json={"query": f"vault password {SECRET}"}
    )
    assert SECRET not in json.dumps(found.json()["hits"])


def test_same_question_to_a_use_case_of_the_same_name_stays_inside(alpha, beta):
    reply = beta.ask("support", "What is the vault password of the company?")
    assert reply.status_code == 200
    assert SECRET not in reply.text
    assert alpha.name not in reply.text


def test_key_chooses_the_workspace_whatever_the_header_says(alpha, beta):
    headers = beta.as_("owner") | {"X-Tandem-Workspace": alpha.name, "X-Tandem-As": "olga"}
    reply = beta.service.client.get("/api/v1/jobs", headers=headers)
    assert alpha.job not in reply.text


def api_routes(app):
    found = []
    for route in app.openapi()["paths"].items():
        path, methods = route
        found += [(method.upper(), path) for method in methods]
    return found


def test_every_api_route_demands_a_key(service):
    client = service.client
    routes = api_routes(client.app)
    assert len(routes) > 30
    closed = [r for r in routes if r[1].startswith(("/api/v1", "/v1"))]
    for method, path in closed:
        address = path.replace("{", "").replace("}", "").replace(":path", "")
        for headers in (
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": "Bearer tdm.x.y"},
            {"Authorization": "Basic b3BlcmF0b3I6eA=="},
            {"Authorization": b"Bearer operator.\xe9"},
            {"Authorization": "Bearer operator."},
        ):
            reply = client.request(method, address, headers=headers)
            assert reply.status_code == 401, (method, path, headers, reply.text)
    opened = {path for _, path in routes} - {path for _, path in closed}
    assert opened <= {"/health", "/ready", "/metrics"}


def test_revoked_key_is_refused_at_once(service):
    tenant = service.tenant()
    key = tenant.call("GET", "/api/v1/keys").json()[-1]
    assert key["name"] == "client-person"
    assert tenant.call("GET", "/api/v1/use-cases", "client").status_code == 200
    tenant.call("DELETE", f"/api/v1/keys/{key['id']}")
    assert tenant.call("GET", "/api/v1/use-cases", "client").status_code == 401


ACTIONS = {
    ("POST", "/api/v1/knowledge-bases"): {"owner", "knowledge"},
    ("POST", "/api/v1/knowledge-bases/docs/rebuild"): {"owner", "knowledge"},
    ("DELETE", "/api/v1/knowledge-bases/docs/documents/x"): {"owner", "knowledge"},
    ("POST", "/api/v1/reviews/x"): {"owner", "reviewer"},
    ("POST", "/api/v1/datasets"): {"owner", "ml", "reviewer"},
    ("POST", "/api/v1/tuning-runs"): {"owner", "ml"},
    ("POST", "/api/v1/decisions"): {"owner", "ml"},
    ("POST", "/api/v1/use-cases"): {"owner", "ml"},
    ("PATCH", "/api/v1/use-cases/none"): {"owner", "ml"},
    ("POST", "/api/v1/keys"): {"owner"},
    ("GET", "/api/v1/keys"): {"owner"},
    ("POST", "/api/v1/workspaces"): set(),
    ("POST", "/api/v1/evaluations"): set(),
    ("POST", "/api/v1/adapters"): set(),
    ("POST", "/api/v1/knowledge-bases/docs/ingest"): set(),
}
BODIES = {
    "/api/v1/knowledge-bases": {"name": ""},
    "/api/v1/reviews/x": {"decision": "approve"},
    "/api/v1/datasets": {"use_case": "none"},
    "/api/v1/tuning-runs": {"use_case": "none", "dataset": "none"},
    "/api/v1/decisions": {"use_case": "none"},
    "/api/v1/use-cases": {"name": ""},
    "/api/v1/use-cases/none": {"arm": "rag"},
    "/api/v1/keys": {"name": "", "role": "client"},
    "/api/v1/workspaces": {"name": ""},
    "/api/v1/evaluations": {"use_case": "none", "samples": "/none"},
    "/api/v1/adapters": {"use_case": "none", "path": "/none"},
    "/api/v1/knowledge-bases/docs/ingest": {"paths": ["/none"]},
}


@pytest.mark.parametrize("role", ROLES)
def test_roles_are_let_through_or_refused_with_the_roles_it_takes(beta, role):
    for (method, path), allowed in ACTIONS.items():
        body = BODIES.get(path) if method != "GET" else None
        reply = beta.call(method, path, role, json=body)
        if role in allowed:
            assert reply.status_code in (200, 400, 404), (method, path, reply.text)
        else:
            assert reply.status_code == 403, (method, path, reply.text)
            assert reply.json()["title"] == "Not allowed"


def test_every_route_under_api_names_an_action_or_the_operator(service):
    import inspect

    import app.main as main

    routers = [value for value in vars(main).values() if isinstance(value, APIRouter)]
    endpoints = {r.endpoint for router in routers for r in router.routes if isinstance(r, APIRoute)}
    assert len(endpoints) > 30
    exempt = {"list_workspaces"}  # filters by the caller's own workspace
    for endpoint in endpoints:
        if endpoint.__name__ not in exempt:
            source = inspect.getsource(endpoint)
            assert ".require(" in source or "principal.operator" in source, endpoint


def test_operator_in_an_unknown_workspace_is_told_the_known_ones(service, alpha):
    headers = service.operator | {"X-Tandem-Workspace": "nowhere"}
    reply = service.client.get("/api/v1/jobs", headers=headers)
    assert reply.status_code == 404
    assert "default" in reply.json()["detail"]
