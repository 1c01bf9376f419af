"""A fit by the defaults, timed, and its accuracy on validation users: run by `seconds` in a process of its own.

It uses only the public API, so that it also runs with the code of an older checkout on the path.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import recvae


def run(name: str, home: str | None, model_name: str, seed: int, params: dict[str, Any]) -> dict[str, Any]:
    """Fit a model of `recvae` with a seed on a data set's training part, which alone it is given. -> for JSON

    A published split has a test set but no validation users: a share of each user's training events is then held out
    by seed 0, as its card says. Test users are not used.
    """
    import torch

    protocol = recvae.load_card(name).protocol
    seed_of_split: dict[str, Any] = {"seed": 0} if protocol.split == "given" else {}
    split = recvae.load_split(name, home, show_progress=False, **seed_of_split)
    model = getattr(recvae, model_name)(random_state=seed)
    model.set_params(**params)
    wall, cpu = time.perf_counter(), time.process_time()
    model.fit(split.train, show_progress=False)
    seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
    metric = protocol.metrics[-1]
    measured = recvae.evaluate(model, split.valid, [metric])[metric]
    users = measured.users
    return {
        "from": recvae.__file__,
        "threads": torch.get_num_threads(),
        "metric": metric,
        "users": None if users is None else users.tolist(),
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,  # of all threads: what another process on the machine disturbs less
        "mean": measured.mean,
        "values": [round(float(value), 7) for value in measured.values],
    }


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(run(given["dataset"], given["home"], given["model"], given["seed"], given["params"])))
