"""Several training processes (`accelerate launch`, `torchrun`): who writes, and how all agree.

With one process every function is the plain thing it says.
"""

import os
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def world_size() -> int:
    """Training processes of this run."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_first() -> bool:
    """Whether this process is the one that writes and reports."""
    return int(os.environ.get("RANK", "0")) == 0


def join(device: str) -> None:
    """Meet the other processes; the trainer uses the same group later."""
    if world_size() > 1:
        from accelerate import PartialState

        PartialState(cpu=device == "cpu")


def barrier() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        from torch import distributed

        distributed.barrier()


def from_first(make: Callable[[], T]) -> T:
    """What the first process makes, in every process: clocks and signals differ between them."""
    if world_size() == 1:
        return make()
    from torch import distributed

    box: list[Any] = [make() if is_first() else None]
    distributed.broadcast_object_list(box, src=0)
    made: T = box[0]
    return made
