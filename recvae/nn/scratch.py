"""Memory that lives on from step to step: on a CPU, a fresh page costs about as much as the arithmetic done on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import get_ident

import torch
from torch import Tensor


class Memory:
    """Buffers by name and turn, of one thread."""

    def __init__(self) -> None:
        self.thread = get_ident()
        self.buffers: dict[tuple[str, int], Tensor] = {}
        self.turns: Counter[str] = Counter()

    def begin_step(self) -> None:
        """From here on, what the last step was given may be written over."""
        self.turns.clear()

    def give(self, name: str, turn: int, size: int, dtype: torch.dtype) -> Tensor:
        held = self.buffers.get((name, turn))
        if held is None or held.dtype != dtype or len(held) < size:
            held = self.buffers[name, turn] = torch.empty(size, dtype=dtype)
        return held[:size]


_memory: ContextVar[Memory | None] = ContextVar("memory", default=None)


@contextmanager
def reused() -> Iterator[Memory]:
    """Within this, memory that one step was given is given to the next again, that of gradients among it.

    So it is for a loop that is done with a step's gradients when it calls `begin_step`, in one thread. Within another
    such block it is that block's memory.
    """
    memory = _mine() or Memory()
    token = _memory.set(memory)
    try:
        yield memory
    finally:
        _memory.reset(token)


def scratch(
    name: str, shape: Sequence[int], dtype: torch.dtype, device: torch.device, *, for_step: bool = False
) -> Tensor:
    """An uninitialised tensor, to be used until the same name is asked for again; or `for_step`, until the next step.

    Other devices than the CPU have an allocator that keeps memory by itself.
    """
    memory = _mine()
    if memory is None or device.type != "cpu":
        return torch.empty(shape, dtype=dtype, device=device)
    turn = memory.turns[name]
    memory.turns[name] += for_step
    return memory.give(name, turn, torch.Size(shape).numel(), dtype).view(shape)


def _mine() -> Memory | None:
    """The memory of the block that this thread is in; a context may have been copied from another thread's."""
    memory = _memory.get()
    return memory if memory is not None and memory.thread == get_ident() else None
