"""The tables of speed, from the recorded results."""

from __future__ import annotations

import statistics
from typing import Any

from benchmarks.pages.markdown import markdown

Case = dict[str, Any]
NAMES = {
    "textbook": "textbook",
    "textbook-autocast": "textbook, autocast to bfloat16 and fused Adam",
    "float32": "recvae, float32",
    "bfloat16": "recvae, bfloat16",
    "recvae": "recvae",
}


def step_table(results: dict[str, Any]) -> str:
    """Users per second and memory of training steps, and the speed-up over the textbook at the same batch size."""
    cases = [case for case in results["cases"] if case["what"] == "step"]
    rows = [["a training step, 600-200-600", "batch", "users/s", "times the textbook", "memory, MiB"]]
    for case in cases:
        (textbook,) = _same(cases, "textbook", batch=case["batch"])
        times = users_per_second(case) / users_per_second(textbook)
        rows.append(
            [
                NAMES[case["engine"]],
                f"{case['batch']:,}",
                f"{users_per_second(case):,.0f}",
                f"{times:.1f}",
                f"{beyond(case, results):,.0f}",
            ]
        )
    return markdown(rows)


def epoch_table(results: dict[str, Any]) -> str:
    """Seconds per epoch on real data, as Markdown."""
    cases = [case for case in results["cases"] if case["what"] == "epoch"]
    engines = list(dict.fromkeys(case["engine"] for case in cases))
    rows = [["an epoch, batch 500, s", *(NAMES.get(engine, engine) for engine in engines)]]
    for name in dict.fromkeys(case["data"] for case in cases):
        found = {engine: _same(cases, engine, data=name) for engine in engines}
        rows.append([name, *(f"{seconds(each[0]):.2f}" if each else "" for each in found.values())])
    return markdown(rows)


def round_table(results: dict[str, Any]) -> str:
    """Seconds of RecVAE's rounds, as Markdown."""
    rows = [["a round, batch 500", "s", "times the textbook"]]
    for case in results["cases"]:
        (textbook,) = _same(results["cases"], "textbook", data=case["data"])
        times = seconds(textbook) / seconds(case)
        rows.append([f"{case['data']}, {NAMES[case['engine']]}", f"{seconds(case):.1f}", f"{times:.1f}"])
    return markdown(rows)


def rank_table(*runs: dict[str, Any]) -> str:
    """Users per second when listing the 100 best new items of each, as Markdown."""
    rows = [["the 100 best new items", "users", "items", "by", "s", "users/s"]]
    for results in runs:
        names = {"recvae": "recvae, 600 wide", "als": f"implicit's ALS, {results['als_factors']} wide"}
        for case in results["cases"]:
            if case["what"] == "rank":
                sizes = [f"{case['users']:,}", f"{results['data'][case['data']][1]:,}"]
                speed = case["users"] / seconds(case)
                rows.append([case["data"], *sizes, names[case["engine"]], f"{seconds(case):.2f}", f"{speed:,.0f}"])
    return markdown(rows)


def growth_table(results: dict[str, Any]) -> str:
    """Time and memory against size, as Markdown."""
    rows = [["", "users", "items", "s", "µs for an item or user", "memory, MiB", "bytes for a weight"]]
    for case in results["cases"]:
        size, is_step = (case["items"], True) if case["what"] == "step" else (case["users"], False)
        memory = [f"{in_all(case):,.0f}", f"{in_all(case) * 2**20 / parameters(size):.1f}"] if is_step else ["", ""]
        name = "a step of 500" if is_step else "an epoch"
        sizes = [f"{case['users']:,}", f"{case['items']:,}"]
        rows.append([name, *sizes, f"{seconds(case):.3f}", f"{1e6 * seconds(case) / size:.1f}", *memory])
    return markdown(rows)


def seconds(case: Case) -> float:
    """The median over rounds or repeats."""
    return float(statistics.median(case["seconds"]))


def users_per_second(case: Case) -> float:
    """Users per second of a training step."""
    return case["batch"] / seconds(case)


def beyond(case: Case, results: dict[str, Any]) -> float:
    """MiB of a training step beyond weights, gradients and the optimiser's two moments, of 4 bytes each."""
    return case["mib"] - 3 * 4 * parameters(results["data"][case["data"]][1]) / 2**20


def in_all(case: Case) -> float:
    """MiB of training without the data."""
    return case["mib"] + 4 * parameters(case["items"]) / 2**20


def parameters(n_items: int) -> int:
    """Number of parameters of a 600-200-600 Mult-VAE: its four layers, with biases."""
    sizes = [n_items * 600 + 600, 600 * 400 + 400, 200 * 600 + 600, 600 * n_items + n_items]
    return sum(sizes)


def _same(cases: list[Case], engine: str, **settings: Any) -> list[Case]:
    return [case for case in cases if case["engine"] == engine and settings.items() <= case.items()]
