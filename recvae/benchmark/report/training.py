"""The charts of training: learning curves, latent units, memory."""

from __future__ import annotations

from typing import Any

from recvae.benchmark.inspection import ACTIVE
from recvae.benchmark.report import charts
from recvae.benchmark.report.view import AbsentError, Chart, Table, View
from recvae.benchmark.results import number


def learning_curves(view: View) -> list[Chart]:
    """Validation NDCG@100, the two terms of the ELBO and the weight of the KL term, by epoch."""
    histories = view.values("history")
    best_epochs = {name: view.rows[name].get("best_epoch") for name in histories}
    curves = []
    for key, title, y, read in (
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
            {"name": name, "x": int(epoch["epoch"]), "y": value, "kept": epoch["epoch"] == best_epochs[name]}
            for name, history in histories.items()
            for epoch in history
            if (value := number(epoch.get(key))) is not None
        ]
        if rows:
            curves.append(_learning_curve(view, f"learning-{key}", title, read, y, rows))
    if not curves:
        raise AbsentError("no model has epochs.")
    return curves


def _learning_curve(view: View, name: str, title: str, read: str, y: str, rows: list[dict[str, Any]]) -> Chart:
    last = {row["name"]: row for row in rows}  # model -> row of its last epoch
    first = {row["name"]: row for row in reversed(rows)}
    looks = [view.looks[model] for model in last]
    texts = [[m, f"{first[m]['y']:.4g}", f"{last[m]['y']:.4g}", str(last[m]["x"])] for m in last]
    return Chart(
        name,
        title,
        read,
        f"{y} by epoch for {', '.join(last)}.",
        charts.curves(rows, looks, "epoch", y, ".4g", 240),
        Table(["model", "after the first epoch", "after the last", "epochs"], texts),
        looks,
    )


def latent_units(view: View) -> list[Chart]:
    """The variances of the latent units, and how many units are active."""
    units = view.values("active_units")
    looks = [view.looks[name] for name in units]
    rows = [
        {"name": name, "x": rank, "y": max(variance, 1e-8)}
        for name, model_units in units.items()
        for rank, variance in enumerate(model_units["variances"], 1)
    ]
    counts = {name: f"{unit_info['active']} of {len(unit_info['variances'])}" for name, unit_info in units.items()}
    counts_text = ", ".join(f"{name} {count}" for name, count in counts.items())
    return [
        Chart(
            "units",
            "Active latent units",
            f"A unit whose mean differs between users (variance above {ACTIVE:g}, after Burda et al. 2016) carries "
            "information; a line that drops early belongs to a model that leaves much of its latent space unused.",
            f"Variance of each latent unit, by rank. Active units: {counts_text}.",
            charts.spectrum(rows, looks, ACTIVE),
            Table(["model", "active units"], [[name, count] for name, count in counts.items()]),
            looks,
            caption=f"Active units: {counts_text}.",
        )
    ]


def memory(view: View) -> list[Chart]:
    """Peak memory."""
    peaks = view.numbers("peak_memory_mib")
    rows = [{"name": name, "value": mib} for name, mib in peaks.items()]
    return [
        Chart(
            "memory",
            "Peak memory",
            "The bar is the most memory that the whole process held while a model was trained and tested; what others "
            "before it left behind counts as well, so that small differences mean little.",
            "Peak memory in MiB: " + ", ".join(f"{name} {mib:,.0f}" for name, mib in peaks.items()) + ".",
            charts.bars(rows, [view.looks[name] for name in peaks], "MiB", ",.0f"),
            Table(["model", "peak MiB"], [[name, f"{mib:,.0f}"] for name, mib in peaks.items()]),
            [],
        )
    ]
