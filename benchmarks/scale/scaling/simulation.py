"""100 million users x 10 million items on GPUs, on paper: the cost model with rates that are assumed."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from benchmarks.scale.scaling.costs import Counts, Machine, Shape, memory, step

GB = 1e9
GPU_BYTES = 80 * GB
# a second, sustained: operations in bfloat16, and in float32 outside of the tensor cores; bytes in one piece, and half
# of that for rows here and there; events at 500 bytes moved for each; 400 Gb/s a GPU, 10 us a message, 5 ms a step to
# start kernels and draw candidates
GPU = Machine(400e12, 50e12, 2.5e12, 1.25e12, 5e9, 50e9, 1e5, 200)
READ = 20e6  # events a second that a process reads from shards, as recorded in shards.json on two cores
DATA = Shape(users=100_000_000, items=10_000_000, length=100, skips=False)
USERS_OF_A_GPU = 500
CANDIDATES = 4096
GPUS = (8, 64)
MODES = {
    "sampled, users shared out": replace(DATA, candidates=CANDIDATES),
    "exact, users shared out": DATA,
    "exact, items shared out": replace(DATA, share="items"),
    "exact, items shared out, blocks of 4 GB (not built)": replace(DATA, share="items", block_bytes=4 * GB),
    "sampled, items shared out (not built)": replace(DATA, candidates=CANDIDATES, share="items"),
}


class Simulated(NamedTuple):
    """One mode on so many GPUs.

    memory : bytes of a GPU, by what they are for
    parts : seconds of a step, by part; reading goes on beside all others
    """

    mode: str
    shape: Shape
    memory: dict[str, float]
    parts: dict[str, float]
    sent: float

    @property
    def peak(self) -> float:
        """Bytes of a GPU: rows are in the host's memory."""
        return sum(self.memory.values()) - self.memory["rows"]

    @property
    def seconds(self) -> float:
        """Of a step: reading, or all else, whichever is longer."""
        return max(self.parts["reading"], sum(self.parts.values()) - self.parts["reading"])

    @property
    def hours(self) -> float:
        """Of an epoch."""
        return self.seconds * self.shape.users / self.shape.batch / 3600

    @property
    def longest(self) -> str:
        """The part that takes most of a step."""
        return max(self.parts, key=lambda part: self.parts[part])


def simulated(mode: str, ranks: int, machine: Machine = GPU) -> Simulated:
    """A step with `USERS_OF_A_GPU` users for each GPU, of data on disk, with validation users."""
    shape = replace(MODES[mode], ranks=ranks, batch=USERS_OF_A_GPU * ranks)
    counts = step(shape)
    parts = {part: machine.seconds(replace(count, steps=0)) for part, count in counts.items()}
    parts |= {"reading": shape.batch * shape.length / READ, "starting": machine.seconds(Counts(steps=1))}
    sent = sum(count.sent for count in counts.values())
    return Simulated(mode, shape, memory(shape, on_disk=True, validated=True), parts, sent)


def widest(shape: Shape, room: float = GPU_BYTES) -> int:
    """The widest layers, in multiples of 32, with which a training of data on disk fits into a GPU; 0 if none does."""
    width = 0
    while True:
        larger = replace(shape, hidden=width + 32, latent=width + 32)
        found = memory(larger, on_disk=True, validated=True)
        if sum(found.values()) - found["rows"] > room:
            return width
        width += 32


def simulations() -> list[Simulated]:
    """Each mode on each number of GPUs."""
    return [simulated(mode, ranks) for ranks in GPUS for mode in MODES]
