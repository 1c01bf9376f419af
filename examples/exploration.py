"""Exploration: lists ranked by a draw from the posterior instead of its mean.

python examples/exploration.py [--dataset ml-1m --data-home DIR]
"""

import argparse

import numpy as np

import recvae


def main():
    """Print the cost of exploring in hits, its gain in variety, and the uncertainty of some scores."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--data-home")
    arguments = parser.parse_args()

    data = recvae.load_dataset(arguments.dataset, arguments.data_home)
    split = recvae.strong_split(data, heldout_users=300)
    model = recvae.RecVAE(epochs=3, random_state=0).fit(split.train, valid=split.valid)
    rows, held_out = split.test.fold_in, split.test.held_out.toarray() > 0
    users = np.arange(rows.shape[0])

    plain, _ = model.recommend(users, rows, N=10)
    print("explore   hits in lists of 10   items that the plain list lacks")
    for strength in (0.0, 0.5, 1.0, 2.0, 4.0):
        ids, _, _ = model.recommend(users, rows, N=10, explore=strength, random_state=0)
        hits = held_out[users[:, None], ids].sum(axis=1).mean()
        lacking = (ids[:, :, None] != plain[:, None, :]).all(axis=2).sum(axis=1).mean()
        print(f"{strength:7.1f}   {hits:19.2f}   {lacking:31.2f}")

    names = split.train.item_ids if split.train.titles is None else split.train.titles
    ids, scores, spread = model.recommend(0, rows[0], N=5, explore=1.0, random_state=0)
    print("\na list drawn for one user, with the standard deviation of each score:")
    for item, score, deviation in zip(ids, scores, spread, strict=True):
        print(f"    {score:6.2f} ± {deviation:.2f}  {names[item]}")


if __name__ == "__main__":
    main()
