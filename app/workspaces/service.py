"""Create workspaces and keys; turn a presented key into a principal."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from app.admission.limits import UNLIMITED, Limits, parse_limits
from app.db.base import now
from app.db.tables import ApiKey, Workspace
from app.errors import BadInput, Conflict, NotFound, Unauthenticated
from app.workspaces.policy import ROLES, Principal
from retrieval.types import WorkspaceId

DEFAULT_WORKSPACE = "default"
_PREFIX = "tdm"


def create_workspace(session: Session, name: str) -> Workspace:
    """A new, empty workspace."""
    check_name("workspace", name)
    if session.scalar(sa.select(Workspace).where(Workspace.name == name)):
        raise Conflict(f"workspace {name!r} exists already")
    workspace = Workspace(name=name)
    session.add(workspace)
    session.flush()
    return workspace


def ensure_default_workspace(session: Session) -> Workspace:
    """The workspace that the command line uses when none is named."""
    found = session.scalar(sa.select(Workspace).where(Workspace.name == DEFAULT_WORKSPACE))
    return found or create_workspace(session, DEFAULT_WORKSPACE)


def create_key(
    session: Session,
    workspace_id: str,
    name: str,
    role: str,
    groups: Collection[str] | None = None,
) -> str:
    """A new key; the returned secret is shown once and stored only as a hash.

    `groups` are the document groups it may be answered from; None means every document.
    """
    check_name("key", name)
    if role not in ROLES:
        raise BadInput(f"role {role!r} is unknown: choose {', '.join(ROLES)}")
    taken = sa.select(ApiKey).where(ApiKey.workspace_id == workspace_id, ApiKey.name == name)
    if session.scalar(taken):
        raise Conflict(f"a key named {name!r} exists already in this workspace")
    secret = secrets.token_urlsafe(32)
    for group in groups or ():
        check_name("group", group)
    key = ApiKey(
        workspace_id=workspace_id,
        name=name,
        role=role,
        secret_sha256=_hash(secret),
        groups=None if groups is None else sorted(set(groups)),
    )
    session.add(key)
    session.flush()
    return f"{_PREFIX}.{key.id}.{secret}"


def list_keys(session: Session, workspace_id: str) -> list[ApiKey]:
    """Keys of a workspace, oldest first."""
    query = sa.select(ApiKey).where(ApiKey.workspace_id == workspace_id)
    return list(session.scalars(query.order_by(ApiKey.created_at)))


def revoke_key(session: Session, workspace_id: str, key_id: str) -> ApiKey:
    """Refuse the key from now on."""
    key = session.get(ApiKey, key_id)
    if key is None or key.workspace_id != workspace_id:
        raise NotFound(f"no key {key_id!r} in this workspace")
    key.revoked_at = key.revoked_at or now()
    return key


@dataclass(frozen=True, slots=True)
class Caller:
    """A principal with what its key and its workspace may ask for."""

    principal: Principal
    key_id: str | None = None
    key_limits: Limits = UNLIMITED
    workspace_limits: Limits = UNLIMITED


def authenticate(session: Session, presented: str) -> Principal:
    """The principal of a key.

    Raises:
        Unauthenticated: Unknown, malformed or revoked; the message does not say which.
    """
    return identify(session, presented).principal


def identify(session: Session, presented: str) -> Caller:
    """The principal of a key, with its limits.

    Raises:
        Unauthenticated: Unknown, malformed or revoked; the message does not say which.
    """
    parts = presented.split(".")
    if len(parts) == 3 and parts[0] == _PREFIX:
        key = session.get(ApiKey, parts[1])
        if (
            key is not None
            and key.revoked_at is None
            and hmac.compare_digest(key.secret_sha256, _hash(parts[2]))
        ):
            workspace = session.get_one(Workspace, key.workspace_id)
            groups = None if key.groups is None else frozenset(key.groups)
            principal = Principal(
                WorkspaceId(workspace.id), workspace.name, key.name, key.role, groups=groups
            )
            return Caller(
                principal, key.id, parse_limits(key.limits), parse_limits(workspace.limits)
            )
    raise Unauthenticated("the API key is not valid: create one with `tandem keys create`")


def find_key(session: Session, workspace_id: str, key: str) -> ApiKey:
    """A key of the workspace by id or name, with the valid names in the error."""
    keys = list_keys(session, workspace_id)
    for found in keys:
        if key in (found.id, found.name):
            return found
    known = ", ".join(k.name for k in keys) or "none yet"
    raise NotFound(f"no key {key!r} in this workspace: there are {known}")


def limit_key(
    session: Session, workspace_id: str, key: str, changes: Mapping[str, Any]
) -> tuple[ApiKey, Limits]:
    """Change some limits of a key; None takes one away."""
    found = find_key(session, workspace_id, key)
    limits = parse_limits({**(found.limits or {}), **changes})
    found.limits = limits.as_json()
    return found, limits


def limit_workspace(
    session: Session, name: str, changes: Mapping[str, Any]
) -> tuple[Workspace, Limits]:
    """Change some limits of a workspace; None takes one away."""
    found = session.scalar(sa.select(Workspace).where(Workspace.name == name))
    if found is None:
        names = ", ".join(session.scalars(sa.select(Workspace.name).order_by(Workspace.name)))
        raise NotFound(f"no workspace {name!r}: there are {names}")
    limits = parse_limits({**(found.limits or {}), **changes})
    found.limits = limits.as_json()
    return found, limits


def operator_principal(session: Session, workspace_name: str, acting_as: str) -> Principal:
    """The person at this machine's command line, in any workspace, under the name they give."""
    workspace = session.scalar(sa.select(Workspace).where(Workspace.name == workspace_name))
    if workspace is None:
        names = ", ".join(session.scalars(sa.select(Workspace.name).order_by(Workspace.name)))
        raise NotFound(f"no workspace {workspace_name!r}: there are {names}")
    check_name("person", acting_as)
    return Principal(WorkspaceId(workspace.id), workspace.name, acting_as, "owner", operator=True)


def check_name(what: str, name: str) -> None:
    """Names are 1-100 printable characters without path separators."""
    if not 1 <= len(name) <= 100 or not name.isprintable() or set(name) & set("/\\:"):
        raise BadInput(f"{what} name {name!r} must be 1-100 printable characters without / \\ :")


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
