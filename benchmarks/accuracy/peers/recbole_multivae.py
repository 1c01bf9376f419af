"""Seconds per epoch of RecBole's MultiVAE, 600-200-600. Runs in an environment with RecBole, not with recvae.

python recbole_multivae.py MATRIX.npz BATCH EPOCHS
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.general_recommender import MultiVAE
from recbole.trainer import Trainer
from scipy import sparse

SETTINGS = {
    "load_col": {"inter": ["user_id", "item_id"]},
    "mlp_hidden_size": [600],
    "latent_dimension": 400,  # mean and log-variance together
    "dropout_prob": 0.5,
    "train_neg_sample_args": None,
    "eval_args": {"split": {"RS": [1, 0, 0]}, "order": "RO", "group_by": "user", "mode": "full"},
    "show_progress": False,
    "state": "ERROR",
    "use_gpu": False,
    "seed": 0,
}


def main() -> None:
    """Write the file that RecBole reads, train, print the seconds of each epoch."""
    cells = sparse.load_npz(sys.argv[1]).tocoo()
    batch, epochs = int(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data"
        path.mkdir()
        with (path / "data.inter").open("w", encoding="ascii") as file:
            file.write("user_id:token\titem_id:token\n")
            file.writelines(f"{user}\t{item}\n" for user, item in zip(cells.row, cells.col, strict=True))
        places = {"data_path": folder, "checkpoint_dir": folder, "train_batch_size": batch, "epochs": epochs}
        config = Config(model="MultiVAE", dataset="data", config_dict=SETTINGS | places)
        train, _, _ = data_preparation(config, create_dataset(config))
        trainer = Trainer(config, MultiVAE(config, train.dataset))
        seconds = []
        for epoch in range(epochs):
            started = time.perf_counter()
            trainer._train_epoch(train, epoch)
            seconds.append(time.perf_counter() - started)
    print(json.dumps({"seconds": seconds}))


main()
