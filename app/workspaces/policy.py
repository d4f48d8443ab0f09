"""The one policy table: which role may do what. Endpoints name an action, never a role."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from app.errors import Forbidden
from retrieval.types import WorkspaceId

Role = Literal["owner", "knowledge", "reviewer", "ml", "client"]
ROLES: tuple[Role, ...] = ("owner", "knowledge", "reviewer", "ml", "client")

_EVERYONE = frozenset(ROLES)
_POLICY: dict[str, frozenset[str]] = {
    "ask": _EVERYONE,
    "read": _EVERYONE,
    "feedback": _EVERYONE,
    "knowledge.write": frozenset({"owner", "knowledge"}),
    "review": frozenset({"owner", "reviewer"}),
    "examples.write": frozenset({"owner", "ml", "reviewer"}),
    "tune": frozenset({"owner", "ml"}),
    "evaluate": frozenset({"owner", "ml"}),
    "decide": frozenset({"owner", "ml"}),
    "use_cases.write": frozenset({"owner", "ml"}),
    "keys.write": frozenset({"owner"}),
    "local_paths": frozenset(),  # only the operator on this machine
}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who acts, in which workspace. Made only by authentication.

    `groups`: the document groups it may be answered from; None means every document.
    """

    workspace_id: WorkspaceId
    workspace: str
    name: str
    role: str
    operator: bool = False
    groups: frozenset[str] | None = None

    def groups_for(self, asked: Collection[str] | None) -> frozenset[str] | None:
        """The groups a request runs with: it may give some of its own up, never add one.

        None sees every document of the workspace.
        """
        if asked is None:
            return self.groups
        return frozenset(asked) if self.groups is None else self.groups & frozenset(asked)

    def require(self, action: str) -> None:
        """Raise Forbidden unless the role allows the action."""
        if self.operator:
            return
        if self.role not in _POLICY[action]:
            allowed = ", ".join(sorted(_POLICY[action])) or "the operator of this machine only"
            raise Forbidden(f"role {self.role!r} may not {action}: it takes {allowed}")
