"""The README's table, made from the recorded results, so that no figure in it is typed by hand."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
DATASETS = ("sample", "ml-latest-small", "ml-100k", "ml-1m")
MODELS = ("MultVAE", "MultDAE", "ALS", "ItemKNN", "Popularity", "oracle")


def results_table(folder: Path = RESULTS) -> str:
    """NDCG@100 of each model on each data set, and the seconds of training on the last one, as Markdown."""
    results = {name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8")) for name in DATASETS}
    rows = {name: {row["model"]: row for row in result["models"]} for name, result in results.items()}
    lines = [
        f"| NDCG@100 | {' | '.join(DATASETS)} | training, {DATASETS[-1]} |",
        f"|---|{'---|' * (len(DATASETS) + 1)}",
    ]
    for model in MODELS:
        cells = [_cell(rows[name].get(model)) for name in DATASETS]
        seconds = rows[DATASETS[-1]].get(model, {}).get("fit_seconds")
        lines.append(f"| {model} | {' | '.join(cells)} | {'' if seconds is None else f'{seconds:.1f} s'} |")
    return "\n".join(lines)


def reference_line(folder: Path = RESULTS) -> str:
    """The comparison with the textbook in words."""
    result = json.loads((folder / "reference-ml-1m.json").read_text(encoding="utf-8"))
    (ours, our_seconds), (theirs, their_seconds) = (
        (result[who]["metrics"]["ndcg@100"]["mean"], statistics.median(result[who]["training_seconds"]))
        for who in ("recvae", "textbook")
    )
    difference = result["difference"]
    return (
        f"{ours:.4f} against {theirs:.4f}, a difference of {difference['difference']:+.4f} with a 95 % interval from\n"
        f"{difference['low']:+.4f} to {difference['high']:+.4f}; {our_seconds:.0f} s of training against "
        f"{their_seconds:.0f} s"
    )


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    metric = row["metrics"]["ndcg@100"]
    return f"{metric['mean']:.4f} ± {metric['stderr']:.4f}"
