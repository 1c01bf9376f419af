"""A search for hyper-parameters on validation users; the test users are used once, at the end.

python examples/tuning.py [--trials 30 --epochs 50 --dataset ml-1m --data-home DIR]    needs: pip install "recvae[tune]"
"""

import argparse

import recvae


def main():
    """Search, print the trials, and compare the best settings with the defaults."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", default="sample")
    parser.add_argument("--data-home")
    parser.add_argument("--trials", type=int, default=4)
    parser.add_argument("--epochs", type=int, default=5)
    arguments = parser.parse_args()

    split = recvae.strong_split(recvae.load_dataset(arguments.dataset, arguments.data_home), heldout_users=300)
    tuned = recvae.tune(
        recvae.MultVAE,
        split,
        trials=arguments.trials,
        fixed={"epochs": arguments.epochs, "hidden_dims": (200,)},
        show_progress=False,
        log=print,
    )
    print(f"\nbest of {len(tuned.trials)} trials, {tuned.metric} on validation users: {tuned.value:.4f}")

    default = recvae.MultVAE(epochs=arguments.epochs, random_state=0)
    for name, model in (("tuned", tuned.model), ("defaults", default)):
        fitted = recvae.fit_split(model, split, show_progress=False)
        print(f"{name:>9} on test users: {recvae.evaluate(fitted, split.test, ['ndcg@100'])['ndcg@100']}")


if __name__ == "__main__":
    main()
