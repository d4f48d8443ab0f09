"""Workspaces and keys over HTTP."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict

from app.db.tables import Workspace
from app.dependencies import ContainerDep, PrincipalDep
from app.errors import Forbidden
from app.workspaces import service

router = APIRouter(tags=["workspaces"])


class NewWorkspace(BaseModel):
    """A workspace to create."""

    name: str


class NewKey(BaseModel):
    """A key to create."""

    name: str
    role: str
    groups: list[str] | None = None


class LimitChanges(BaseModel):
    """Limits to change; null takes one away, what is not named stays."""

    model_config = ConfigDict(extra="forbid")

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tokens_per_day: int | None = None
    concurrency: int | None = None

    def given(self) -> dict[str, int | None]:
        """Only what the request names."""
        return self.model_dump(exclude_unset=True)


@router.post("/workspaces", status_code=201)
def create_workspace(
    body: NewWorkspace, container: ContainerDep, principal: PrincipalDep
) -> dict[str, str]:
    """Create a workspace (the operator of the machine only)."""
    if not principal.operator:
        raise Forbidden("only the operator of this machine may create workspaces")
    with container.database.session() as session:
        workspace = service.create_workspace(session, body.name)
        return {"id": workspace.id, "name": workspace.name}


@router.get("/workspaces")
def list_workspaces(container: ContainerDep, principal: PrincipalDep) -> list[dict[str, str]]:
    """All workspaces for the operator, otherwise the caller's own."""
    with container.database.session() as session:
        query = sa.select(Workspace).order_by(Workspace.name)
        if not principal.operator:
            query = query.where(Workspace.id == principal.workspace_id)
        return [{"id": row.id, "name": row.name} for row in session.scalars(query)]


@router.post("/keys", status_code=201)
def create_key(body: NewKey, container: ContainerDep, principal: PrincipalDep) -> dict[str, Any]:
    """Create a key; the secret in the reply is shown this once.

    Whoever is held to groups can only hand out some of them.
    """
    principal.require("keys.write")
    with container.database.session() as session:
        groups = principal.groups_for(body.groups)
        secret = service.create_key(session, principal.workspace_id, body.name, body.role, groups)
    told = None if groups is None else sorted(groups)
    return {"name": body.name, "role": body.role, "groups": told, "key": secret}


@router.get("/keys")
def list_keys(container: ContainerDep, principal: PrincipalDep) -> list[dict[str, Any]]:
    """Keys of the workspace, without secrets."""
    principal.require("keys.write")
    with container.database.session() as session:
        return [
            {
                "id": key.id,
                "name": key.name,
                "role": key.role,
                "groups": key.groups,
                "limits": key.limits or {},
                "revoked": bool(key.revoked_at),
            }
            for key in service.list_keys(session, principal.workspace_id)
        ]


@router.delete("/keys/{key_id}")
def revoke_key(key_id: str, container: ContainerDep, principal: PrincipalDep) -> dict[str, str]:
    """Refuse a key from now on."""
    principal.require("keys.write")
    with container.database.session() as session:
        key = service.revoke_key(session, principal.workspace_id, key_id)
        told = {"id": key.id, "name": key.name, "state": "revoked"}
    container.callers.forget()
    return told


@router.patch("/keys/{key}/limits")
def limit_key(
    key: str, body: LimitChanges, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Change what a key (by id or name) may ask for."""
    principal.require("keys.write")
    with container.database.session() as session:
        found, limits = service.limit_key(session, principal.workspace_id, key, body.given())
        told = {"id": found.id, "name": found.name, "limits": limits.as_json()}
    container.callers.forget()
    return told


@router.patch("/workspaces/{name}/limits")
def limit_workspace(
    name: str, body: LimitChanges, container: ContainerDep, principal: PrincipalDep
) -> dict[str, Any]:
    """Change what all keys of a workspace may ask for together (the operator only)."""
    if not principal.operator:
        raise Forbidden("only the operator of this machine may limit workspaces")
    with container.database.session() as session:
        found, limits = service.limit_workspace(session, name, body.given())
        told = {"id": found.id, "name": found.name, "limits": limits.as_json()}
    container.callers.forget()
    return told
