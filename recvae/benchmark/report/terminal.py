"""Tables of a benchmark's results for the terminal."""

from __future__ import annotations

from itertools import zip_longest
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from recvae.benchmark.report.view import listing
from recvae.errors import escaped


def print_results(results: dict[str, Any], console: Console) -> None:
    """Print the table of all models, then a few users with their recommendations."""
    console.print(_table(results))
    for note in _notes(results):
        console.print(_text(note, style="dim"))
    for example in results["examples"]:
        console.print()
        console.print(_example(example))


def _table(results: dict[str, Any]) -> Table:
    settings = results["settings"]
    *others, main = settings["metrics"]  # the main metric comes last, and sorts the table
    among = "others" if settings["split"]["kind"] == "strong" else "users, these among them"
    title = (
        f"{results['dataset']}, {settings['split']['kind']} split: {settings['test_users']:,} test users, trained on "
        f"{settings['train_users']:,} {among}, {settings['items']:,} items, mean of {len(settings['seeds'])} seed(s)"
    )
    table = Table(title=_text(title), title_justify="left")
    table.add_column("model")
    for name in (*others, main, "less best baseline", "settings", "fit s", "users/s", "peak MiB"):
        table.add_column(_text(name), justify="right")
    for row in sorted(results["models"], key=lambda row: -row["metrics"][main]["mean"]):
        means = [f"{row['metrics'][name]['mean']:.4f}" for name in (*others, main)]
        means[-1] += f" ±{row['metrics'][main]['stderr']:.4f}"
        table.add_row(_text(row["model"]), *means, _comparison(row, results["best_baseline"]), *_cost(row))
    return table


def _text(text: str, style: str = "") -> Text:
    """Text without markup and without control characters."""
    return Text(escaped(text), style=style)


def _comparison(row: dict[str, Any], rival: str | None) -> str:
    test = row.get("paired_tests", {}).get(rival)
    if test is None:
        return ""
    p = f"p={test['p_holm']:.3f}" if test["p_holm"] >= 0.001 else "p<.001"
    return f"{test['difference']:+.4f} {p}"


def _cost(row: dict[str, Any]) -> tuple[str, ...]:
    if "fit_seconds" not in row:
        return ("",) * 4
    settings = str(row["settings_tried"])
    if row["settings_tried"] > 1:
        settings += f", {row['choice_seconds']:,.0f} s"
    costs = f"{row['fit_seconds']:,.1f}", f"{row['users_ranked_per_second']:,.0f}", f"{row['peak_memory_mib']:,.0f}"
    return settings, *costs


def _notes(results: dict[str, Any]) -> list[str]:
    """Explanations below the table."""
    main, rival = results["settings"]["metrics"][-1], results["best_baseline"]
    notes = [
        f"{main} ± its standard error over users; settings: how many were tried on validation users, and for how long; "
        "users/s: ranked in the evaluation; peak MiB: of the process."
    ]
    if sized := results["settings"].get("sized_for_sample"):
        notes.append(
            f"{listing(sized)}: settings for the size of the sample instead of the defaults, fewer epochs, "
            "smaller networks and fewer neighbours."
        )
    if rival is not None:
        notes.append(
            f"less best baseline: {main} less that of {rival}, p by two-sided paired bootstrap over users, "
            "adjusted (Holm) for all baselines that a model is tested against; the file of results has each."
        )
    for row in results["models"]:
        if row.get("settings_tried", 1) > 1:
            chosen = ", ".join(f"{key}={value}" for key, value in row["parameters"].items() if value is not None)
            notes.append(f"{row['model']}: the best on validation users of {row['settings_tried']} settings, {chosen}.")
        if row["model"] == "oracle":
            notes.append("oracle: ranking by the preferences that the sample was drawn from; no model can do better.")
    for name, figures in results["published"].items():
        measured = ", ".join(f"{metric} {figure:.4f}" for metric, figure in figures.items())
        notes.append(f"published on this protocol: {name}, {measured}.")
    return notes + [f"{name} is absent: {why}" for name, why in results["absent"].items()]


def _example(example: dict[str, Any], n_history: int = 10) -> Table:
    history, held_out = example["history"], set(example["held_out"])
    name, titles = next(iter(example["recommended"].items()))
    hits = sum(title in held_out for title in titles)
    table = Table(
        title=_text(f"User {example['user']}: {name} finds {hits} of {len(held_out)} held-out items (*)"),
        title_justify="left",
        box=None,
    )
    table.add_column(f"history ({min(n_history, len(history))} of {len(history)})", style="dim", min_width=44)
    table.add_column(f"top {len(titles)}")
    ranked = [f"{rank:>2} {'*' if title in held_out else ' '} {title}" for rank, title in enumerate(titles, 1)]
    for seen, recommended in zip_longest(history[:n_history], ranked, fillvalue=""):
        table.add_row(_text(seen), _text(recommended))
    return table
