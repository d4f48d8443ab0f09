"""The slot scheduler: never more than its slots, one group at a time, nobody starved."""

from hypothesis import given
from hypothesis import strategies as st

from app.engines.slots import SlotScheduler


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def make(slots=2, patience_s=1.0):
    clock = Clock()
    return SlotScheduler(slots, patience_s=patience_s, clock=clock), clock


def test_free_slots_are_granted_at_once_and_the_rest_waits():
    scheduler, _ = make()
    tickets = [scheduler.enter("a") for _ in range(3)]
    assert [t.granted for t in tickets] == [True, True, False]
    assert (scheduler.running, scheduler.waiting) == (2, 1)
    scheduler.leave(tickets[0])
    assert tickets[2].granted
    assert tickets[2].wait(0)


def test_another_adapter_waits_for_the_running_one_though_a_slot_is_free():
    scheduler, _ = make()
    running, other = scheduler.enter("a"), scheduler.enter("b")
    assert not other.granted
    scheduler.leave(running)
    assert other.granted


def test_the_running_adapter_goes_first_until_another_lost_patience():
    scheduler, clock = make()
    first = scheduler.enter("a")
    other = scheduler.enter("b")
    clock.now = 0.5
    joined = scheduler.enter("a")
    assert joined.granted
    scheduler.leave(joined)
    clock.now = 1.5
    late = scheduler.enter("a")
    assert not late.granted
    scheduler.leave(first)
    assert other.granted
    assert not late.granted


def test_a_turn_lets_in_everybody_of_its_group_who_waits():
    scheduler, clock = make(slots=3)
    first = scheduler.enter("a")
    queued = [scheduler.enter(group) for group in ("b", "c", "b", "c", "b")]
    clock.now = 10.0
    scheduler.leave(first)
    assert [t.granted for t in queued] == [True, False, True, False, True]


def test_leaving_while_waiting_or_twice_frees_nothing_that_is_not_held():
    scheduler, _ = make(slots=1)
    running, waiting = scheduler.enter(None), scheduler.enter(None)
    scheduler.leave(waiting)
    scheduler.leave(waiting)
    assert (scheduler.running, scheduler.waiting) == (1, 0)
    scheduler.leave(running)
    scheduler.leave(running)
    assert (scheduler.running, scheduler.waiting) == (0, 0)


_steps = st.lists(
    st.one_of(
        st.sampled_from(["a", "b", "c"]),
        st.tuples(st.just("leave"), st.integers(0, 30)),
        st.floats(0, 2),
    ),
    max_size=60,
)


@given(_steps, st.integers(1, 4))
def test_whatever_happens_slots_hold_and_one_group_runs(steps, slots):
    scheduler, clock = make(slots=slots)
    tickets = []
    for step in steps:
        if isinstance(step, float):
            clock.now += step
        elif isinstance(step, tuple) and tickets:
            scheduler.leave(tickets.pop(step[1] % len(tickets)))
        elif isinstance(step, str):
            tickets.append(scheduler.enter(step))
        running = [t for t in tickets if t.granted]
        assert len(running) == scheduler.running <= slots
        assert len({t.group for t in running}) <= 1
        assert running or not tickets, "nobody runs though somebody waits"


@given(st.integers(1, 4), st.integers(1, 5))
def test_under_endless_traffic_of_one_adapter_another_is_served(slots, n_others):
    """One second per answer; adapter `a` always has more to ask."""
    scheduler, clock = make(slots=slots)
    running = [scheduler.enter("a") for _ in range(2 * slots)]
    others = [scheduler.enter(f"other-{n}") for n in range(n_others)]
    turn = 1.0 + 1.0  # patience, and the answers then under way
    waited = 0
    while not all(t.granted for t in others):
        clock.now += 1.0
        waited += 1
        assert waited <= 2 * turn * (n_others + 1)
        ended = [t for t in [*running, *others] if t.granted]
        for ticket in ended:
            scheduler.leave(ticket)
            if ticket in running:
                running.remove(ticket)
                running.append(scheduler.enter("a"))
