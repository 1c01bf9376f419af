"""Anomalous histories: bots among real users, found by how badly the model explains their histories.

python examples/anomaly.py [--dataset ml-1m --data-home DIR]
"""

import argparse

import numpy as np
from scipy import sparse

import recvae


def random_baskets(rows: sparse.csr_matrix, n: int, random: np.random.Generator) -> sparse.csr_matrix:
    """Bots: random items, as many as a random real user has."""
    sizes = random.choice(np.diff(rows.indptr), size=n)
    items = [random.choice(rows.shape[1], size=size, replace=False) for size in sizes]
    indptr = np.concatenate([[0], np.cumsum(sizes)])
    return sparse.csr_matrix((np.ones(indptr[-1], np.float32), np.concatenate(items), indptr), (n, rows.shape[1]))


def main():
    """Plant bots among users that the model was not trained on, and look for them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--data-home")
    arguments = parser.parse_args()

    data = recvae.load_dataset(arguments.dataset, arguments.data_home)
    random = np.random.default_rng(0)
    order = random.permutation(data.n_users)
    real, train = data.matrix[order[:300]], data.matrix[order[300:]]
    model = recvae.MultVAE(epochs=10, random_state=0).fit(train)

    n_bots = 15
    rows = sparse.vstack([real, random_baskets(train, n_bots, random)], format="csr")
    is_bot = np.arange(rows.shape[0]) >= real.shape[0]
    odd = model.anomaly_score(rows)  # 0 is usual for training users of similar activity; higher is more anomalous

    above = (odd[is_bot][:, None] > odd[~is_bot]).mean()
    print(
        f"{n_bots} bots among {real.shape[0]} real users; a bot scores higher than a user in {above:.0%} of all pairs"
    )
    print(f"of the {n_bots} highest scores, {is_bot[np.argsort(-odd)[:n_bots]].sum()} are bots\n")
    print("highest scores first:")
    for user in np.argsort(-odd)[:8]:
        kind = "bot" if is_bot[user] else "real user"
        print(f"    score {odd[user]:5.1f}   {np.diff(rows.indptr)[user]:4d} items   {kind}")


if __name__ == "__main__":
    main()
