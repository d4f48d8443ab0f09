"""Where prompts are split, and what goes before them."""

from hypothesis import given
from hypothesis import strategies as st

from app.engines.prefixes import MIN_TOKENS, Held, boundary, common_start, priming
from app.engines.slots import SlotScheduler

END = 2
START = [*([5] * MIN_TOKENS), END]


def test_prompt_is_split_behind_its_first_turn():
    assert boundary([*START, 7, 8, END, 9], END) == len(START)
    assert boundary([5, END, 7, 8], END) == 0, "too short to be worth it"
    assert boundary([*START, 7], END) == 0, "nothing would be left"
    assert boundary([*START, 7, 8], None) == boundary([7] * 99, END) == 0


def evaluate(held, ids, adapter, at):
    """A slot that keeps the longest common start, as llama.cpp's do; the splits it computed."""
    slot = list(held["ids"]) if held["adapter"] == adapter else []
    splits = []
    first = priming(ids, at, adapter, held["known"])
    if first is not None:
        kept = common_start(slot, first.ids) if first.keep else 0
        splits.append((kept, len(first.ids)))
        slot = first.ids
    kept = common_start(slot, ids)
    splits.append((kept, len(ids)))
    held.update(ids=ids, adapter=adapter, known=Held(adapter, at, tuple(ids)))
    return splits


@given(
    st.lists(
        st.tuples(
            st.sampled_from([None, "a"]),
            st.sampled_from([[*START], [6, *START], [*([5] * 40), END]]),
            st.lists(st.integers(5, 7), min_size=2, max_size=6),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_whatever_a_slot_held_the_rest_is_computed_from_the_split_on(requests):
    held = {"ids": [], "adapter": None, "known": None}
    for adapter, start, rest in requests:
        ids = [*start, *rest]
        at = boundary(ids, END)
        assert at == len(start)
        *before, last = evaluate(held, ids, adapter, at)
        assert last == (at, len(ids))
        # The start itself is computed whole or not at all.
        assert all(split in ((0, at + 1), (at, at + 1)) for split in before)


def test_a_request_gets_the_slot_that_holds_its_start():
    scheduler = SlotScheduler(3)
    for likes in ("x", "y", "z"):
        scheduler.leave(scheduler.enter("a", likes=likes))
    first = scheduler.enter("a", likes="y")
    again = scheduler.enter("a", likes="new")
    assert scheduler.enter("a", likes="x").slot not in (first.slot, again.slot)
    assert sorted(t.slot for t in (first, again)) != [first.slot, first.slot]


def test_slots_that_like_nothing_are_used_in_turn():
    scheduler = SlotScheduler(2)
    used = []
    for likes in ("x", "y", "x", "y"):
        ticket = scheduler.enter("a", likes=likes)
        used.append(ticket.slot)
        scheduler.leave(ticket)
    assert used[:2] == used[2:]
    assert set(used) == {0, 1}
