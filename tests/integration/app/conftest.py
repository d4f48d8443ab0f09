"""One service per test file: real SQL, real vectors, durable jobs, and models without weights."""

import itertools
import time
from dataclasses import dataclass, field

import httpx
import pytest
from factories import add_adapter, make_container, write_pages
from knowledge_world import World
from starlette.testclient import TestClient

from app.main import create_app
from app.workspaces import service as workspaces

PAGES = {
    "plans.md": (
        "# Plans\n\n## Monthly prices\n\nThe Ripple plan costs 49 euros a month. "
        "The Torrent plan costs 79 euros a month.\n\n"
        "## Switching\n\nMembers can switch plans once every 60 days.\n"
    ),
    "returns.md": "# Returns\n\nA helmet can be returned within 21 days after delivery.\n",
    "hours.txt": "Workshop hours\n\nThe workshop in Harbour Street opens at 8:30 on weekdays.\n",
}
_number = itertools.count(1)


@dataclass
class Tenant:
    """A workspace with one key per role; `as_(role)` gives request headers."""

    service: "Service"
    name: str
    id: str
    keys: dict[str, str] = field(default_factory=dict)

    def as_(self, role: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.keys[role]}"}

    def call(self, method: str, path: str, role: str = "owner", **kwargs) -> httpx.Response:
        return self.service.client.request(method, path, headers=self.as_(role), **kwargs)

    def upload(self, kb: str, pages: dict[str, str]) -> dict:
        files = [("files", (name, text.encode())) for name, text in pages.items()]
        reply = self.call("POST", f"/api/v1/knowledge-bases/{kb}/documents", files=files)
        assert reply.status_code == 202, reply.text
        return self.wait(reply.json()["id"])

    def wait(self, job_id: str) -> dict:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            job = self.call("GET", f"/api/v1/jobs/{job_id}").json()
            if job["state"] in ("succeeded", "failed"):
                return job
            time.sleep(0.05)
        raise AssertionError(f"job {job_id} did not end: {job}")

    def ask(self, use_case: str, question: str, role: str = "client", **extra) -> httpx.Response:
        body = {"model": use_case, "messages": [{"role": "user", "content": question}], **extra}
        return self.call("POST", "/v1/chat/completions", role, json=body)


class Service:
    """A running application and ways to talk to it."""

    def __init__(self, container, client: TestClient, folder) -> None:
        self.container = container
        self.client = client
        self.folder = folder

    @property
    def operator(self) -> dict[str, str]:
        return {"Authorization": f"Bearer operator.{self.container.operator_proof}"}

    def tenant(self) -> Tenant:
        name = f"tenant-{next(_number)}"
        with self.container.database.session() as session:
            workspace = workspaces.create_workspace(session, name)
            tenant = Tenant(self, name, workspace.id)
            for role in ("owner", "knowledge", "reviewer", "ml", "client"):
                person = f"{role}-person"
                tenant.keys[role] = workspaces.create_key(session, workspace.id, person, role)
        return tenant

    def furnished(self, pages: dict[str, str] | None = None) -> Tenant:
        """A tenant with knowledge base `docs`, use case `support` and its own adapter."""
        tenant = self.tenant()
        assert tenant.call("POST", "/api/v1/knowledge-bases", json={"name": "docs"}).is_success
        job = tenant.upload("docs", pages or PAGES)
        assert job["state"] == "succeeded", job
        body = {"name": "support", "knowledge_bases": ["docs"]}
        assert tenant.call("POST", "/api/v1/use-cases", json=body).is_success
        adapter = add_adapter(self.container, "house", workspace_id=tenant.id)
        made = tenant.call("PATCH", "/api/v1/use-cases/support", json={"adapter": adapter})
        assert made.is_success, made.text
        return tenant

    def operator_in(self, tenant: Tenant, method: str, path: str, **kwargs) -> httpx.Response:
        headers = self.operator | {"X-Tandem-Workspace": tenant.name, "X-Tandem-As": "olga"}
        return self.client.request(method, path, headers=headers, **kwargs)


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    container = make_container(home)
    with TestClient(create_app(container), raise_server_exceptions=False) as client:
        yield Service(container, client, tmp_path_factory.mktemp("files"))


@pytest.fixture
def pages(tmp_path):
    return write_pages(tmp_path / "pages", PAGES)


@pytest.fixture
def postgres_url():
    """A scratch database of the local PostgreSQL server, dropped afterwards."""
    import os
    import uuid

    import psycopg

    server = os.environ.get("TANDEM_TEST_POSTGRES", "postgresql://postgres@127.0.0.1")
    name = f"tandem_test_{uuid.uuid4().hex[:12]}"
    try:
        admin = psycopg.connect(f"{server}/postgres", autocommit=True, connect_timeout=3)
    except psycopg.OperationalError as error:
        pytest.skip(f"no PostgreSQL server at {server}: {str(error).splitlines()[0]}")
    with admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield f"{server}/{name}"
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgresql"])
def world(request, tmp_path):
    url = None if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    world = World(tmp_path, url)
    yield world
    world.close()


@pytest.fixture
def local(tmp_path):
    world = World(tmp_path)
    yield world
    world.close()
