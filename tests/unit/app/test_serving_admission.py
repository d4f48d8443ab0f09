"""Quotas, the gate and remembered callers, without HTTP."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.admission.callers import Callers, Credentials
from app.admission.gate import Gate
from app.admission.limits import Limits, parse_limits
from app.admission.quotas import MemoryQuotas, Subject
from app.admission.service import Admission, Ticket
from app.errors import BadInput, DependencyDown, Overloaded, QuotaExceeded, Unauthenticated
from app.workspaces import service as workspaces


class Clock:
    def __init__(self):
        self.seconds = 1000.0
        self.moment = datetime(2026, 3, 1, 23, 0, tzinfo=UTC)

    def __call__(self):
        return self.seconds

    def today(self):
        return self.moment

    def forward(self, seconds):
        self.seconds += seconds
        self.moment += timedelta(seconds=seconds)


def key(**limits):
    return Subject("key", "k1", "shop", Limits(**limits))


def admitted(quotas, subjects, ticket="t"):
    try:
        asyncio.run(quotas.admit(subjects, ticket))
    except QuotaExceeded:
        return False
    return True


@given(
    most=st.integers(1, 5),
    steps=st.lists(st.floats(0, 40, allow_nan=False), min_size=1, max_size=30),
)
def test_no_minute_ever_holds_more_requests_than_allowed(most, steps):
    clock = Clock()
    quotas = MemoryQuotas(clock, clock.today)
    let_in = []
    for number, step in enumerate(steps):
        clock.forward(step)
        if admitted(quotas, [key(requests_per_minute=most)], str(number)):
            let_in.append(clock())
    for end in let_in:
        assert sum(end - 60 < at <= end for at in let_in) <= most
    # and no request is refused without need
    assert len(let_in) >= min(most, len(steps))


def test_refusal_says_when_the_same_request_is_let_in():
    clock = Clock()
    quotas = MemoryQuotas(clock, clock.today)
    subject = key(requests_per_minute=2)
    assert admitted(quotas, [subject])
    clock.forward(10)
    assert admitted(quotas, [subject])
    with pytest.raises(QuotaExceeded, match="key 'shop' may use 2 requests a minute") as refused:
        asyncio.run(quotas.admit([subject], "t"))
    assert refused.value.retry_after == 50
    clock.forward(refused.value.retry_after)
    assert admitted(quotas, [subject])


def test_tokens_that_were_used_close_the_window_until_they_leave_it():
    clock = Clock()
    quotas = MemoryQuotas(clock, clock.today)
    subject = key(tokens_per_minute=100)
    assert admitted(quotas, [subject])
    asyncio.run(quotas.charge([subject], 250))  # overdrawn by the one that was let in
    with pytest.raises(QuotaExceeded, match="100 tokens a minute") as refused:
        asyncio.run(quotas.admit([subject], "t"))
    clock.forward(refused.value.retry_after - 1)
    assert not admitted(quotas, [subject])
    clock.forward(1)
    assert admitted(quotas, [subject])


def test_a_day_ends_at_midnight_and_counts_what_was_used_before():
    clock = Clock()
    quotas = MemoryQuotas(clock, clock.today)
    subject = key(tokens_per_day=100)
    assert not asyncio.run(quotas.known_day(subject))
    asyncio.run(quotas.start_day(subject, 100))
    asyncio.run(quotas.start_day(subject, 5))  # only once a day
    with pytest.raises(QuotaExceeded, match="tokens a day") as refused:
        asyncio.run(quotas.admit([subject], "t"))
    assert refused.value.retry_after == 3600
    clock.forward(3600)
    assert not asyncio.run(quotas.known_day(subject))
    assert admitted(quotas, [subject])


def test_concurrency_is_given_back():
    quotas = MemoryQuotas()
    subject = key(concurrency=2)
    assert admitted(quotas, [subject], "a")
    assert admitted(quotas, [subject], "b")
    assert not admitted(quotas, [subject], "c")
    asyncio.run(quotas.release([subject], "a"))
    assert admitted(quotas, [subject], "c")


def test_what_one_subject_refuses_is_counted_for_none():
    quotas = MemoryQuotas()
    workspace = Subject("workspace", "w1", "acme", Limits(requests_per_minute=1))
    loose = key(requests_per_minute=10)
    assert admitted(quotas, [loose, workspace], "a")
    for _ in range(20):
        assert not admitted(quotas, [loose, workspace], "b")
    assert admitted(quotas, [loose], "c")


@pytest.mark.parametrize(
    ("given_limits", "said"),
    [
        ({"requests": 1}, "requests_per_minute, tokens_per_minute, tokens_per_day, concurrency"),
        ({"concurrency": 0}, "concurrency is 0"),
        ({"tokens_per_day": True}, "tokens_per_day is True"),
    ],
)
def test_limits_that_cannot_be_are_named(given_limits, said):
    with pytest.raises(BadInput, match=said):
        parse_limits(given_limits)


def test_gate_serves_in_order_and_refuses_what_the_queue_does_not_hold():
    async def scene():
        gate = Gate(1, 2, 30)
        await gate.enter()
        order = []

        async def wait(name):
            await gate.enter()
            order.append(name)

        waiting = [asyncio.create_task(wait(name)) for name in "ab"]
        await asyncio.sleep(0)
        assert (gate.inside, gate.waiting) == (1, 2)
        with pytest.raises(Overloaded, match="2 requests are waiting"):
            await gate.enter()
        gate.leave()
        await waiting[0]
        assert order == ["a"]
        gate.leave()
        await waiting[1]
        gate.leave()
        assert (gate.inside, gate.waiting, order) == (0, 0, ["a", "b"])

    asyncio.run(scene())


def test_gate_loses_no_place_to_those_who_gave_up():
    async def scene():
        gate = Gate(1, 5, 0.01)
        await gate.enter()
        with pytest.raises(Overloaded, match="no place became free"):
            await gate.enter()
        patient = Gate(1, 5, 30)
        await patient.enter()
        task = asyncio.create_task(patient.enter())
        await asyncio.sleep(0)
        patient.leave()  # the place is given in the moment in which it is given up
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for which in (gate, patient):
            which.leave() if which is gate else None
            assert (which.inside, which.waiting) == (0, 0)

    asyncio.run(scene())


def test_callers_are_asked_for_again_after_two_seconds_or_a_change(database):
    clock = Clock()
    callers = Callers(database, lambda: "proof", clock)
    with database.session() as session:
        workspace = workspaces.create_workspace(session, "acme")
        presented = workspaces.create_key(session, workspace.id, "shop", "client")
    credentials = Credentials(f"Bearer {presented}")
    assert callers.remembered(credentials) is None
    caller = callers.identify(credentials)
    assert callers.remembered(credentials) is caller
    with database.session() as session:
        workspaces.revoke_key(session, workspace.id, caller.key_id)
    clock.forward(2.1)
    assert callers.remembered(credentials) is None
    with pytest.raises(Unauthenticated):
        callers.identify(credentials)


def test_a_changed_key_is_forgotten_at_once(database):
    callers = Callers(database, lambda: "proof")
    with database.session() as session:
        workspace = workspaces.create_workspace(session, "acme")
        presented = workspaces.create_key(session, workspace.id, "shop", "client")
        workspaces.limit_key(session, workspace.id, "shop", {"concurrency": 3})
        workspaces.limit_workspace(session, "acme", {"tokens_per_day": 9})
    credentials = Credentials(f"Bearer {presented}")
    caller = callers.identify(credentials)
    assert caller.key_limits == Limits(concurrency=3)
    assert caller.workspace_limits == Limits(tokens_per_day=9)
    callers.forget()
    assert callers.remembered(credentials) is None


@pytest.mark.parametrize("authorization", ["", "Basic x", "Bearer ", "Bearer operator.wrong"])
def test_no_valid_credential_is_no_caller(database, authorization):
    with pytest.raises(Unauthenticated):
        Callers(database, lambda: "proof").identify(Credentials(authorization))


def test_a_charge_that_fails_still_gives_the_place_among_those_running_back():
    class Broken(MemoryQuotas):
        async def charge(self, subjects, tokens):
            raise DependencyDown("Redis does not answer")

    quotas, subject = Broken(), key(concurrency=1)
    ticket = Ticket((subject,), tokens=5)

    async def scene():
        admission = Admission(None, quotas, Gate(1, 0, 1.0))
        await admission.gate.enter()
        await quotas.admit(ticket.subjects, ticket.id)
        with pytest.raises(DependencyDown):
            await admission.leave(ticket)

    asyncio.run(scene())
    assert admitted(quotas, [subject])
