"""Who trains together: the processes that `torchrun` starts, what they exchange, and what is said when one is lost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from recvae.data.batches import Batch
from recvae.distributed.heartbeat import Heartbeat
from recvae.errors import InvalidParameterError, RecvaeError

CPU = torch.device("cpu")
BUCKET_BYTES = 25 << 20  # small gradients travel together, as one tensor of about this size
NARROW = (torch.float16, torch.bfloat16)  # not every backend adds these up
NONE, SPARSE, DENSE = range(3)  # kinds of gradient: of several ranks', the largest holds for all


class Communicator:
    """The ranks 0 to size - 1, of which this process is one. All of them have to call each method, in one order.

    Tensors may be on any device. Where an exchange fails, because another rank has ended or did not answer in time,
    it raises LostRankError, which names the lost rank and the exchange; the training loop sets `current_step`, such as
    "step 7 of epoch 2", for that sentence.
    """

    current_step = ""

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device = CPU, heartbeat: Heartbeat | None = None):
        self.rank, self.size, self.device, self.heartbeat = rank, size, device, heartbeat
        self._kinds: Any = WeakIdKeyDictionary()  # parameter -> kind of its gradient

    @property
    def is_main_process(self) -> bool:
        """Whether it is this rank that writes files and to the terminal."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum over ranks, in place."""
        return self._reduced(tensor, dist.ReduceOp.SUM, "a sum")

    def all_reduce_max(self, tensor: Tensor) -> Tensor:
        """Largest over ranks, in place."""
        return self._reduced(tensor, dist.ReduceOp.MAX, "a maximum")

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Rows of all ranks, one rank after the other; how many each has may differ. (n_r, ...) -> (sum n_r, ...)"""
        if self.size == 1:
            return tensor
        with self._exchange("a gathering of rows"), torch.no_grad():
            sizes = self._gathered(torch.tensor([len(tensor)], device=self.device))
            lengths: list[int] = torch.cat(sizes).tolist()
            padded = tensor.new_zeros((max(lengths), *tensor.shape[1:]), device=self.device)
            padded[: len(tensor)] = tensor
            parts = self._gathered(padded)
            return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)]).to(tensor.device)

    def gather(self, tensor: Tensor) -> Tensor | None:
        """Rows of all ranks, in the host memory of the writer alone: they come rank by rank. -> None elsewhere"""
        if self.size == 1:
            return tensor.detach().cpu()
        lengths = self.all_gather_object(len(tensor))
        with self._exchange("a collection of rows"), torch.no_grad():
            if not self.is_main_process:
                dist.send(tensor.detach().to(self.device).contiguous(), 0)
                return None
            whole = tensor.new_empty((sum(lengths), *tensor.shape[1:]), device=CPU)
            parts = whole.split(lengths)
            parts[0].copy_(tensor)
            for rank in range(1, self.size):
                part = torch.empty_like(parts[rank], device=self.device)
                dist.recv(part, rank)
                parts[rank].copy_(part)
            return whole

    def broadcast(self, value: Any) -> Any:
        """Rank 0's object."""
        if self.size == 1:
            return value
        box = [value]
        with self._exchange("a broadcast"):
            dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def all_gather_object(self, value: Any) -> list[Any]:
        """Each rank's object."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self._exchange("a gathering of objects"):
            dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until all ranks are here."""
        self.all_reduce(torch.zeros(1)).item()

    def assert_same_on_all_ranks(self, what: str, value: str | int) -> None:
        """Raise InvalidParameterError, on all ranks, where the value of one is not that of rank 0."""
        values = self.all_gather_object(value)
        others = [f"{other!r} on rank {rank}" for rank, other in enumerate(values) if other != values[0]]
        if others:
            raise InvalidParameterError(
                f"Expected the same {what} on all ranks, got {values[0]!r} on rank 0 and {', '.join(others)}; "
                "start all ranks by one command, on the same files."
            )

    def shard_range(self, n: int) -> slice:
        """This rank's of n things: parts of one size, or of one more."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def shard_batch(self, batch: Batch) -> Batch:
        """This rank's users of a batch of all; none where there are fewer users than ranks."""
        if self.size == 1:
            return batch
        rows = self.shard_range(len(batch))
        events, ends = batch.events(rows), slice(rows.start, rows.stop + 1)
        offsets, bounds = batch.offsets[ends], None if batch.bounds is None else batch.bounds[ends]
        return replace(
            batch,
            items=batch.items[events],
            values=batch.values[events],
            offsets=offsets - offsets[0],
            bounds=None if bounds is None else bounds - bounds[0],
            users=None if batch.users is None else batch.users[rows],
        )

    def all_reduce_gradients(self, parameters: Iterable[Tensor], share: float) -> None:
        """Make each gradient the sum over ranks of `share` * gradient, in place where it can be.

        Parameters
        ----------
        share : float
            Of this rank's users among those of all. A rank that has no users has no gradients either: they count as
            zeros. Of sparse gradients, only rows that some rank has are exchanged; the sum is coalesced.
        """
        if self.size == 1:
            return
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        small: list[Tensor] = []
        with torch.no_grad():
            for parameter, kind in zip(learning, self._agreed_kinds(learning), strict=True):
                if kind == SPARSE:
                    self._add_sparse(parameter, share)
                elif kind == DENSE:
                    small.append(_dense_gradient(parameter).mul_(share))
            self._add_dense(small)

    def _agreed_kinds(self, parameters: list[Tensor]) -> list[int]:
        """The kind of each gradient. That of a parameter is found out together once: it stays as it is."""
        known = [self._kinds.get(parameter, NONE) for parameter in parameters]
        if NONE not in known:
            return known
        kinds: list[int] = self.all_reduce_max(torch.tensor([_kind(parameter) for parameter in parameters])).tolist()
        for parameter, kind in zip(parameters, kinds, strict=True):
            self._kinds[parameter] = kind
        return kinds

    def _add_sparse(self, parameter: Tensor, share: float) -> None:
        rows, values = _touched(parameter)
        rows, values = self.all_gather(rows), self.all_gather(values * share)
        summed = torch.sparse_coo_tensor(rows[None], values, parameter.shape, check_invariants=False)
        parameter.grad = summed.coalesce()

    def _add_dense(self, gradients: list[Tensor]) -> None:
        with self._exchange("an addition of gradients"):
            waiting = []
            for bucket in _buckets(gradients):
                flat = bucket[0] if len(bucket) == 1 else torch.cat([gradient.reshape(-1) for gradient in bucket])
                there = flat.to(self.device).contiguous()
                waiting.append((dist.all_reduce(there, async_op=True), there, bucket))
            for work, there, bucket in waiting:
                work.wait()
                parts = there.reshape(-1).split([gradient.numel() for gradient in bucket])
                for gradient, part in zip(bucket, parts, strict=True):
                    if gradient.data_ptr() != part.data_ptr():
                        gradient.copy_(part.view(gradient.shape))

    def _reduced(self, tensor: Tensor, op: Any, what: str) -> Tensor:
        if self.size == 1:
            return tensor
        with self._exchange(what), torch.no_grad():
            there = (tensor.float() if tensor.dtype in NARROW else tensor).to(self.device).contiguous()
            dist.all_reduce(there, op)
            return tensor if there is tensor else tensor.copy_(there)

    def _gathered(self, tensor: Tensor) -> list[Tensor]:
        """Of all ranks, all of one shape."""
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor.contiguous())
        return parts

    @contextmanager
    def _exchange(self, what: str) -> Iterator[None]:
        """What fails within is another rank's absence."""
        try:
            yield
        except (RecvaeError, torch.OutOfMemoryError):
            raise
        except RuntimeError as error:
            late = "timed out" in str(error).lower()
            lost = self.heartbeat and self.heartbeat.lost(
                f"{what} in {self.current_step}" if self.current_step else what, late
            )
            if not lost:
                raise
            raise lost from error


