"""Fits every model from one checkout and writes digests of weights and lists: run by `benchmarks.accuracy.same`.

It runs in a process whose PYTHONPATH is one of two checkouts, whose names may differ: it imports recvae alone, and
takes options by the names that model files keep.

    same_fits.py fit FOLDER     fit all cases, save them there, and leave a training stopped in its second epoch
    same_fits.py load FOLDER    load the files there, written by the other side, and resume that training
    same_fits.py ranks          the same fit by the processes of a torchrun launch
    same_fits.py seconds        time a task each time its name comes on standard input
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

import recvae
from recvae import Checkpoint

SMALL = {"epochs": 3, "random_state": 7}
NARROW = {"latent_dim": 16, "hidden_dims": (48,)}
MULTI = "MultVAE", SMALL | NARROW
# case -> class, options by the names of model files
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "MultVAE, dense": (MULTI[0], MULTI[1] | {"impl": "dense"}),
    "MultVAE, chunked": MULTI,
    "MultVAE, sampled": (MULTI[0], MULTI[1] | {"impl": "sampled", "candidates": 100}),
    "MultVAE, sampled uniformly": (MULTI[0], MULTI[1] | {"impl": "sampled", "candidates": 50, "sampler": "uniform"}),
    "MultVAE, tied": (MULTI[0], SMALL | {"latent_dim": 16, "hidden_dims": (16,), "tables": "tied"}),
    "MultVAE, cosine": (MULTI[0], MULTI[1] | {"logits": "cosine", "temperature": 0.2}),
    "MultVAE, logistic": (MULTI[0], MULTI[1] | {"likelihood": "logistic"}),
    "MultVAE, Gaussian": (MULTI[0], MULTI[1] | {"likelihood": "gaussian", "unobserved": 0.2}),
    "MultVAE, clipped": (MULTI[0], MULTI[1] | {"max_grad_norm": 0.5, "weight_decay": 0.01}),
    "MultVAE, cyclical": (MULTI[0], MULTI[1] | {"kl_schedule": "cyclical", "item_biases": "popularity"}),
    "MultVAE, cap found": (MULTI[0], MULTI[1] | {"kl_cap": None}),
    "MultVAE, patience": (MULTI[0], MULTI[1] | {"epochs": 12, "patience": 2}),
    "MultDAE": ("MultDAE", SMALL | NARROW),
    "HVamp": ("HVamp", SMALL),
    "RecVAE": ("RecVAE", SMALL),
    "HybridVAE": ("HybridVAE", SMALL | {"hidden_dim": 24, "latent_dim": 16}),
    "EASE": ("EASE", {}),
    "EASE, sparse": ("EASE", {"form": "sparse"}),
    "EDLAE": ("EDLAE", {}),
    "EDLAE, sparse": ("EDLAE", {"form": "sparse"}),
    "Popularity": ("Popularity", {}),
    "ItemKNN": ("ItemKNN", {}),
    "ALS": ("ALS", {"random_state": 7}),
    "BPR": ("BPR", {"random_state": 7}),
    "LMF": ("LMF", {"random_state": 7}),
}
# name in files -> current name, and values that were renamed
RENAMED: dict[str, tuple[str, dict[Any, Any]]] = {
    "impl": ("training__impl", {"dense": "reference", "exact": "chunked"}),
    "candidates": ("training__num_negatives", {}),
    "sampler": ("training__sampler", {}),
    "max_grad_norm": ("training__max_grad_norm", {}),
    "weight_decay": ("training__weight_decay", {}),
    "ranks_share": ("training__parallel", {"users": "data", "items": "tensor"}),
    "tables": ("output__tied_embeddings", {"tied": True, "separate": False}),
    "logits": ("output__logits", {}),
    "temperature": ("output__temperature", {}),
    "unobserved": ("output__unobserved", {}),
    "item_biases": ("output__item_biases", {}),
}
CHOSEN_ON_VALIDATION = ("MultVAE, cap found", "MultVAE, patience", "HybridVAE")


def main() -> None:
    """Run what the arguments ask for, and print digests as JSON on the last line."""
    what, *folders = sys.argv[1:]
    if what == "seconds":
        answer_with_seconds()
        return
    digests = fit_on_ranks() if what == "ranks" else {"fit": fit, "load": load}[what](Path(folders[0]))
    if digests is not None:
        print(json.dumps({"from": recvae.__file__, "digests": digests}))


def answer_with_seconds() -> None:
    """Run the tasks that are asked for, line by line, and print their seconds; first their names."""
    tasks = timed_tasks()
    for task in tasks.values():
        task()  # fills the caches
    print(json.dumps(list(tasks)), flush=True)
    for line in sys.stdin:
        started = time.perf_counter()
        tasks[line.rstrip("\n")]()
        print(time.perf_counter() - started, flush=True)


def timed_tasks() -> dict[str, Callable[[], object]]:
    """Fits, lists and loading on the embedded sample."""
    data = recvae.load_dataset("sample")
    users = np.arange(data.n_users)
    rows = [data.matrix[[user]] for user in range(100)]
    options = {"MultVAE": {"epochs": 1, "random_state": 0}, "RecVAE": {"epochs": 1, "random_state": 0}, "EASE": {}}
    tasks: dict[str, Callable[[], object]] = {}
    for name, chosen in options.items():
        model = build(name, chosen).fit(data, show_progress=False)
        model.save(file := io.BytesIO())

        def load(content: bytes = file.getvalue()) -> object:
            return [recvae.load(io.BytesIO(content)) for _ in range(5)]

        def fit(name: str = name, chosen: dict[str, Any] = chosen) -> object:
            return build(name, chosen).fit(data, show_progress=False)

        def recommend(model: Any = model) -> object:
            return model.recommend(users, data.matrix, N=100)

        def recommend_one(model: Any = model) -> object:
            return [model.recommend(user, row) for user, row in enumerate(rows)]

        tasks |= {f"fit {name}": fit, f"recommend {name}": recommend}
        tasks |= {f"recommend {name}, one user": recommend_one, f"load {name}": load}
    return tasks


def fit(folder: Path) -> dict[str, str]:
    """Fit and save all cases, and stop a training in its second epoch. -> digests of weights and lists"""
    split = recvae.load_split("sample", heldout_users=60)
    digests: dict[str, str] = {}
    for number, (case, (name, options)) in enumerate(CASES.items()):
        valid = split.valid if case in CHOSEN_ON_VALIDATION else None
        model = build(name, options).fit(split.train, show_progress=False, valid=valid)
        model.save(folder / f"{number}.recvae")
        digests[f"weights of {case}"] = tensors_digest(folder / f"{number}.recvae")
        digests[f"lists of {case}"] = lists_digest(model, split)

    def stop(epoch: Any) -> None:
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        build(*MULTI).fit(
            split.train, show_progress=False, callbacks=[stop], checkpoint=Checkpoint(folder / "stopped", minutes=0)
        )
    return digests


def load(folder: Path) -> dict[str, str]:
    """Load all that the other side saved, and resume its training. -> digests of lists, and of the resumed weights"""
    split = recvae.load_split("sample", heldout_users=60)
    digests = {
        f"lists of {case}": lists_digest(recvae.load(folder / f"{number}.recvae"), split)
        for number, case in enumerate(CASES)
    }
    epochs: list[Any] = []
    model = build(*MULTI)
    model.fit(split.train, show_progress=False, callbacks=[epochs.append], checkpoint=folder / "stopped")
    if len(epochs) != SMALL["epochs"] - 1:
        raise SystemExit(f"Expected {SMALL['epochs'] - 1} epochs after the stop, got {len(epochs)}.")
    model.save(folder / "resumed.recvae")
    digests["weights of MultVAE, chunked"] = tensors_digest(folder / "resumed.recvae")
    return digests


def fit_on_ranks() -> dict[str, str] | None:
    """Fit by the processes of this launch. -> digests, in the first process, else None"""
    split = recvae.load_split("sample", heldout_users=60)
    found: dict[str, str] = {}
    with recvae.joined("cpu"):
        for share in ("users", "items"):
            for impl in ("exact", "sampled") if share == "users" else ("exact",):
                model = build(MULTI[0], MULTI[1] | {"ranks_share": share, "impl": impl, "candidates": 100})
                model.fit(split.train, show_progress=False)
                found[f"lists by two ranks, {share}, {impl}"] = lists_digest(model, split)
    return found if os.environ["RANK"] == "0" else None


def build(name: str, options: dict[str, Any]) -> Any:
    """A model by the options that files name, in either checkout."""
    cls = getattr(recvae, name, None) or getattr(recvae.baselines, name)
    if not hasattr(recvae, "TrainingOptions"):
        return cls(**options)
    model = cls(**{key: value for key, value in options.items() if key not in RENAMED})
    nested = {RENAMED[key][0]: RENAMED[key][1].get(value, value) for key, value in options.items() if key in RENAMED}
    return model.set_params(**nested)


def tensors_digest(path: Path) -> str:
    """SHA-256 of all tensors in a model file, with their names."""
    content = hashlib.sha256()
    with safe_open(path, "np") as file:
        for name in sorted(file.keys()):
            content.update(name.encode() + np.ascontiguousarray(file.get_tensor(name)).tobytes())
    return content.hexdigest()


def lists_digest(model: Any, split: Any) -> str:
    """SHA-256 of the lists for held-out users, or for training users if the model knows only these."""
    rows = split.test.fold_in
    try:
        ids, scores = model.recommend(np.arange(rows.shape[0]), rows, N=50)
    except recvae.errors.NotSupportedError:
        rows = split.train.matrix[:60]
        ids, scores = model.recommend(np.arange(60), rows, N=50)
    return hashlib.sha256(ids.tobytes() + scores.tobytes()).hexdigest()


if __name__ == "__main__":
    main()
