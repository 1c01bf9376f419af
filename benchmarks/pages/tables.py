"""The tables of the README and of the guide, made from the recorded results."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.pages.markdown import markdown
from benchmarks.speed.tables import epoch_table, growth_table, rank_table, step_table
from recvae import load_card

RESULTS = Path(__file__).parents[1] / "results"
DATASETS = ("ml-1m", "ml-10m-implicit", "lastfm-2k", "ml-100k")
PUBLISHED = ("gowalla", "yelp2018", "amazon-cds")
REFERENCES = ("ml-1m", "lastfm-2k", "ml-10m-implicit")
MODELS = (
    "HybridVAE",
    "RecVAE",
    "MultDAE",
    "MultVAE",
    "EDLAE",
    "EASE",
    "iALS",
    "ALS",
    "SLIM",
    "GFCF",
    "RP3beta",
    "P3alpha",
    "ItemKNN",
    "Popularity",
)


def results_table(folder: Path = RESULTS) -> str:
    """NDCG@100 of each model on the recorded data sets, and the lead of HybridVAE, as Markdown."""
    families = _families(folder)
    rows = [["NDCG@100", *(f["dataset"] for f in families)]]
    known = [model for model in MODELS if any(_row(family, model) for family in families)]
    rows += [[model, *(_cell(family, model) for family in families)] for model in known]
    rows += [["HybridVAE, less the best baseline", *(_ahead(family) for family in families)]]
    rows += [["splits", *(str(len(family["split_seeds"])) for family in families)]]
    rows += [["test users in a split", *(f"{family['first_split']['test_users']:,}" for family in families)]]
    rows += [["HybridVAE training", *(_training(family, "HybridVAE") for family in families)]]
    return markdown(rows)


def published_tables(folder: Path = RESULTS) -> str:
    """Our rows among the published ones, a table for each data set that was run by its published protocol."""
    return "\n\n".join(published_table(name, folder) for name in PUBLISHED)


def published_table(name: str, folder: Path = RESULTS) -> str:
    """Our rows among the published ones on the same protocol, best last, as Markdown."""
    result = _read(folder, name)
    metrics = result["settings"]["metrics"]
    rows = {}
    for row in result["models"]:
        means = [f"{row['metrics'][metric]['mean']:.4f}" for metric in metrics]
        rows[f"{row['model']} (recvae)"] = [*means, f"{row['fit_seconds']:,.0f} s", str(row["settings_tried"])]
    for who, figures in load_card(name).published.items():
        rows[who] = [*(f"{figures[metric]:.4f}" for metric in metrics), "", ""]
    ranked = sorted(rows.items(), key=lambda row: float(row[1][len(metrics) - 1]))
    return markdown([[name, *metrics, "training", "settings"], *([who, *cells] for who, cells in ranked)])


def reference_table(folder: Path = RESULTS) -> str:
    """MultVAE against the dense textbook, as Markdown."""
    rows = [["NDCG@100", "recvae", "textbook", "difference (95 % interval)", "seeds", "training"]]
    for name in REFERENCES:
        result = _read(folder, f"reference-{name}")
        means = [f"{result[who]['metrics']['ndcg@100']['mean']:.4f}" for who in ("recvae", "textbook")]
        seconds = [statistics.median(result[who]["training_seconds"]) for who in ("recvae", "textbook")]
        test = result["difference"]
        interval = f"{test['difference']:+.4f} ({test['low']:+.4f} to {test['high']:+.4f})"
        rows.append([name, *means, interval, str(result["seeds"]), f"{seconds[0]:,.0f} s against {seconds[1]:,.0f} s"])
    return markdown(rows)


def speed_tables(folder: Path = RESULTS) -> list[str]:
    """Steps, epochs and ranking compared with other packages, and growth with size, as Markdown."""
    speed, epochs, growth = (_read(folder, name) for name in ("speed", "epochs", "growth"))
    return [step_table(speed), epoch_table(epochs), rank_table(speed, epochs), growth_table(growth)]


def speed_table(number: int, folder: Path = RESULTS) -> str:
    """One of `speed_tables`, by index."""
    return speed_tables(folder)[number]


def models_table(folder: Path = RESULTS, name: str = "ml-1m") -> str:
    """Accuracy and seconds of each model on one data set, best first, as Markdown."""
    family = _read(folder, f"family-{name}")
    metrics = family["metrics"]
    rows = [[name, *metrics, "training, s", "choice among settings, s"]]
    for row in sorted(family["models"], key=lambda row: -float(row["metrics"][metrics[-1]]["mean"])):
        means = [f"{row['metrics'][metric]['mean']:.3f}" for metric in metrics]
        choice = f"{row['choice_seconds']:,.0f}" if row["settings_tried"] > 1 else ""
        rows.append([row["model"], *means, f"{row['fit_seconds']:,.1f}", choice])
    return markdown(rows)


def family_table(result: dict[str, Any]) -> str:
    """Every model on several splits, with paired tests against the best baseline, best first, as Markdown."""
    metrics, best = result["metrics"], result["best_baseline"]
    seeds, main = result["split_seeds"], metrics[-1]
    head = [
        result["dataset"],
        *metrics,
        f"less {best or 'baseline'} (95 % interval)",
        "p (Holm)",
        "settings",
        "choice",
        "training",
        "to the best baseline",
    ]
    rows = sorted(result["models"], key=lambda row: -float(row["metrics"][main]["mean"]))
    kind = "test users" if result["measured_on"] == "test" else "half of the validation users, for development"
    users = f"{result['users']:,} persons among {result['tests_of_users']:,} {kind}"
    about = f"Means over {len(seeds)} splits (seeds {', '.join(map(str, seeds))}); {users}."
    return markdown([head, *(_family_row(row, metrics, best) for row in rows)]) + f"\n\n{about}"


def family_tables(folder: Path = RESULTS) -> list[str]:
    """The table of each recorded family of splits."""
    return [family_table(_read(folder, path.stem)) for path in sorted(folder.glob("family-*.json"))]


def joins_table(folder: Path = RESULTS) -> str:
    """NDCG@100 of each combination of a VAE and a linear path, as Markdown."""
    result = _read(folder, "joins-ml-1m")
    rows = [["NDCG@100", *(f"split {seed}" for seed in result["split_seeds"]), "mean"]]
    rows += [
        [way, *(f"{value:.4f}" for value in values), f"{statistics.fmean(values):.4f}"]
        for way, values in result["ndcg@100"].items()
    ]
    return markdown(rows)


def cold_table(folder: Path = RESULTS) -> str:
    """How well each method ranks cold items, as Markdown."""
    ways = _read(folder, "cold-ml-1m")["ways"]
    metrics = [name for name in next(iter(ways.values())) if name != "seconds"]
    return markdown([["", *metrics]] + [[way, *(f"{row[name]:.3f}" for name in metrics)] for way, row in ways.items()])


def growing_table(folder: Path = RESULTS) -> str:
    """`partial_fit` next to no update and a new fit, as Markdown."""
    ways = _read(folder, "growing-ml-1m")["ways"]
    rows = [["NDCG@100", "all items", "new items", "old items", "seconds"]]
    for way, row in ways.items():
        figures = [f"{row['all']:.4f} ± {row['all, stderr']:.4f}", f"{row['new']:.4f}", f"{row['old']:.4f}"]
        rows.append([way.replace("fit on both anew", "new fit on both"), *figures, f"{row['seconds']:,.0f}"])
    return markdown(rows)


def results_page(folder: Path = RESULTS) -> str:
    """The content of benchmarks/results/README.md."""
    return "\n\n".join(
        [
            "# Recorded results",
            "Made by `python -m benchmarks table`; docs/evaluating.md and docs/speed.md say how each was measured.",
            results_table(folder),
            published_tables(folder),
            reference_table(folder),
            *family_tables(folder),
            *speed_tables(folder),
        ]
    )


def _family_row(row: dict[str, Any], metrics: list[str], best: str | None) -> list[str]:
    means = [f"{row['metrics'][metric]['mean']:.4f}" for metric in metrics]
    means[-1] += f" ± {row['metrics'][metrics[-1]]['stderr']:.4f}"
    test = row["paired_tests"].get(best)
    held = ["", ""]
    if test is not None:
        p = f"{test['p_holm']:.3f}" if test["p_holm"] >= 0.001 else "< .001"
        held = [f"{test['difference']:+.4f} ({test['low']:+.4f} to {test['high']:+.4f})", p]
    seconds = [f"{row[part]:,.1f} s" for part in ("choice_seconds", "fit_seconds")]
    return [row["model"], *means, *held, str(row["settings_tried"]), *seconds, _reached(row)]


def _reached(row: dict[str, Any]) -> str:
    """Median seconds until validation users are ranked as by the best baseline, and on how many splits if not all."""
    splits = row.get("seconds_to_best_baseline", [])  # older results have none
    reached = [seconds for seconds in splits if seconds is not None]
    if not reached:
        return ""
    return f"{statistics.median(reached):,.1f} s" + (
        f" ({len(reached)} of {len(splits)})" if len(reached) < len(splits) else ""
    )


def _read(folder: Path, name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return result


def _families(folder: Path) -> list[dict[str, Any]]:
    """The recorded results of `DATASETS` that exist, in this order."""
    return [_read(folder, f"family-{name}") for name in DATASETS if (folder / f"family-{name}.json").exists()]


def _row(result: dict[str, Any], model: str) -> dict[str, Any] | None:
    return next((row for row in result["models"] if row["model"] == model), None)


def _cell(family: dict[str, Any], model: str) -> str:
    row = _row(family, model)
    if row is None:
        return ""
    metric = row["metrics"]["ndcg@100"]
    return f"{metric['mean']:.4f} ± {metric['stderr']:.4f}"


def _ahead(family: dict[str, Any]) -> str:
    row, best = _row(family, "HybridVAE"), family["best_baseline"]
    if row is None:
        return ""
    test = row["paired_tests"].get(best)
    if test is None:
        return ""
    p = f"p = {test['p_holm']:.3f}" if test["p_holm"] >= 0.001 else "p < .001"
    return f"{test['difference']:+.4f} ({test['low']:+.4f} to {test['high']:+.4f}), {p}, {best}"


def _training(family: dict[str, Any], model: str) -> str:
    row = _row(family, model)
    return "" if row is None else f"{row['fit_seconds']:,.0f} s"
