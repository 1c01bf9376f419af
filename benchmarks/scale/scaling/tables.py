"""The tables of what was measured, of how far the cost model is off, and of what it foretells."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import Any

from benchmarks.pages.markdown import markdown
from benchmarks.scale.scaling.check import took
from benchmarks.scale.scaling.simulation import GB, Simulated, simulations, widest

Point = dict[str, Any]
UNITS = {
    "narrow": (1e9, "billion operations a second in bfloat16"),
    "wide": (1e9, "billion operations a second in float32"),
    "streamed": (1e9, "GB/s in one piece, probed by a copy"),
    "scattered": (1e9, "GB/s of rows here and there"),
    "events": (1e6, "million events a second, sorted and drawn noise for"),
    "sent": (1e9, "GB/s between ranks, probed"),
    "hops": (1e3, "thousand messages a second between ranks, probed"),
    "steps": (1e3, "thousand steps a second with nothing in them"),
}
LARGE = ("output layer", "optimizer", "exchange", "reading")


def laws_table(results: dict[str, Any]) -> str:
    """Each measured point beside what the plan and the cost model say of it, as Markdown."""
    head = ["varied", "likelihood", "ranks", "items", "users", "events of a user", "candidates"]
    rows = [[*head, "a step, ms", "on a core", "by the model", "peak, MiB", "by the plan", "by the model"]]
    return markdown(rows + [_law(point) for point in results["points"]])


def check_table(results: dict[str, Any]) -> str:
    """How the model's times and memory compare with the measured, worst and middle, as Markdown."""
    done = [point for point in results["points"] if "seconds" in point]
    fitted, held = [p for p in done if p.get("fit")], [p for p in done if not p.get("fit") and p["ranks"] == 1]
    ranks = [point for point in done if point["ranks"] > 1]
    rows = [["what is foretold / what was measured", "points", "least", "median", "most"]]
    for name, some in (("points fitted to", fitted), ("other points of one rank", held), ("two ranks", ranks)):
        rows.append(_ratios(f"a step's time, {name}", (p["model_seconds"] / took(p) for p in some)))
    own = (point["model_own_seconds"] / min(point["cpu_seconds"]) for point in ranks)
    rows.append(_ratios("what a rank does itself, two ranks", own))
    clear = [point for point in done if point["peak_mib"] > 20]  # below, it is what the libraries happen to take
    for how, key in (("the plan", "plan_mib"), ("the model", "model_mib")):
        rows.append(_ratios(f"peak memory by {how}", (point[key] / point["peak_mib"] for point in clear)))
    return markdown(rows)


def rates_table(results: dict[str, Any]) -> str:
    """The rates of one core, as Markdown."""
    rows = [["a core does", ""]]
    for name, (unit, text) in UNITS.items():
        rate = results["rates"].get(name)
        rows.append([text, "no cost was seen" if rate is None else f"{rate / unit:,.3g}"])
    load = results["load"]
    busy = f"{statistics.median(load):.1f} (up to {max(load):.1f}) of {results['cores']}"
    return markdown([*rows, ["cores that other work kept busy meanwhile", busy]])


def model_table() -> str:
    """What the cost model says of GPUs, as Markdown."""
    head = ["", "GPUs", "GB of a GPU", "widest in 80 GB", "GB sent a step"]
    parts = [*(f"{part}, ms" for part in LARGE), "the rest, ms"]
    rows = [[*head, *parts, "a step, ms", "hours an epoch", "longest"]]
    return markdown(rows + [_simulated(each) for each in simulations()])


def _law(point: Point) -> list[str]:
    kind = "exact" if point["candidates"] is None else "sampled"
    ranks = f"{point['ranks']}, {point['share']} shared out" if point["ranks"] > 1 else "1"
    candidates = "" if point["candidates"] is None else f"{point['candidates']:,}"
    sizes = [f"{point[name]:,}" for name in ("items", "users", "length")]
    row = [point["law"], kind, ranks, *sizes, candidates]
    if "seconds" not in point:
        return [*row, "failed" if "failed" in point else "does not fit", *[""] * 5]
    shortest = (min(point[clock]) for clock in ("seconds", "cpu_seconds"))
    times = [f"{1000 * seconds:,.0f}" for seconds in (*shortest, point["model_seconds"])]
    return [*row, *times, *(f"{point[name]:,.0f}" for name in ("peak_mib", "plan_mib", "model_mib"))]


def _ratios(name: str, ratios: Iterable[float]) -> list[str]:
    found = sorted(ratios)
    if not found:
        return [name, "0", "", "", ""]
    return [name, str(len(found)), *(f"{each:.2f}" for each in (found[0], statistics.median(found), found[-1]))]


def _simulated(found: Simulated) -> list[str]:
    parts = {name: 1000 * seconds for name, seconds in found.parts.items()}
    rest = sum(parts.values()) - sum(parts[name] for name in LARGE)
    times = [*(parts[name] for name in LARGE), rest, 1000 * found.seconds]
    sizes = [str(found.shape.ranks), f"{found.peak / GB:,.0f}", f"{widest(found.shape):,}", f"{found.sent / GB:,.2f}"]
    return [found.mode, *sizes, *(f"{each:,.0f}" for each in times), f"{found.hours:,.2f}", found.longest]
