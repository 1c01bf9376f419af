"""The communicator: the ranks that train one model together, and the collective operations between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from recvae.data.batches import Batch
from recvae.distributed.heartbeat import Heartbeat
from recvae.errors import InvalidParameterError, RecvaeError

CPU = torch.device("cpu")
BUCKET_BYTES = 25 << 20  # small gradients are sent together, up to this size, as DistributedDataParallel does
HALF_PRECISION = (torch.float16, torch.bfloat16)  # not every backend can sum these
NONE, SPARSE, DENSE = range(3)  # kinds of gradient; if ranks differ, all take the largest


class Communicator:
    """The ranks 0 to size - 1 that train together, as seen from one of them.

    All ranks have to call each method, in the same order. Tensors may be on any device. If an operation fails because
    another rank has ended or did not answer in time, it raises LostRankError, which names the rank and the operation;
    the training loop sets `current_step`, such as "step 7 of epoch 2", for that message.

    Parameters
    ----------
    rank, size : int
        This rank, and the number of ranks.
    device : torch.device
        Device on which tensors are exchanged: a GPU for NCCL, the CPU for gloo.
    heartbeat : Heartbeat or None
        Detects which rank is lost; None for a single process.
    """

    current_step = ""

    def __init__(self, rank: int = 0, size: int = 1, device: torch.device = CPU, heartbeat: Heartbeat | None = None):
        self.rank, self.size, self.device, self.heartbeat = rank, size, device, heartbeat
        self._kinds: Any = WeakIdKeyDictionary()  # parameter -> kind of its gradient

    @property
    def is_main_process(self) -> bool:
        """Whether this is rank 0, which writes files and logs."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """Sum over ranks, in place."""
        return self._all_reduce(tensor, dist.ReduceOp.SUM, "all_reduce")

    def all_reduce_max(self, tensor: Tensor) -> Tensor:
        """Maximum over ranks, in place."""
        return self._all_reduce(tensor, dist.ReduceOp.MAX, "all_reduce (maximum)")

    def all_gather(self, tensor: Tensor) -> Tensor:
        """Concatenate the rows of all ranks, in order; their numbers may differ. (n_r, ...) -> (sum n_r, ...)"""
        if self.size == 1:
            return tensor
        with self._operation("all_gather"), torch.no_grad():
            sizes = self._all_gather_same_shape(torch.tensor([len(tensor)], device=self.device))
            lengths: list[int] = torch.cat(sizes).tolist()
            padded = tensor.new_zeros((max(lengths), *tensor.shape[1:]), device=self.device)
            padded[: len(tensor)] = tensor
            parts = self._all_gather_same_shape(padded)
            return torch.cat([part[:n] for part, n in zip(parts, lengths, strict=True)]).to(tensor.device)

    def gather(self, tensor: Tensor) -> Tensor | None:
        """Concatenate the rows of all ranks in host memory of the main process; None on the others.

        Ranks send one after the other, so that no GPU has to hold the rows of all.
        """
        if self.size == 1:
            return tensor.detach().cpu()
        lengths = self.all_gather_object(len(tensor))
        with self._operation("gather"), torch.no_grad():
            if not self.is_main_process:
                dist.send(tensor.detach().to(self.device).contiguous(), 0)
                return None
            gathered = tensor.new_empty((sum(lengths), *tensor.shape[1:]), device=CPU)
            parts = gathered.split(lengths)
            parts[0].copy_(tensor)
            for rank in range(1, self.size):
                received = torch.empty_like(parts[rank], device=self.device)
                dist.recv(received, rank)
                parts[rank].copy_(received)
            return gathered

    def broadcast(self, value: Any) -> Any:
        """The object of rank 0."""
        if self.size == 1:
            return value
        values = [value]
        with self._operation("broadcast"):
            dist.broadcast_object_list(values, src=0, device=self.device)
        return values[0]

    def all_gather_object(self, value: Any) -> list[Any]:
        """The object of each rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self._operation("all_gather_object"):
            dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until all ranks have called this."""
        self.all_reduce(torch.zeros(1)).item()

    def assert_same_on_all_ranks(self, what: str, value: str | int) -> None:
        """Raise InvalidParameterError on all ranks if the value of any differs from that of rank 0."""
        values = self.all_gather_object(value)
        others = [f"{other!r} on rank {rank}" for rank, other in enumerate(values) if other != values[0]]
        if others:
            raise InvalidParameterError(
                f"Expected the same {what} on all ranks, got {values[0]!r} on rank 0 and {', '.join(others)}; "
                "start all ranks by one command, on the same files."
            )

    def shard_range(self, n: int) -> slice:
        """The part of range(n) for this rank; the lengths of the parts differ by at most one."""
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def shard_batch(self, batch: Batch) -> Batch:
        """The users of a batch for this rank, possibly none if there are fewer users than ranks."""
        if self.size == 1:
            return batch
        return batch.part(self.shard_range(len(batch)))

    def all_reduce_gradients(self, parameters: Iterable[Tensor], weight: float) -> None:
        """Replace each gradient by the sum over ranks of `weight` * gradient, in place if it is dense.

        For sparse gradients, only the rows that they contain are exchanged; the sum is coalesced.

        Parameters
        ----------
        parameters : Iterable[Tensor]
            The same parameters on all ranks. The gradients of a rank without users are None, and count as zeros.
        weight : float
            Users of this rank / users of all ranks, so that the sum is the gradient of the mean over all users.
        """
        if self.size == 1:
            return
        trainable = [parameter for parameter in parameters if parameter.requires_grad]
        dense: list[Tensor] = []
        with torch.no_grad():
            for parameter, kind in zip(trainable, self._common_kinds(trainable), strict=True):
                if kind == SPARSE:
                    self._all_reduce_sparse(parameter, weight)
                elif kind == DENSE:
                    dense.append(_dense_gradient(parameter).mul_(weight))
            self._all_reduce_dense(dense)

    def _common_kinds(self, parameters: list[Tensor]) -> list[int]:
        """The kind of each gradient. Ranks agree on it once per parameter, as it does not change."""
        known = [self._kinds.get(parameter, NONE) for parameter in parameters]
        if NONE not in known:
            return known
        kinds: list[int] = self.all_reduce_max(torch.tensor([_kind(parameter) for parameter in parameters])).tolist()
        for parameter, kind in zip(parameters, kinds, strict=True):
            self._kinds[parameter] = kind
        return kinds

    def _all_reduce_sparse(self, parameter: Tensor, weight: float) -> None:
        rows, values = _gradient_rows(parameter)
        rows, values = self.all_gather(rows), self.all_gather(values * weight)
        summed = torch.sparse_coo_tensor(rows[None], values, parameter.shape, check_invariants=False)
        parameter.grad = summed.coalesce()

    def _all_reduce_dense(self, gradients: list[Tensor]) -> None:
        with self._operation("all_reduce of gradients"):
            pending = []
            for bucket in _buckets(gradients):
                flat = bucket[0] if len(bucket) == 1 else torch.cat([gradient.reshape(-1) for gradient in bucket])
                sent = flat.to(self.device).contiguous()
                pending.append((dist.all_reduce(sent, async_op=True), sent, bucket))
            for work, sums, bucket in pending:
                work.wait()
                parts = sums.reshape(-1).split([gradient.numel() for gradient in bucket])
                for gradient, part in zip(bucket, parts, strict=True):
                    if gradient.data_ptr() != part.data_ptr():
                        gradient.copy_(part.view(gradient.shape))

    def _all_reduce(self, tensor: Tensor, op: Any, operation: str) -> Tensor:
        if self.size == 1:
            return tensor
        with self._operation(operation), torch.no_grad():
            sent = (tensor.float() if tensor.dtype in HALF_PRECISION else tensor).to(self.device).contiguous()
            dist.all_reduce(sent, op)
            return tensor if sent is tensor else tensor.copy_(sent)

    def _all_gather_same_shape(self, tensor: Tensor) -> list[Tensor]:
        parts = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(parts, tensor.contiguous())
        return parts

    @contextmanager
    def _operation(self, name: str) -> Iterator[None]:
        """In this context, turn an error of torch that a lost rank caused into a LostRankError that names the rank."""
        try:
            yield
        except (RecvaeError, torch.OutOfMemoryError):
            raise
        except RuntimeError as error:
            operation = f"{name} in {self.current_step}" if self.current_step else name
            timed_out = "timed out" in str(error).lower()
            lost = self.heartbeat and self.heartbeat.lost_rank(operation, timed_out)
            if not lost:
                raise
            raise lost from error


SINGLE_PROCESS = Communicator()
_current: ContextVar[Communicator] = ContextVar("communicator", default=SINGLE_PROCESS)


def current_communicator() -> Communicator:
    """The communicator of the innermost `joined` block that this runs in, else `SINGLE_PROCESS`."""
    return _current.get()


def _kind(parameter: Tensor) -> int:
    if parameter.grad is None:
        return NONE
    return SPARSE if parameter.grad.is_sparse else DENSE


def _gradient_rows(parameter: Tensor) -> tuple[Tensor, Tensor]:
    """Indices and values of the rows that a gradient has. -> (n,), (n, ...)"""
    grad = parameter.grad
    if grad is None:
        return parameter.new_zeros(0, dtype=torch.int64), parameter.new_zeros(0, *parameter.shape[1:])
    if not grad.is_sparse:
        return torch.arange(len(grad), device=grad.device), grad
    grad = grad.coalesce()
    return grad.indices()[0], grad.values()


def _dense_gradient(parameter: Tensor) -> Tensor:
    """The gradient as a dense tensor, which is also stored in the parameter."""
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    elif parameter.grad.is_sparse:
        parameter.grad = parameter.grad.to_dense()
    return parameter.grad


def _buckets(gradients: list[Tensor]) -> Iterator[list[Tensor]]:
    """Yield groups of gradients of one dtype, of up to `BUCKET_BYTES` in total; larger gradients are on their own."""
    bucket: list[Tensor] = []
    for gradient in sorted(gradients, key=lambda gradient: str(gradient.dtype)):
        full = sum(other.nbytes for other in bucket) + gradient.nbytes > BUCKET_BYTES
        if bucket and (full or bucket[0].dtype != gradient.dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
