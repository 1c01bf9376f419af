"""The two terms of the ELBO on real data: MultVAE over caps of beta, its latent space, interpolation and samples."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from benchmarks.latent import training_rows, whole_rows
from benchmarks.latent.generation import LATENTS, nearest
from recvae import MultVAE, Split, TrainingOptions, evaluate, load_dataset, load_split
from recvae.data.batches import Batch, DeviceRows
from recvae.nn import CounterRNG

CAPS = (0.2, 0.0, 1.0, 0.5, 0.1)  # of beta
PLANE_CAPS = (0.0, 0.2, 1.0)  # of models with two latent dimensions
WALK_CAP = 0.2
GENRES = ("Action", "Children's", "Drama", "Horror", "Romance", "Sci-Fi")
ENDS = ("Horror", "Children's")  # of the walk
METRIC = "ndcg@100"
ACTIVE = 0.01  # variance of a dimension's posterior mean over users, Burda et al. 2016
NEIGHBOURS = 10
DRAWN = 1000  # synthetic users
NOISY_USERS, NOISY_DRAWS = 50, 200  # for the noise of two estimators of the gradient
# from random weights, as in the paper: what the terms do is seen without the head start of a filter
OPTIONS: dict[str, Any] = {"random_state": 0, "training": TrainingOptions(initial_weights="random")}
PLANE_OPTIONS: dict[str, Any] = {"latent_dim": 2, "hidden_dims": (100,)}
Floats = NDArray[np.float64]


def run_elbo(dataset: str, home: Path | None, out: Path | None, save: Callable[[dict[str, Any]], None]) -> None:
    """Train for each cap, measure on validation users; results that `out` already has are not measured again."""
    split, genres = load_split(dataset, home), genres_of(dataset, home)
    results: dict[str, Any] = {"dataset": dataset, "users": len(split.valid.users), "caps": {}, "planes": {}}
    if out is not None and out.exists():
        results = json.loads(out.read_text(encoding="utf-8"))
    labels = genres(split.train.item_ids)
    for part, caps, measure in (("caps", CAPS, of_cap), ("planes", PLANE_CAPS, of_plane)):
        for cap in caps:
            if f"{cap:g}" not in results[part]:
                results[part][f"{cap:g}"] = measure(cap, split, labels)
                print(part, cap, flush=True)
                save(results)
    rows = whole_rows(split.valid, split.train.values)
    results["nearest of held-out users"] = float(nearest(rows, training_rows(split)).mean())
    save(results)


def genres_of(dataset: str, home: Path | None) -> Callable[[NDArray[Any]], NDArray[np.bool_]]:
    """Membership of items in `GENRES`. -> function: raw ids (I,) -> (I, G)"""
    data = load_dataset(dataset, home)
    labels = dict(zip(data.item_ids.tolist(), (data.genres if data.genres is not None else []), strict=True))
    return lambda ids: np.array([[genre in labels[item].split("|") for genre in GENRES] for item in ids.tolist()])


def of_cap(cap: float, split: Split, genres: NDArray[np.bool_]) -> dict[str, Any]:
    """Both terms over training; rate, distortion, accuracy and active units on validation users; samples; the walk."""
    train, rows = training_rows(split), whole_rows(split.valid, split.train.values)
    model = MultVAE(kl_cap=cap, **OPTIONS).fit(train, show_progress=False)
    batch = batch_of(rows)
    with torch.no_grad():
        terms = model.network_(batch, CounterRNG.for_batch(0, batch))
    found: dict[str, Any] = {
        "training": {name: [getattr(e, name) for e in model.history_] for name in ("nll", "kl", "beta")},
        "distortion": float(terms.nll.mean()),
        "rate": float(terms.kl.mean()),
        METRIC: evaluate(model, split.valid, [METRIC])[METRIC].mean,
        "active units": int((model.encode(rows).mean.var(0) > ACTIVE).sum()),
        "sigma": float(np.exp(0.5 * model.encode(rows).logvar).mean()),
        "nearest": {kind: drawn_like(model, kind, train) for kind in LATENTS},
    }
    if cap == WALK_CAP:
        found["walk"] = walk(model, train, genres)
        found["noise"] = gradient_noise(model, rows[:NOISY_USERS])
    return found


def drawn_like(model: MultVAE, latent: Any, train: sparse.csr_matrix) -> float:
    """Mean Jaccard index of synthetic users with the nearest training user."""
    return float(nearest(model.sample_users(DRAWN, latent, random_state=0), train).mean())


def walk(model: MultVAE, train: sparse.csr_matrix, genres: NDArray[np.bool_], steps: int = 11) -> dict[str, Any]:
    """Interpolate between invented users with the ten most popular films of a genre: genre shares of the top 20."""
    popularity = np.bincount(train.indices, minlength=train.shape[1])
    best = [np.argsort(-popularity * genres[:, GENRES.index(genre)], kind="stable")[:10] for genre in ENDS]
    made_up = sparse.csr_matrix((np.ones(20, np.float32), np.concatenate(best), [0, 10, 20]), shape=(2, train.shape[1]))
    start, end = torch.from_numpy(model.encode(made_up).mean)
    share = torch.linspace(0, 1, steps)[:, None]
    with torch.no_grad():
        decoder = model.network_.decoder
        likeliest = decoder.logits(decoder((1 - share) * start + share * end)).topk(20).indices.numpy()  # (steps, 20)
    return {genre: genres[likeliest, place].mean(1).tolist() for place, genre in enumerate(GENRES)}


def gradient_noise(model: MultVAE, rows: sparse.csr_matrix) -> dict[str, float]:
    """Standard deviation over draws of an entry of the gradient of E[-log p(x | z)] by mu, for two estimators.

    "reparameterised" : the gradient at z = mu + sigma eps; "score function" : (nll - its mean over draws) eps / sigma
    """
    batch, network = batch_of(rows), model.network_
    mean, logvar = (torch.from_numpy(part) for part in model.encode(rows))
    sigma, random = torch.exp(0.5 * logvar), torch.Generator().manual_seed(0)
    eps = torch.empty(NOISY_DRAWS, *mean.shape).normal_(generator=random)
    losses, reparameterised = [], []
    for noise in eps:
        z = (mean + sigma * noise).requires_grad_()
        nll = network.likelihood(network.decoder(z), *network.decoder.output, batch)
        losses.append(nll.detach())
        reparameterised.append(torch.autograd.grad(nll.mean(), z)[0] * len(rows.indptr[1:]))
    loss = torch.stack(losses)  # (D, B)
    score_function = (loss - loss.mean(0))[:, :, None] * eps / sigma  # (D, B, K)
    return {
        "reparameterised": float(torch.stack(reparameterised).var(0).mean().sqrt()),
        "score function": float(score_function.var(0).mean().sqrt()),
    }


def of_plane(cap: float, split: Split, genres: NDArray[np.bool_]) -> dict[str, Any]:
    """Posterior means of validation users in two dimensions, without ids and shuffled, and their favourite genres."""
    train, rows = training_rows(split), whole_rows(split.valid, split.train.values)
    model = MultVAE(kl_cap=cap, **OPTIONS | PLANE_OPTIONS).fit(train, show_progress=False)
    mean, logvar = model.encode(rows)
    favourite = favourites(rows, train, genres)
    order = np.random.default_rng(0).permutation(len(mean))
    return {
        METRIC: evaluate(model, split.valid, [METRIC])[METRIC].mean,
        "places": mean[order].round(3).astype(float).tolist(),
        "favourites": favourite[order].tolist(),
        "sigma": float(np.exp(0.5 * logvar).mean()),
        "neighbours of the same favourite": alike(mean, favourite),
        "by chance": float((np.bincount(favourite) / len(favourite)) @ (np.bincount(favourite) / len(favourite))),
    }


def favourites(rows: sparse.csr_matrix, train: sparse.csr_matrix, genres: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The genre whose share of a user's films is the most standard deviations above that of training users. -> (B,)"""
    shares, usual = shares_of(rows, genres), shares_of(train, genres)
    return np.asarray(((shares - usual.mean(0)) / usual.std(0)).argmax(1))


def shares_of(rows: sparse.csr_matrix, genres: NDArray[np.bool_]) -> Floats:
    """Share of each genre among the items of each row. -> (B, G)"""
    return np.asarray(rows @ genres.astype(float)) / np.maximum(1, np.diff(rows.indptr))[:, None]


def alike(places: NDArray[np.float32], kinds: NDArray[np.int64]) -> float:
    """Mean share of the ten nearest points that are of the same kind."""
    apart = np.square(places[:, None] - places[None]).sum(2)
    np.fill_diagonal(apart, np.inf)
    near = np.argsort(apart, axis=1)[:, :NEIGHBOURS]
    return float((kinds[near] == kinds[:, None]).mean())


def batch_of(rows: sparse.csr_matrix) -> Batch:
    """All rows as one batch, as networks take them."""
    return DeviceRows(rows, torch.device("cpu")).all()
