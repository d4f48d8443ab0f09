"""Who generates next: a fixed number of slots, requests of one adapter together, nobody starved.

llama.cpp computes only requests of one adapter in the same batch, and serves the lowest slot's
adapter first: requests of another one, though in a slot, wait until that slot falls idle, without
end under steady traffic. So requests wait here instead, where the order is ours.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable


class Ticket:
    """A place in the queue, then a slot: `slot` is its number, -1 before."""

    __slots__ = ("_ready", "group", "likes", "since", "slot")

    def __init__(self, group: str | None, since: float, likes: Hashable) -> None:
        self.group = group
        self.likes = likes
        self.since = since
        self.slot = -1
        self._ready = threading.Event()

    @property
    def granted(self) -> bool:
        """Whether it holds a slot."""
        return self._ready.is_set()

    def grant(self) -> None:
        """Wake who waits for it."""
        self._ready.set()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Until it holds a slot; False when the time is over."""
        return self._ready.wait(timeout_s)


class SlotScheduler:
    """Grants slots to one group (adapter) at a time.

    A free slot goes to the running group first, so that its requests share batches. Once a request
    of another group has waited `patience_s` of the running group's turn, no more of the running
    group are let in, and when its last one ends the turn goes to the oldest request. A request thus
    waits for one turn (patience and the answers then under way) of every group before it at most.
    """

    def __init__(
        self,
        slots: int,
        *,
        patience_s: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slots = slots
        self._patience_s = patience_s
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting: deque[Ticket] = deque()
        # Free slots, the one unused longest first, each with what its last request liked.
        self._free: OrderedDict[int, Hashable] = OrderedDict((n, None) for n in range(slots))
        self._running: set[Ticket] = set()
        self._group: str | None = None
        self._turn_since = clock()

    @property
    def running(self) -> int:
        """Slots in use."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests without a slot."""
        return len(self._waiting)

    def enter(self, group: str | None, likes: Hashable = None) -> Ticket:
        """Queue up; the ticket must be given to `leave` in the end, granted or not.

        Args:
            group: whose requests run together.
            likes: it gets the free slot of the last request that liked the same, if there is one.
        """
        ticket = Ticket(group, self._clock(), likes)
        with self._lock:
            self._waiting.append(ticket)
            self._grant()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Give the slot, or the place in the queue, free. Twice does nothing."""
        with self._lock:
            if ticket in self._running:
                self._running.remove(ticket)
                self._free[ticket.slot] = ticket.likes
            elif ticket in self._waiting:
                self._waiting.remove(ticket)
            self._grant()

    def _grant(self) -> None:
        while self._waiting and len(self._running) < self._slots:
            ticket = self._next()
            if ticket is None:
                return
            self._waiting.remove(ticket)
            if not self._running:
                self._group = ticket.group
                self._turn_since = self._clock()
            self._running.add(ticket)
            ticket.slot = self._slot_for(ticket)
            ticket.grant()

    def _slot_for(self, ticket: Ticket) -> int:
        fits = (n for n, liked in self._free.items() if liked == ticket.likes)
        number = next(fits, next(iter(self._free)))
        del self._free[number]
        return number

    def _next(self) -> Ticket | None:
        oldest = self._waiting[0]
        if not self._running or oldest.group == self._group:
            return oldest
        waited = self._clock() - max(oldest.since, self._turn_since)
        if waited > self._patience_s:
            return None
        return next((t for t in self._waiting if t.group == self._group), None)
