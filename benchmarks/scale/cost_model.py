"""A simple cost model of a training step: the work of one rank, each part divided by a rate; nothing overlaps.

For a Mult-VAE whose hidden and latent layers are H wide, on R ranks, with B users in a batch of all ranks, I items, E
events in the batch of a rank, and C candidates of the sampled likelihood. Data parallel, a rank has b = B / R users and
i = I items; tensor parallel, b = B and i = I / R. In a step of a rank there are

    chunked     operations 6 b i H: three matrix products of the output layer
                table bytes 28 i (2 H + 1): Adam reads and writes weight, gradient and two moments of both tables
    sampled     operations 6 b C H, in float32
                row bytes 4 H (6 E + 8 T): rows that events read and write in both layers, and those that the optimizer
                updates; T = min(I, events of all ranks) + C is an upper bound of how many these are
    exchange    chunked, data parallel: all-reduce of all gradients, 2 (R - 1) / R times 4 I (2 H + 1) bytes
                sampled, data parallel: all-gather of rows of gradients, (R - 1) (2 E + C) (4 H + 8) bytes
                tensor parallel: all-reduce of hidden states and sums, 2 (R - 1) / R times 4 B (2 H + 4) bytes
    steps       1: a constant cost, which does not depend on any of these sizes

Memory is not modelled here: `model.plan` of the package predicts it.
"""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
from scipy.optimize import nnls

Point = dict[str, Any]
Counts = dict[str, float]
FITTED = ("bfloat16", "float32", "row_bytes", "steps")  # the other rates are measured directly
PROBED = {"table_bytes": "streamed_per_second", "sent_bytes": "sent_per_second"}


def counts(point: Point) -> Counts:
    """The work of one rank in a step, at a measured point: operations, bytes and steps."""
    width, ranks, n_items, batch = point["width"], point["ranks"], point["items"], point["batch"]
    tensor_parallel = point["share"] == "items"
    users, items = (batch, n_items / ranks) if tensor_parallel else (batch / ranks, n_items)
    events = batch * point["events"] / point["users"] / ranks
    other_ranks = (ranks - 1) / ranks
    candidates = point["candidates"]
    if candidates is None:
        operations = 6 * users * items * width
        table_bytes, row_bytes = 28 * items * (2 * width + 1), 0.0
        sent = 2 * other_ranks * 4 * n_items * (2 * width + 1)
    else:
        operations = 6 * users * candidates * width
        touched = min(n_items, events * ranks) + candidates
        table_bytes, row_bytes = 0.0, 4 * width * (6 * events + 8 * touched)
        sent = (ranks - 1) * (2 * events + candidates) * (4 * width + 8)
    if tensor_parallel:
        sent = 2 * other_ranks * 4 * batch * (2 * width + 4)
    precision = "bfloat16" if candidates is None and point["bfloat16"] else "float32"
    result = {"bfloat16": 0.0, "float32": 0.0, "table_bytes": table_bytes, "row_bytes": row_bytes}
    return result | {precision: operations, "sent_bytes": sent, "steps": 1.0}


def measured_seconds(point: Point) -> float:
    """The shortest step: CPU time for one rank, which other work on the machine affects less, else elapsed time."""
    return float(min(point["cpu_seconds"] if point["ranks"] == 1 else point["seconds"]))


def fit(points: list[Point]) -> dict[str, float]:
    """Rates per second by kind, by non-negative least squares of the relative errors at the points marked `fit`.

    The rates of `table_bytes` and `sent_bytes` are measured: both counts grow with the operations, so a fit could not
    separate them.
    """
    rates = {
        kind: statistics.median(point[name] for point in points if name in point)
        for kind, name in PROBED.items()
        if any(name in point for point in points)
    }
    marked = [point for point in points if point.get("fit")]
    if not marked:
        return rates
    all_counts = [counts(point) for point in marked]
    matrix = np.array([[found[kind] for kind in FITTED] for found in all_counts])
    seconds = np.array([measured_seconds(point) for point in marked])
    tables = np.array([found["table_bytes"] for found in all_counts]) / rates["table_bytes"]
    scale = matrix.max(axis=0).clip(min=1e-300)
    costs, _ = nnls(matrix / scale / seconds[:, None], 1 - tables / seconds)
    return rates | {kind: float(s / cost) for kind, s, cost in zip(FITTED, scale, costs, strict=True) if cost > 0}


def predicted_seconds(point: Point, rates: dict[str, float]) -> float:
    """Predicted time of a step; a kind of work without a rate costs nothing."""
    return sum(n / rates[kind] for kind, n in counts(point).items() if kind in rates)
