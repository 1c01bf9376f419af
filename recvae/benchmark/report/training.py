"""The charts of how the models came about: learning curves, latent units, memory."""

from __future__ import annotations

from typing import Any

from recvae.benchmark.inspection import ACTIVE
from recvae.benchmark.report import charts
from recvae.benchmark.report.pieces import Chart, Table, numbers
from recvae.benchmark.report.view import AbsentError, View
from recvae.benchmark.results import number


def learning(view: View) -> list[Chart]:
    """The two terms of the ELBO, the weight of one of them, and validation, by epoch."""
    histories = view.each("history")
    kept = {name: view.rows[name].get("best_epoch") for name in histories}
    made = []
    for key, title, y, said in (
        ("valid", "Validation", "NDCG@100 of validation users",
         "Accuracy on users set apart for choices: higher is better, and the mark is the epoch that was kept."),
        ("nll", "Reconstruction term of the ELBO", "-E log p(x | z), nats for each user",
         "How badly the model restores what a user has: it should fall, and the mark is the epoch that was kept."),
        ("kl", "KL term of the ELBO", "KL(q(z | x) || p(z)), nats for each user",
         "How much the latent code says about a user beyond the prior: at zero it says nothing."),
        ("beta", "Weight of the KL term", "beta",
         "How much the KL term counts in what is minimised; a schedule raises it while the model learns."),
    ):  # fmt: skip
        rows = [
            {"name": name, "x": int(epoch["epoch"]), "y": value, "kept": epoch["epoch"] == kept[name]}
            for name, history in histories.items()
            for epoch in history
            if (value := number(epoch.get(key))) is not None
        ]
        if rows:
            made.append(_by_epoch(view, f"learning-{key}", title, said, y, rows))
    if not made:
        raise AbsentError("no model has epochs.")
    return made


def latent_units(view: View) -> list[Chart]:
    """Which latent units say anything."""
    found = view.each("active_units")
    looks = [view.looks[name] for name in found]
    rows = [
        {"name": name, "x": place, "y": max(variance, 1e-8)}
        for name, units in found.items()
        for place, variance in enumerate(units["variances"], 1)
    ]
    counts = {name: f"{units['active']} of {len(units['variances'])}" for name, units in found.items()}
    said = ", ".join(f"{name} {count}" for name, count in counts.items())
    return [
        Chart(
            "units",
            "Active latent units",
            f"A unit whose mean differs between users (variance above {ACTIVE:g}, after Burda et al. 2016) carries "
            "information; a line that drops early belongs to a model that leaves much of its latent space unused.",
            f"Variance of each latent unit, by rank. Active units: {said}.",
            charts.spectrum(rows, looks, ACTIVE),
            Table(["model", "active units"], [[name, count] for name, count in counts.items()]),
            looks,
            found=f"Active units: {said}.",
        )
    ]


def memory(view: View) -> list[Chart]:
    """Peak memory."""
    found = numbers(view, "peak_memory_mib")
    rows = [{"name": name, "value": mib} for name, mib in found.items()]
    return [
        Chart(
            "memory",
            "Peak memory",
            "The bar is the most memory that the whole process held while a model was trained and tested; what others "
            "before it left behind counts as well, so that small differences mean little.",
            "Peak memory in MiB: " + ", ".join(f"{name} {mib:,.0f}" for name, mib in found.items()) + ".",
            charts.bars(rows, [view.looks[name] for name in found], "MiB", ",.0f"),
            Table(["model", "peak MiB"], [[name, f"{mib:,.0f}"] for name, mib in found.items()]),
            [],
        )
    ]


def _by_epoch(view: View, name: str, title: str, said: str, y: str, rows: list[dict[str, Any]]) -> Chart:
    last = {row["name"]: row for row in rows}  # the last epoch of each
    first = {row["name"]: row for row in reversed(rows)}
    looks = [view.looks[model] for model in last]
    texts = [[m, f"{first[m]['y']:.4g}", f"{last[m]['y']:.4g}", str(last[m]["x"])] for m in last]
    return Chart(
        name,
        title,
        said,
        f"{y} by epoch for {', '.join(last)}.",
        charts.curves(rows, looks, "epoch", y, ".4g", 240),
        Table(["model", "after the first epoch", "after the last", "epochs"], texts),
        looks,
    )
