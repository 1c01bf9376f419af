"""Checkpoints: the manifest and the state of a tiny training that was stopped halfway."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from scipy import sparse

import recvae
from tests.fuzz.folders import Files, Folders, sealed
from tests.fuzz.judging import Mutant, Random, WrongError
from tests.fuzz.models import DTYPES, ODD, packed


class StopError(Exception):
    """Halfway."""


MAKES: dict[str, Any] = {
    "MultVAE": lambda: recvae.MultVAE(hidden_dims=(3,), latent_dim=2, epochs=3, random_state=0),
    "RecVAE": lambda: recvae.RecVAE(hidden_dim=3, depth=2, latent_dim=2, epochs=3, encoder_passes=1, random_state=0),
    "HVamp": lambda: recvae.HVamp(hidden_dims=(3,), latent_dim=2, n_components=2, epochs=3, random_state=0),
}


def rows() -> Any:
    """Few users of few items."""
    return sparse.csr_matrix((np.random.default_rng(0).random((20, 8)) < 0.4).astype(np.float32))


def stop(epoch: Any) -> None:
    """A callback that ends a fit after two epochs."""
    if epoch.epoch == 2:
        raise StopError


class Checkpoints(Folders):
    """What a fit keeps of itself, changed, and resumed."""

    name = "checkpoints"
    within = "network/"

    def prepare(self, folder: Path) -> None:
        for name, make in MAKES.items():
            for callbacks, end in (([stop], "half"), ([], "whole")):
                with contextlib.suppress(StopError):
                    make().fit(rows(), show_progress=False, checkpoint=folder / f"{name}-{end}", callbacks=callbacks)

    def open(self, folder: Path) -> None:
        super().open(folder)
        self.rows = rows()
        self.right = {name: make().fit(self.rows, show_progress=False).score(self.rows) for name, make in MAKES.items()}

    def directed(self) -> list[Any]:
        changes: dict[str, Any] = {
            "not a number in weights": lambda t: t["network.decoder.bias"].fill_(float("nan")),
            "a moment that is infinite": lambda t: t["optimizer.0.0.exp_avg"].fill_(float("inf")),
            "a moment that is negative": lambda t: t["optimizer.0.0.exp_avg_sq"].fill_(-1.0),
            "a step that is negative": lambda t: t["optimizer.0.0.step"].fill_(-5),
            "no steps": lambda t: t.pop("steps"),
            "steps that are not numbers": lambda t: t["steps"].fill_(float("nan")),
            "weights of another shape": lambda t: t.update({"network.decoder.bias": torch.zeros(3)}),
            "a tensor that is unknown": lambda t: t.update({"more.x": torch.zeros(3)}),
            "a tensor without a dot": lambda t: t.update({"more": torch.zeros(3)}),
            "an optimizer more": lambda t: t.update({"optimizer.9.0.step": torch.zeros(())}),
            "a moment of no parameter": lambda t: t.update({"optimizer.0.99.step": torch.zeros(())}),
            "an optimizer that is text": lambda t: t.update({"optimizer.x.y.step": torch.zeros(())}),
            "a moment of another shape": lambda t: t.update({"optimizer.0.0.exp_avg": torch.zeros(2)}),
            "weights that are missing": lambda t: t.pop("network.decoder.bias"),
        }
        facts: list[tuple[str, Any]] = [
            ("a history of nothing", lambda m: m["facts"].update(history=[])),
            ("an epoch whose part is a number", lambda m: m["facts"]["history"][0].update(part=3)),
        ]
        made = [self._manifest(name, change) for name, change in facts for _ in range(2)]
        return (
            super().directed()
            + made
            + [self._state(name, change) for name, change in changes.items() for _ in range(2)]
        )

    def _state(self, name: str, change: Any) -> Any:
        def make(random: Random) -> Mutant:
            original, files, manifest = self.choose(random)
            target = next(each for each in files if each.endswith(".safetensors"))
            tensors = {key: tensor.clone() for key, tensor in safetensors.torch.load(files[target]).items()}
            change(tensors)
            files[target] = safetensors.torch.save(tensors)
            return Mutant(f"{original}: {name}", sealed(files, manifest, self.within), True)

        return make

    def change_content(self, random: Random, name: str, content: bytes, files: Files) -> tuple[bytes, str]:
        if not name.endswith(".safetensors"):
            return super().change_content(random, name, content, files)
        tensors = dict(safetensors.torch.load(content))
        key = str(random.choice(sorted(tensors)))
        tensor = tensors[key].clone()
        how = str(random.choice(["value", "dtype", "shape", "delete", "rename", "add", "noise"]))
        if how == "value" and tensor.is_floating_point():
            flat = tensor.reshape(-1)
            flat[int(random.integers(len(flat))) if len(flat) else slice(0)] = float(
                ODD[int(random.integers(len(ODD)))]
            )
        elif how == "noise" and tensor.is_floating_point():
            tensor += torch.from_numpy(random.normal(size=tuple(tensor.shape))).to(tensor.dtype) * 0.1
        elif how == "dtype":
            tensor = tensor.to(list(DTYPES)[int(random.integers(len(DTYPES)))])
        elif how == "shape":
            tensor = [tensor.reshape(-1), tensor[None], tensor.reshape(-1)[:0], tensor.reshape(-1)[:1]][
                int(random.integers(4))
            ]
        tensors[key] = tensor
        if how == "delete":
            del tensors[key]
        elif how == "rename":
            names = [
                "x",
                "optimizer.0.0.y",
                "best.x",
                "prior.x",
                "network.x",
                "optimizer.7.0.step",
                "optimizer.0",
                "steps",
            ]
            tensors[str(random.choice(names))] = tensors.pop(key)
        elif how == "add":
            tensors[str(random.choice(["x.y", "best.decoder.bias", "prior.weight", "network.more"]))] = tensor
        return packed(tensors, {}), f"{key}: {how}"

    def judge_folder(self, original: str, here: Path) -> str:
        name = original.partition("-")[0]
        model = MAKES[name]().fit(self.rows, show_progress=False, checkpoint=here)
        found = model.score(self.rows)
        if not np.isfinite(found).all():
            raise WrongError(f"a resumed fit is not finite; {found}")
        if len(model.history_) != 3:
            raise WrongError(f"a fit of other epochs; {len(model.history_)}")
        return "as unbroken" if np.allclose(found, self.right[name], atol=1e-6) else "another state"