SINGLE_PROCESS = Communicator()
_current: ContextVar[Communicator] = ContextVar("communicator", default=SINGLE_PROCESS)


def current_communicator() -> Communicator:
    """The communicator of the innermost `joined` that this runs in, else `SINGLE_PROCESS`."""
    return _current.get()


def _kind(parameter: Tensor) -> int:
    if parameter.grad is None:
        return NONE
    return SPARSE if parameter.grad.is_sparse else DENSE


def _touched(parameter: Tensor) -> tuple[Tensor, Tensor]:
    """The rows that a gradient has, and what it has there. -> (n,), (n, ...)"""
    grad = parameter.grad
    if grad is None:
        return parameter.new_zeros(0, dtype=torch.int64), parameter.new_zeros(0, *parameter.shape[1:])
    if not grad.is_sparse:
        return torch.arange(len(grad), device=grad.device), grad
    grad = grad.coalesce()
    return grad.indices()[0], grad.values()


def _dense_gradient(parameter: Tensor) -> Tensor:
    """The gradient, from here on a dense tensor."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    elif parameter.grad.is_sparse:
        parameter.grad = parameter.grad.to_dense()
    return parameter.grad


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Gradients of one type that make up a bucket; a large one is a bucket of its own."""
    bucket: list[Tensor] = []
    for gradient in sorted(gradients, key=lambda gradient: str(gradient.dtype)):
        full = sum(each.nbytes for each in bucket) + gradient.nbytes > BUCKET_BYTES
        if bucket and (full or bucket[0].dtype != gradient.dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
