"""Training steps on a GPU, compared with a lower bound on their time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.speed import machine
from benchmarks.speed.engines import training
from benchmarks.speed.synthetic import ML_20M, synthetic
from benchmarks.speed.tables import parameters

WIDTH = 600
Shape = tuple[int, int, int]


def run_gpu(
    batches: tuple[int, ...] = (500, 2000, 4096), shape: Shape = ML_20M, steps: int = 50, device: str = "cuda"
) -> dict[str, Any]:
    """Users per second at each batch size in bfloat16, medians of five, against the bound. -> for JSON"""
    if device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("Expected a CUDA device, found none; these figures can only be had on a GPU.")
    matrix, limits = synthetic(*shape), _limits(device)
    cases = []
    for batch in batches:
        with training(matrix, "bfloat16", batch, device) as step:
            step(3)
            seconds = [_seconds(lambda: step(steps), device) / steps for _ in range(5)]
        bound = _bound(batch, shape[1], limits)
        median = statistics.median(seconds)
        cases.append({"batch": batch, "seconds": seconds, "users_per_second": batch / median, "share": bound / median})
        print(f"batch {batch:,}: {batch / median:,.0f} users/s, {bound / median:.0%} of the bound", flush=True)
    name = torch.cuda.get_device_name() if device == "cuda" else device
    return machine() | {"device": name, "shape": shape, "limits": limits, "cases": cases}


def _bound(batch: int, n_items: int, limits: dict[str, float]) -> float:
    """Lower bound on the seconds of a step: the larger of operations / their rate and bytes / bandwidth.

    Operations are those of the three products of the output layer. Bytes are those of Adam (weights, gradients and
    two moments read, all but the gradients written, 4 bytes each) and of softmax in bfloat16 (written once, read by
    two products).
    """
    operations = 3 * 2 * batch * n_items * WIDTH
    moved = 7 * 4 * parameters(n_items) + 3 * 2 * batch * n_items
    return max(operations / limits["operations"], moved / limits["bytes"])


def _limits(device: str) -> dict[str, float]:
    """Per second, measured: operations of a large product in bfloat16, and bytes read and written by a copy."""
    n = 8192 if device == "cuda" else 512
    a, b = torch.randn(2, n, n, device=device).bfloat16()
    large = torch.empty(n * n * 4, device=device)
    target = torch.empty_like(large)
    product = min(_seconds(lambda: a @ b, device) for _ in range(10))
    copy = min(_seconds(lambda: target.copy_(large), device) for _ in range(10))
    return {"operations": 2 * n**3 / product, "bytes": 2 * 4 * large.numel() / copy}


def _seconds(work: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started
