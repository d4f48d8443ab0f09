"""The policy table, action by action and role by role."""

import pytest

from app.errors import Forbidden
from app.workspaces.policy import _POLICY, ROLES, Principal

EVERYONE = set(ROLES)
EXPECTED = {
    "ask": EVERYONE,
    "read": EVERYONE,
    "feedback": EVERYONE,
    "knowledge.write": {"owner", "knowledge"},
    "review": {"owner", "reviewer"},
    "examples.write": {"owner", "ml", "reviewer"},
    "tune": {"owner", "ml"},
    "evaluate": {"owner", "ml"},
    "decide": {"owner", "ml"},
    "use_cases.write": {"owner", "ml"},
    "keys.write": {"owner"},
    "local_paths": set(),
}


def test_table_names_exactly_these_actions():
    assert set(_POLICY) == set(EXPECTED)


@pytest.mark.parametrize("action", EXPECTED)
@pytest.mark.parametrize("role", ROLES)
def test_role_may_do_what_the_table_says_and_nothing_else(action, role):
    principal = Principal("w", "default", "ada", role)
    if role in EXPECTED[action]:
        principal.require(action)
        return
    with pytest.raises(Forbidden, match=f"role '{role}' may not {action}"):
        principal.require(action)


@pytest.mark.parametrize("action", EXPECTED)
def test_operator_may_do_everything(action):
    Principal("w", "default", "olga", "owner", operator=True).require(action)


def test_action_nobody_wrote_into_the_table_is_no_permission():
    with pytest.raises(KeyError):
        Principal("w", "default", "ada", "owner").require("fly")


def test_unknown_role_may_do_nothing():
    for action in EXPECTED:
        with pytest.raises(Forbidden):
            Principal("w", "default", "ada", "ghost").require(action)
