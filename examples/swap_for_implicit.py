"""A pipeline that was written for implicit's ALS, with a VAE instead: one line changes.

python examples/swap_for_implicit.py [--dataset ml-1m --data-home DIR]     needs: pip install "recvae[benchmark]"
"""

import argparse

from implicit.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

import recvae


def pipeline(model, user_items, new_rows):
    """Calls as in implicit: fit on a CSR matrix, lists for users, similar items."""
    model.fit(user_items, show_progress=False)
    ids, _ = model.recommend(range(new_rows.shape[0]), new_rows, N=5, recalculate_user=True)
    alike, _ = model.similar_items(int(ids[0, 0]), N=4)
    return ids, alike


def main():
    """Run the pipeline with both models, and print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--data-home")
    arguments = parser.parse_args()

    split = recvae.strong_split(recvae.load_dataset(arguments.dataset, arguments.data_home), heldout_users=300)
    titles = split.train.item_ids if split.train.titles is None else split.train.titles
    with threadpool_limits(1, "blas"):  # as implicit requires
        models = [
            AlternatingLeastSquares(factors=64, regularization=30.0, alpha=3.0, random_state=0),
            recvae.MultVAE(epochs=10, random_state=0),  # the line that changes
        ]
        for model in models:
            ids, alike = pipeline(model, split.train.matrix, split.test.fold_in[:3])
            result = recvae.evaluate(model, split.test, ["ndcg@100"])
            name = type(model).__name__
            print(f"{name}: NDCG@100 {result['ndcg@100'].mean:.3f} on users who are not in the training data")
            for row in ids:
                print("   ", "; ".join(str(title) for title in titles[row][:3]))
            print(f"    like {titles[alike[0]]}: {'; '.join(str(title) for title in titles[alike[1:]])}")


if __name__ == "__main__":
    main()
