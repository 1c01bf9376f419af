"""The cost model held against what was measured: rates fitted to a few points, and all the others foretold by them."""

from __future__ import annotations

import math
import statistics
from dataclasses import astuple, replace
from typing import Any

import numpy as np
from scipy.optimize import nnls

from benchmarks.scale.scaling.costs import KINDS, Counts, Machine, Shape, memory, total

Point = dict[str, Any]
FITTED = ("narrow", "wide", "scattered", "events", "steps")


def shape_of(point: Point) -> Shape:
    """As the cost model has it; a user's events are those that were left when repeated ones were one."""
    return Shape(
        users=point["users"],
        items=point["items"],
        length=point["events"] / point["users"],
        batch=min(point["batch"], point["users"]),
        hidden=point["width"],
        latent=point["width"],
        candidates=point["candidates"],
        ranks=point["ranks"],
        share=point["share"],
    )


def took(point: Point) -> float:
    """Seconds of the shortest step: those that a single process had a core, so that other work stretches them less."""
    return float(min(point["cpu_seconds"] if point["ranks"] == 1 else point["seconds"]))


def foretold(results: dict[str, Any]) -> dict[str, Any]:
    """The results with the fitted rates, and for each point what the cost model says. -> results"""
    done = [point for point in results["points"] if "seconds" in point]
    rates = fit([point for point in done if point.get("fit")])
    probed = [point for point in done if "sent_per_second" in point]
    if probed:
        sent = statistics.median(point["sent_per_second"] for point in probed)
        rates = replace(rates, sent=sent, hops=1 / statistics.median(point["seconds_of_a_hop"] for point in probed))
    told = [point | (_said(point, rates) if "seconds" in point else {}) for point in results["points"]]
    known = {name: rate for name, rate in zip(KINDS, astuple(rates), strict=True) if rate != math.inf}
    return results | {"points": told, "rates": known}


def _said(point: Point, rates: Machine) -> dict[str, float]:
    """Of a step in all, of a step without what goes over the network, and of memory."""
    counts = _counts(point)
    return {
        "model_seconds": rates.seconds(counts),
        "model_own_seconds": rates.seconds(replace(counts, sent=0, hops=0)),
        "model_mib": sum(memory(shape_of(point)).values()) / 2**20,
    }


def fit(points: list[Point]) -> Machine:
    """Rates, none below 0, with which relative errors of the points' times are least in squares.

    That of bytes in one piece is probed: these grow with the operations, and a fit cannot tell which of the two it was.
    """
    if not points:
        return Machine(*[math.inf] * len(KINDS))
    streamed = statistics.median(point["streamed_per_second"] for point in points)
    all_counts = [_counts(point) for point in points]
    counts = np.array([[getattr(each, kind) for kind in FITTED] for each in all_counts], float)
    seconds = np.array([took(point) for point in points])
    left = 1 - np.array([each.streamed / streamed for each in all_counts]) / seconds
    scale = counts.max(axis=0).clip(min=1e-300)
    costs, _ = nnls(counts / scale / seconds[:, None], left)
    with np.errstate(divide="ignore"):
        rates = {kind: float(rate) for kind, rate in zip(FITTED, scale / costs, strict=True)}
    return Machine(streamed=streamed, **rates)


def _counts(point: Point) -> Counts:
    """Where the hardware does not compute in bfloat16, nothing is in it."""
    counts = total(shape_of(point))
    return counts if point["bfloat16"] else replace(counts, narrow=0, wide=counts.narrow + counts.wide)
