"""The embedded data set: film histories drawn from a known model, so that a first run needs no network.

The model, drawn from one seed:

    film i      one of 12 genres (and for half of them a second), a year, and 4 latent traits without a label;
                v_i concatenates them; its popularity is exp(-1.3 log(rank + 10)), ranks at random
    person u    tastes t_u over the same dimensions, strong in few genres; a number of films n_u ~ 5 + log-normal
    weight      w_ui = fame_i * exp(t_u . v_i): the true preference
    history     n_u different films, drawn one after the other with probability proportional to w_u

Ranking films by w_u is optimal in expectation: it is the oracle of the benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from recvae.data.interactions import Interactions

# genre -> nouns of its titles
NOUNS = {
    "Action": "Strike Pursuit Ambush Vanguard Detonator Bounty Convoy Gauntlet",
    "Adventure": "Voyage Expedition Compass Caravan Summit Island Treasure Frontier",
    "Animation": "Teapot Dragonfly Snowman Balloon Penguin Robot Lantern Acorn",
    "Comedy": "Wedding Roommate Mix-Up Holiday Landlord Reunion Goldfish Casserole",
    "Crime": "Heist Alibi Informant Verdict Ledger Getaway Syndicate Fence",
    "Documentary": "Archive Harvest Glacier Workshop Migration Orchestra Border Reef",
    "Drama": "Inheritance Farewell Harbor Letter Confession Orchard Silence Winter",
    "Fantasy": "Enchanter Amulet Kingdom Oracle Griffin Labyrinth Prophecy Crown",
    "Horror": "Cellar Visitor Scarecrow Asylum Whisper Mirror Séance Graveyard",
    "Romance": "Promise Waltz Serenade Encounter Balcony Summer Valentine Kiss",
    "Sci-Fi": "Orbit Signal Colony Paradox Android Starship Quarantine Singularity",
    "Western": "Saloon Marshal Stampede Canyon Showdown Homestead Outlaw Prairie",
}
ADJECTIVES = (
    "Crimson Silent Last Golden Broken Hidden Distant Midnight Forgotten Electric Burning Paper Hollow Secret Second "
    "Iron Wandering Frozen Lonely Velvet Lucky Borrowed Endless Quiet Savage Invisible Blue Final Wicked Northern"
)
GENRES = tuple(NOUNS)
N_TRAITS = 4


@dataclass(frozen=True)
class Sample:
    """The drawn interactions and the true preferences log w (users, items), aligned with them."""

    interactions: Interactions
    log_weights: NDArray[np.float32]


def make_sample(n_users: int = 3000, n_items: int = 600, seed: int = 0) -> Sample:
    """Draw the data set; the same arguments give the same data on any machine."""
    random = np.random.default_rng(seed)
    genres = _genres(n_items, random)  # (I, 12), 0/1
    years = 2024 - np.minimum(random.exponential(18, n_items), 90).astype(int)
    traits = random.normal(size=(n_items, N_TRAITS))
    features = np.hstack([genres, ((years - 2000) / 20)[:, None], 0.5 * traits])  # (I, 17)
    tastes = random.normal(size=(n_users, features.shape[1]))
    tastes[:, : len(GENRES)] = 1.6 * random.gumbel(size=(n_users, len(GENRES))) - 1  # few favourite genres
    log_fame = -1.3 * np.log(random.permutation(n_items) + 10)
    log_weights = (log_fame + tastes @ features.T).astype(np.float32)  # (U, I)
    activity = np.minimum(5 + random.lognormal(3.1, 0.9, n_users), n_items // 3).astype(int)
    # the n_u largest of log w + Gumbel noise are a draw without replacement (Yellott 1977)
    noisy = log_weights + random.gumbel(size=log_weights.shape)
    rank = np.argsort(np.argsort(-noisy, axis=1), axis=1)
    matrix = sparse.csr_matrix((rank < activity[:, None]).astype(np.float32))
    titles = _titles(genres, years, random)
    labels = ["|".join(GENRES[g] for g in np.flatnonzero(row)) for row in genres]
    item_ids = np.arange(1, n_items + 1)
    interactions = Interactions.from_matrix(
        matrix,
        user_ids=np.arange(1, n_users + 1),
        item_ids=item_ids,
        titles=dict(zip(item_ids.tolist(), titles, strict=True)),
        genres=dict(zip(item_ids.tolist(), labels, strict=True)),
    )
    return Sample(interactions, log_weights)


def _genres(n_items: int, random: np.random.Generator) -> NDArray[np.int64]:
    """Draw one or two genres for each film, with unequal frequencies. -> (I, 12)"""
    share = random.dirichlet(np.full(len(GENRES), 4.0))
    first, second = random.choice(len(GENRES), size=(2, n_items), p=share)
    genres = np.zeros((n_items, len(GENRES)), dtype=np.int64)
    genres[np.arange(n_items), first] = 1
    twofold = np.flatnonzero(random.random(n_items) < 0.5)
    genres[twofold, second[twofold]] = 1
    return genres


def _titles(genres: NDArray[np.int64], years: NDArray[np.int64], random: np.random.Generator) -> list[str]:
    """Draw a distinct title for each film, such as "The Crimson Heist (1987)"."""
    adjectives, taken, titles = ADJECTIVES.split(), set(), []
    for row, year in zip(genres, years, strict=True):
        nouns = [noun for genre in np.flatnonzero(row) for noun in NOUNS[GENRES[genre]].split()]
        free = [f"The {a} {n}" for a in adjectives for n in nouns if f"The {a} {n}" not in taken]
        title = free[random.integers(len(free))]
        taken.add(title)
        titles.append(f"{title} ({year})")
    return titles
