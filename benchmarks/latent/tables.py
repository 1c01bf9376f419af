"""The tables of docs/latent.md and docs/elbo.md, from the recorded results."""

from __future__ import annotations

import math
import statistics
from typing import Any

from benchmarks.pages.markdown import markdown


def anomaly_table(results: dict[str, Any]) -> str:
    """AUROC by kind of bot and by the users among whom they are planted, for each model."""
    first, *_ = results["models"].values()
    by = list(next(iter(first["held-out users"].values())))
    rows = [["AUROC", "bots", *(f"{name}, {way}" for name in results["models"] for way in by[:-1]), by[-1]]]
    for among, kinds in first.items():
        for kind in kinds:
            found = [model[among][kind] for model in results["models"].values()]
            values = [f"{value[way]:.3f}" for value in found for way in by[:-1]]
            rows.append([f"among {among}", kind, *values, f"{found[0][by[-1]]:.3f}"])
    return markdown(rows)


def generation_table(results: dict[str, Any]) -> str:
    """Accuracy of models trained on synthetic users only, and similarity of these to training users."""
    rows = [["trained on", "model", "NDCG@100", "share of real", "nearest training user, mean", "1 % above", "highest"]]
    for name, ways in results["models"].items():
        for way, found in ways.items():
            near = results["nearest"]["held-out users"] if way == "real" else found["nearest"]
            what = "real users (nearest: of held-out users)" if way == "real" else f"synthetic, {way}"
            figures = [f"{found['ndcg@100']:.4f}", f"{found.get('share', 1):.1%}"]
            rows.append([what, name, *figures, *(f"{near[key]:.3f}" for key in ("mean", "p99", "max"))])
    return markdown(rows)


def exploration_table(results: dict[str, Any]) -> str:
    """Accuracy and coverage by strength."""
    models = results["models"]
    rows = [["explore", *(f"{name}, {key}" for name, found in models.items() for key in found)]]
    for place, strength in enumerate(results["strengths"]):
        values = [curve["mean"][place] for found in models.values() for curve in found.values()]
        rows.append([f"{strength:g}", *(f"{value:.3f}" for value in values)])
    return markdown(rows)


def elbo_table(results: dict[str, Any]) -> str:
    """Both terms on held-out users, accuracy and active units, by the cap of beta."""
    keys = {"rate": ".1f", "distortion": ".1f", "ndcg@100": ".4f", "active units": "d", "sigma": ".2f"}
    rows = [["cap of beta", "KL (rate)", "-log p(x given z) (distortion)", "NDCG@100", "active units", "mean sigma"]]
    for cap in sorted(results["caps"], key=float):
        rows.append([cap, *(format(results["caps"][cap][key], spec) for key, spec in keys.items())])
    return markdown(rows)


def noise_table(results: dict[str, Any]) -> str:
    """Standard deviation, over draws, of two estimators of the same gradient."""
    (noise,) = (found["noise"] for found in results["caps"].values() if "noise" in found)
    least = min(noise.values())
    rows = [[name, f"{value:.2f}", f"{value / least:.1f}"] for name, value in noise.items()]
    return markdown([["estimator", "standard deviation", "times the smaller"], *rows])


def planes_table(results: dict[str, Any]) -> str:
    """Models with two dimensions: accuracy, and how similar neighbours are, by the cap of beta."""
    rows = [["cap of beta, 2 dimensions", "distance from 0", "sigma", "NDCG@100", "neighbours alike", "by chance"]]
    for cap, found in results["planes"].items():
        distance = statistics.fmean(math.hypot(*place) for place in found["places"])
        alike = f"{found['neighbours of the same favourite']:.1%}"
        figures = [f"{distance:.2f}", f"{found['sigma']:.3f}", f"{found['ndcg@100']:.3f}"]
        rows.append([cap, *figures, alike, f"{found['by chance']:.1%}"])
    return markdown(rows)
