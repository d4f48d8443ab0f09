"""Who presents a credential; remembered for two seconds, so that not every request asks SQL."""

from __future__ import annotations

import hashlib
import hmac
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import unquote

from app.db.session import Database
from app.errors import Unauthenticated
from app.workspaces import service as workspaces
from app.workspaces.service import Caller

OPERATOR_PREFIX = "operator."
_REMEMBERED_S = 2.0
_MOST = 10_000


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request presents; `workspace` and `acting_as` count for the operator only."""

    authorization: str
    workspace: str = workspaces.DEFAULT_WORKSPACE
    acting_as: str = "operator"


class Callers:
    """Turns credentials into callers. A key revoked in another process stops within 2 s here."""

    def __init__(
        self,
        database: Database,
        operator_proof: Callable[[], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`operator_proof` gives the data directory's secret, `clock` monotonic seconds."""
        self._database = database
        self._operator_proof = operator_proof
        self._clock = clock
        self._known: dict[str, tuple[float, Caller]] = {}
        self._lock = threading.Lock()
        self._epoch = 0

    def remembered(self, credentials: Credentials) -> Caller | None:
        """The caller, if it was identified in the last two seconds."""
        found = self._known.get(_digest(credentials))
        return found[1] if found and found[0] > self._clock() else None

    def identify(self, credentials: Credentials) -> Caller:
        """The caller, from SQL.

        Raises:
            Unauthenticated: No key, or one that is not valid.
        """
        epoch = self._epoch
        scheme, _, presented = credentials.authorization.partition(" ")
        if scheme.lower() != "bearer" or not presented:
            raise Unauthenticated("give an API key: `Authorization: Bearer KEY`")
        with self._database.reading() as session:
            if presented.startswith(OPERATOR_PREFIX):
                secret = presented.removeprefix(OPERATOR_PREFIX)
                if not hmac.compare_digest(secret.encode(), self._operator_proof().encode()):
                    raise Unauthenticated("the operator secret is not this data directory's")
                named = unquote(credentials.workspace), unquote(credentials.acting_as)
                caller = Caller(workspaces.operator_principal(session, *named))
            else:
                caller = workspaces.identify(session, presented)
        with self._lock:
            if epoch == self._epoch:  # else a key changed while this was being read
                if len(self._known) >= _MOST:
                    self._known.clear()
                self._known[_digest(credentials)] = (self._clock() + _REMEMBERED_S, caller)
        return caller

    def forget(self) -> None:
        """Ask SQL again: a key or its limits changed."""
        with self._lock:
            self._epoch += 1
            self._known.clear()


def _digest(credentials: Credentials) -> str:
    parts = (credentials.authorization, credentials.workspace, credentials.acting_as)
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
