"""The README's tables, made from the recorded results, so that no figure in them is typed by hand."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

from benchmarks.markdown import markdown
from benchmarks.speed.tables import epoch_table, growth_table, rank_table, step_table

RESULTS = Path(__file__).parent / "results"
DATASETS = ("sample", "ml-latest-small", "ml-100k", "ml-1m", "lastfm-2k", "ml-10m-implicit", "gowalla")
REFERENCES = ("ml-1m", "lastfm-2k", "ml-10m-implicit")
MODELS = ("MultVAE", "MultDAE", "ALS", "ItemKNN", "BPR", "LMF", "Popularity", "oracle")


def results_table(folder: Path = RESULTS) -> str:
    """The main metric of each model on each data set, as Markdown."""
    results = {name: _read(folder, name) for name in DATASETS}
    heads = [f"{name} ({result['settings']['metrics'][-1].upper()})" for name, result in results.items()]
    rows = [["", *heads]]
    rows += [[model, *(_cell(result, model) for result in results.values())] for model in MODELS]
    settings = [result["settings"] for result in results.values()]
    rows += [["split", *(each["split"]["kind"] for each in settings)]]
    rows += [["test users", *(f"{each['test_users']:,}" for each in settings)]]
    rows += [["seeds", *(str(len(each["seeds"])) for each in settings)]]
    rows += [["MultVAE training", *(f"{_seconds(result, 'MultVAE'):,.0f} s" for result in results.values())]]
    return markdown(rows)


def published_table(folder: Path = RESULTS, name: str = "gowalla") -> str:
    """Our rows among the published ones on the same protocol, best last, as Markdown."""
    result = _read(folder, name)
    metrics = result["settings"]["metrics"]
    ours = {
        f"{row['model']} (recvae)": [row["metrics"][metric]["mean"] for metric in metrics] for row in result["models"]
    }
    theirs = {who: [figures[metric] for metric in metrics] for who, figures in result["published"].items()}
    ranked = sorted((ours | theirs).items(), key=lambda item: item[1][-1])
    return markdown([[name, *metrics]] + [[who, *(f"{figure:.4f}" for figure in figures)] for who, figures in ranked])


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
    """Steps, epochs and ranking beside other packages, and growth with size, as Markdown."""
    speed, epochs, growth = (_read(folder, name) for name in ("speed", "epochs", "growth"))
    return [step_table(speed), epoch_table(epochs), rank_table(speed, epochs), growth_table(growth)]


def family_table(result: dict[str, Any]) -> str:
    """Every model on several splits, and ours against the best baseline, best first, as Markdown."""
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
    ]
    rows = sorted(result["models"], key=lambda row: -float(row["metrics"][main]["mean"]))
    kind = "test users" if result["measured_on"] == "test" else "half of the validation users, for development"
    users = f"{result['users']:,} persons among {result['tests_of_users']:,} {kind}"
    about = f"Means over {len(seeds)} splits (seeds {', '.join(map(str, seeds))}); {users}."
    return markdown([head, *(_family_row(row, metrics, best) for row in rows)]) + f"\n\n{about}"


def family_tables(folder: Path = RESULTS) -> list[str]:
    """The table of each recorded family of splits."""
    return [family_table(_read(folder, path.stem)) for path in sorted(folder.glob("family-*.json"))]


def results_page(folder: Path = RESULTS) -> str:
    """The page that stands beside the results."""
    return "\n\n".join(
        [
            "# Recorded results",
            "Made by `python -m benchmarks table`; the README says how each was measured.",
            results_table(folder),
            published_table(folder),
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
    return [row["model"], *means, *held, str(row["settings_tried"]), *seconds]


def _read(folder: Path, name: str) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return result


def _row(result: dict[str, Any], model: str) -> dict[str, Any] | None:
    return next((row for row in result["models"] if row["model"] == model), None)


def _seconds(result: dict[str, Any], model: str) -> float:
    row = _row(result, model)
    return float("nan") if row is None else float(row["fit_seconds"])


def _cell(result: dict[str, Any], model: str) -> str:
    row = _row(result, model)
    if row is None:
        return ""
    metric = row["metrics"][result["settings"]["metrics"][-1]]
    return f"{metric['mean']:.4f} ± {metric['stderr']:.4f}"
