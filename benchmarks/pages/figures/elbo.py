"""Figures of the two terms of the ELBO, the effect of beta on them and on the latent space, interpolation, samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.latent.elbo import ENDS, GENRES, METRIC
from benchmarks.pages.figures.style import BLUE, COLORS, GREEN, GREY, VERMILION, picture

CURVES = ("0", "0.2", "1")  # caps whose training is shown
SHOWN = 300  # users of a plane: enough to see, in a small file
SEEN = 0.25  # genres whose share stays below this are not drawn


def plot_training(results: dict[str, Any], path: Path) -> None:
    """Both terms over the epochs, for three caps of beta."""
    with picture(path, columns=2, width=8) as axes:
        for axis, term, title in zip(
            axes, ("nll", "kl"), ("reconstruction, -log p(x | z)", "KL(q(z | x) || p(z))"), strict=True
        ):
            for cap, color in zip(CURVES, COLORS, strict=False):
                curve = results["caps"][cap]["training"][term]
                axis.plot(
                    range(1, len(curve) + 1), curve, color=color, label=f"beta up to {cap}" if cap != "0" else "0"
                )
            axis.set(title=f"{title}, nats a user", xlabel="epoch")
        axes[1].set_yscale("log")
        axes[0].legend(title="cap of beta", labels=CURVES)


def plot_rate(results: dict[str, Any], path: Path) -> None:
    """Rate against distortion; accuracy and active units against the cap of beta."""
    caps = sorted(results["caps"], key=float)
    found = [results["caps"][cap] for cap in caps]
    with picture(path, columns=3, width=9) as axes:
        rate, distortion = [row["rate"] for row in found], [row["distortion"] for row in found]
        axes[0].plot(rate, distortion, "o-", color=BLUE)
        for cap, *place in zip(caps, rate, distortion, strict=True):
            axes[0].annotate(cap, place, xytext=(4, 5), textcoords="offset points", fontsize=8)
        axes[0].set(title="distortion by rate, nats", xlabel="KL", ylabel="-log p(x | z)", xscale="log")
        for axis, key, title, color in (
            (axes[1], METRIC, "NDCG@100", VERMILION),
            (axes[2], "active units", "active units of 200", GREEN),
        ):
            axis.plot([float(cap) for cap in caps], [row[key] for row in found], "o-", color=color)
            axis.set(title=title, xlabel="cap of beta")
        axes[2].set_ylim(0, None)


def plot_plane(results: dict[str, Any], path: Path) -> None:
    """Users in two dimensions by favourite genre, for three caps; circles are one and two sigma of the prior."""
    from matplotlib.patches import Circle

    with picture(path, columns=3, width=9, height=3.7) as axes:
        for axis, (cap, found) in zip(axes, results["planes"].items(), strict=True):
            places, kinds = found["places"][:SHOWN], found["favourites"][:SHOWN]
            for kind, (genre, color) in enumerate(zip(GENRES, COLORS, strict=True)):
                points = [place for place, own in zip(places, kinds, strict=True) if own == kind]
                axis.plot(*zip(*points, strict=True), "o", markersize=3, color=color, label=genre, markeredgewidth=0)
            for radius in (1, 2):
                axis.add_patch(Circle((0, 0), radius, fill=False, edgecolor=GREY, linestyle=":"))
            axis.set(title=f"beta up to {cap}" if cap != "0" else "beta 0", xlabel="$z_1$")
            axis.set_aspect("equal", adjustable="datalim")
        axes[0].set_ylabel("$z_2$")
        handles, labels = axes[0].get_legend_handles_labels()
        axes[0].figure.legend(handles, labels, loc="outside lower center", ncols=len(GENRES), markerscale=2)


def plot_walk(results: dict[str, Any], path: Path) -> None:
    """Genres of the most likely films, interpolating between two invented users."""
    (walk,) = (found["walk"] for found in results["caps"].values() if "walk" in found)
    drawn = {genre: shares for genre, shares in walk.items() if max(shares) >= SEEN}
    with picture(path) as (axis,):
        for (genre, shares), color in zip(drawn.items(), COLORS, strict=False):
            axis.plot([step / (len(shares) - 1) for step in range(len(shares))], shares, "o-", color=color, label=genre)
        axis.set(
            title="genres of the 20 likeliest films",
            xlabel=f"on the way from {ENDS[0]} to {ENDS[1]}",
            ylabel="share",
            ylim=(-0.02, 1.02),
        )
        axis.legend()


def plot_samples(results: dict[str, Any], path: Path) -> None:
    """Similarity of synthetic users to training users, by cap, against that of real held-out users."""
    caps = sorted(results["caps"], key=float)
    with picture(path) as (axis,):
        for latent, color in (("aggregate", BLUE), ("prior", VERMILION)):
            values = [results["caps"][cap]["nearest"][latent] for cap in caps]
            axis.plot([float(cap) for cap in caps], values, "o-", color=color, label=f"drawn from the {latent}")
        real = results["nearest of held-out users"]
        axis.axhline(real, color=GREY, linestyle=":", label="real, not in training")
        axis.set(title="nearest training user, Jaccard index", xlabel="cap of beta", ylim=(0, None))
        axis.legend()
