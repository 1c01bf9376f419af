"""The file of a benchmark's results: its contents, and how it is written and read.

One JSON object. NaN and infinities become null. `summary` stands for {"mean", "stderr"}, the standard error over
test users.

    format          4; files of formats 2 and 3 are read too, and lack some keys
    dataset, title  name of the card (or its file), and title of the data set
    command         the command line that made it, or null
    settings        protocol of the card, split and its options, metrics of the table (the last sorts it), seeds,
                    train_users, train_events, items, test_users, test_users_dropped, validation_users;
                    sized_for_sample: models whose settings are for the size of the embedded sample
    versions        of Python, the platform, libraries; cores, threads, gpu
    best_baseline   name of the best model that is not of this package, or null
    models          one for each model, and for the sample an "oracle", which has only `model`, `metrics`, `lists` and
                    the curves and groups:
        model, parameters, settings_tried, choice_seconds
        metrics         summary by metric, of per-user means over seeds; by_seed: means by metric
        lists           coverage, novelty and gini of the lists at the largest k
        fit_seconds, users_ranked_per_second (medians over seeds), peak_memory_mib (of the process, the largest)
        history         of the first seed, by epoch: epoch, nll, kl, loss, beta, valid, seconds; null without epochs
        best_epoch      the one whose weights were kept
        paired_tests    by rival: difference, low, high (95 %), p_value, p_holm
        active_units    variances (over users, of each latent unit's mean, descending), active (how many above .01)
        recall_curve    summary of recall@k for k = 1, 2, ..., at most 100
        by_activity     summary of the last metric for each group of users
        by_popularity   summary of the share of held-out items that are found in 20 places, for each group of items
        listed          share of the first 20 places that go to each group of items
    groups          activity: [{users, least, most}], users by items folded in;
                    popularity: [{items, least, most, held_out}], items by training users
    absent          the reason, by model that could not be run
    published       figures that others published on this protocol, by name and metric
    examples        user, history, held_out, recommended (by model), why (by model, for each of the first
                    recommendations: [[item of the history, what it adds], ...])
    item_map        model, method, of (items in all), and for each of the most popular items x, y, title, genres
                    (null where not known), users

Without examples (`--examples 0`) there is no map either, and the file holds no item, no raw id and no history: only
means over users and counts.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from recvae.errors import InvalidDataError, shown
from recvae.utils.paths import input_path

FORMAT = 4
OLDEST = 2
LARGEST = sys.float_info.max  # an integer in JSON may be larger


def json_bytes(results: dict[str, Any]) -> bytes:
    """Results as the bytes of a JSON file. JSON has no NaN and no infinities: they become null."""
    plain = json.loads(json.dumps(results), parse_constant=lambda name: None)
    return (json.dumps(plain, indent=1) + "\n").encode()


def read_results(path: Path) -> dict[str, Any]:
    """Results from a file of format 2 or later, with at least one model that has the metric of its table.

    Raises
    ------
    InvalidDataError
        If the file cannot be read, is truncated, or contains something else.
    """
    try:
        path = input_path(path)
        results = json.loads(path.read_bytes(), parse_constant=lambda name: None)
        json.dumps(results, ensure_ascii=False).encode()  # a page is UTF-8, which cannot encode lone surrogates
    except OSError as error:
        raise InvalidDataError(f"Expected a file of results, got {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise InvalidDataError(f"Expected results as JSON in {path}, got a cut or damaged file: {error}.") from error
    check_results(results, str(path))
    return results


def check_results(results: Any, where: str = "the results") -> None:
    """Raise InvalidDataError unless these are results with all that the page as a whole needs."""
    known = results.get("format") if isinstance(results, dict) else None
    if not isinstance(known, int) or isinstance(known, bool):
        raise InvalidDataError(f"Expected what recvae benchmark --out writes in {where}, got other JSON.")
    if not OLDEST <= known <= FORMAT:
        raise InvalidDataError(
            f"Expected results of format {OLDEST} to {FORMAT} in {where}, got format {shown(known)}; run the benchmark "
            f"again with this version."
        )
    metrics = _at(results, "settings", "metrics")
    if not (isinstance(metrics, list) and metrics and all(isinstance(name, str) for name in metrics)):
        raise InvalidDataError(f"Expected the names of metrics in the settings of {where}, got {shown(metrics)}.")
    rows = results.get("models")
    rows = rows if isinstance(rows, list) else []
    if not any(number(_at(row, "metrics", metrics[-1], "mean")) is not None and _named(row) for row in rows):
        raise InvalidDataError(f"Expected a model with {metrics[-1]} in {where}, got none.")


def results_frame(results: dict[str, Any], library: str = "pyarrow") -> Any:
    """The metrics of all models of a benchmark as a table.

    Parameters
    ----------
    results : dict
        What `run_benchmark` returns or `read_results` reads.
    library : str
        "pyarrow", "pandas" or "polars".

    Returns
    -------
    pyarrow.Table or pandas.DataFrame or polars.DataFrame
        A row for each model and metric: model, metric, mean, stderr (over test users), null where not finite.

    Raises
    ------
    InvalidDataError
        If these are no results.
    UnknownNameError
        For another library.
    """
    import pyarrow as pa

    from recvae.data.histories import frame_in

    check_results(results)
    rows = [
        (row["model"], metric, number(summary.get("mean")), number(summary.get("stderr")))
        for row in results["models"]
        for metric, summary in row["metrics"].items()
    ]
    names = ("model", "metric", "mean", "stderr")
    kinds = (pa.string(), pa.string(), pa.float64(), pa.float64())
    columns = zip(names, kinds, zip(*rows, strict=True), strict=True)
    return frame_in(library, pa.table({name: pa.array(column, kind) for name, kind, column in columns}))


def number(value: Any) -> float | None:
    """The value as a float if it is a finite number, else None."""
    is_finite = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST
    return float(value) if is_finite else None  # NaN compares false


def _named(row: Any) -> bool:
    return isinstance(row.get("model"), str)


def _at(value: Any, *keys: str) -> Any:
    """The value under nested keys, or None."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value
