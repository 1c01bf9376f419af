"""New users: their history is all that is needed, and nothing is trained again.

python examples/new_users.py [--dataset ml-1m --data-home DIR]
"""

import argparse
import tempfile
from pathlib import Path

import recvae


def main():
    """Train on some users and save; load the model and recommend to another user as the history grows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--data-home")
    arguments = parser.parse_args()

    data = recvae.load_dataset(arguments.dataset, arguments.data_home)
    split = recvae.strong_split(data, heldout_users=300)
    trained = recvae.MultVAE(epochs=10, random_state=0).fit(split.train, valid=split.valid)
    with tempfile.TemporaryDirectory() as folder:
        trained.save(Path(folder) / "films.recvae")
        model = recvae.load(Path(folder) / "films.recvae")  # contains no users

    result = recvae.evaluate(model, split.test, ["recall@20"])
    print(f"trained on {split.train.n_users:,} users; on {len(result['recall@20'].values)} other users:")
    print(f"    recall@20 {result['recall@20']}\n")

    # a new user watches, one after the other, the films that a held-out user liked
    liked = model.item_ids_[split.test.fold_in[0].indices].tolist()
    titles = dict(zip(model.item_ids_.tolist(), data.item_ids if model.titles_ is None else model.titles_, strict=True))
    for length in (0, 1, 3, 5):
        history = liked[:length]
        lists = model.recommend_for({"ann": history}, N=3).to_pylist()
        seen = "; ".join(str(titles[item]) for item in history[-2:]) or "nothing"
        print(f"after {length} films ({seen}{' last' if history else ''}):")
        for row in lists:
            print(f"    {row['rank']}. {titles[row['item']]}")


if __name__ == "__main__":
    main()
