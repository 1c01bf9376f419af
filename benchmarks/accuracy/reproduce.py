"""Our models by the protocol of a data set's card, compared with the published figures in the card."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.pages.markdown import markdown
from recvae.benchmark.grids import GRIDS, model_name
from recvae.benchmark.run import run_benchmark
from recvae.datasets.card import Card, load_card
from recvae.errors import InvalidParameterError

STANDARD_ERRORS = 2.0  # a figure within this distance of the published one counts as reproduced


def published_models(card: Card) -> dict[str, str]:
    """Model -> its row in the card's published figures: "Mult-VAE (Liang et al. 2018)" is a row of MultVAE."""
    names = {name.lower(): name for name in GRIDS}
    labels = {
        re.split(r"[ ,(]", label)[0].translate(str.maketrans("", "", "-+")).lower(): label for label in card.published
    }
    return {names[name]: label for name, label in labels.items() if name in names}


def run_reproduce(
    dataset: str,
    data_home: Path | None = None,
    models: Sequence[str] | None = None,
    seeds: int = 1,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train and evaluate by the card's own protocol. -> for JSON: each figure with the published one

    models : names; by default all that the card has figures of
    Standard errors are over our test users: if the card's split is the paper's, these are the same users.

    Raises InvalidParameterError for a model that the card has no figures of, and as `run_benchmark`, such as
    DataNotFoundError where the data are absent.
    """
    card = load_card(dataset)
    known = published_models(card)
    names = list(known) if models is None else [model_name(name) for name in models]
    missing = [name for name in names if name not in known]
    if missing or not names:
        raise InvalidParameterError(
            f"Expected models that the card {card.name} has published figures of, {', '.join(known) or 'none so far'}; "
            f"got {', '.join(missing) or 'none'}."
        )
    # the papers' linear models are dense, however wide the catalogue
    params = {"form": "dense"} if {"EASE", "EDLAE"} & set(names) else {}
    found = run_benchmark(dataset, data_home, names, seeds, params=params, examples=0, log=log)
    rows = [
        {"model": row["model"], "published_by": known[row["model"]], "metric": metric}
        | _held(figure, **row["metrics"][metric])
        for row in found["models"]
        if row["model"] in known
        for metric, figure in card.published[known[row["model"]]].items()
    ]
    return {key: found[key] for key in ("dataset", "settings", "versions", "absent")} | {
        "figures": rows,
        "reproduced": not found["absent"] and all(row["within"] for row in rows),
    }


def reproduce_table(results: dict[str, Any]) -> str:
    """Each figure next to the published one, as Markdown."""
    head = ["model", "metric", "published", "ours", "difference", f"within {STANDARD_ERRORS:g} standard errors"]
    return markdown(
        [head]
        + [
            [
                row["published_by"],
                row["metric"],
                f"{row['published']:.4f}",
                f"{row['mean']:.4f} ± {row['stderr']:.4f}",
                f"{row['difference']:+.4f}",
                "yes" if row["within"] else "no",
            ]
            for row in results["figures"]
        ]
    )


def _held(published: float, mean: float, stderr: float) -> dict[str, Any]:
    difference = mean - published
    within = abs(difference) <= STANDARD_ERRORS * stderr
    return {"published": published, "mean": mean, "stderr": stderr, "difference": difference, "within": within}
