"""Figures of the code's structure, each by one command: `python -m tests.structure [NAME ...]`."""

from __future__ import annotations

import ast
import functools
import inspect
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "recvae"
POOL = "utils/workers.py"


def top_level_entries() -> list[str]:
    """Modules and packages at the top of the package, `__init__.py` apart."""
    names = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    return sorted(names - {"__init__.py"})


@functools.cache
def modules_after_ease() -> list[str]:
    """Modules of ours that are loaded once `recvae.EASE` has been touched, in a fresh process."""
    code = "import recvae, sys; recvae.EASE(); print(*(name for name in sys.modules if name.split('.')[0] == 'recvae'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(done.stdout.split())


def own_bases(name: str) -> list[str]:
    """Classes of ours in the method resolution order of a public model."""
    import recvae

    return [cls.__name__ for cls in getattr(recvae, name).__mro__ if cls.__module__.split(".")[0] == "recvae"]


def parameters(name: str) -> list[str]:
    """What the constructor of a public model takes."""
    import recvae

    return list(inspect.signature(getattr(recvae, name)).parameters)


def card_reads(run: Callable[[], Any]) -> int:
    """How often a data set card is parsed while something runs."""
    from recvae.datasets import card

    with mock.patch.object(card, "read_card", wraps=card.read_card) as read:
        run()
    return read.call_count


def statements() -> dict[str, int]:
    """Statements by room, docstrings and comments apart."""
    counts: dict[str, int] = {}
    for path, tree in _trees(PACKAGE):
        room = path.relative_to(PACKAGE).parts[0]
        docstrings = sum(
            ast.get_docstring(node) is not None
            for node in ast.walk(tree)
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        )
        counts[room] = counts.get(room, 0) + sum(isinstance(node, ast.stmt) for node in ast.walk(tree)) - docstrings
    return counts


class Calls:
    """The functions of ours that are called within a `with` block: in which files, and on which way to a target.

    The pool of worker threads, which computes nothing itself, is left out.
    """

    def __init__(self, target: str = "") -> None:
        self.files: set[str] = set()
        self.way: list[str] = []
        self._target, self._stack = target, list[str]()

    def __enter__(self) -> Calls:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(str(PACKAGE)):
            return
        if code.co_filename == str(PACKAGE / POOL):
            return
        if event == "return":
            if self._stack:
                self._stack.pop()
            return
        path = str(Path(code.co_filename).relative_to(PACKAGE))
        self.files.add(path)
        self._stack.append(f"{path}: {code.co_qualname}")
        if code.co_name == self._target:
            self.way = self._stack[1:]


def step_calls() -> Calls:
    """One training step of MultVAE, after one that fills the caches."""
    import recvae
    from recvae.training.trainer import rows_on_device

    rows = recvae.load_dataset("sample").matrix[:300]
    trainer = recvae.MultVAE(random_state=0).trainer(rows)
    first, second = islice(rows_on_device(rows, trainer.state.device).batches_of(0, 100), 2)
    with trainer.in_pass():
        trainer.step(first, 0.2)
        with Calls() as calls:
            trainer.step(second, 0.2)
    return calls


def likelihood_calls() -> Calls:
    """The chunked likelihood of a batch with its gradients: the calls from `nll` to the multinomial's arithmetic."""
    import torch

    import recvae
    from recvae.data.batches import DeviceRows
    from recvae.nn.likelihood import nll

    rows = recvae.load_dataset("sample").matrix[:100]
    batch = DeviceRows(rows, torch.device("cpu")).all()
    hidden, weight = (torch.randn(n, 8, requires_grad=True) for n in rows.shape)
    bias = torch.zeros(rows.shape[1], requires_grad=True)
    with Calls("_multinomial") as calls:
        nll(hidden, weight, bias, batch)
    return calls


def steps_of_their_own() -> list[str]:
    """Modules outside recvae/training that make a training step out of its parts: peers and textbooks apart."""
    found = []
    for folder in (PACKAGE, ROOT / "benchmarks"):
        for path, tree in _trees(folder):
            name = str(path.relative_to(ROOT))
            calls = {
                node.func.attr
                for node in ast.walk(tree)
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            }
            private = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & _private_parts()
            if name.startswith(("recvae/training/", "recvae/models/autoencoder/base.py")) or "textbook" in name:
                continue
            if {"backward", "zero_grad"} <= calls or private:
                found.append(name)
    return found


@functools.cache
def _private_parts() -> set[str]:
    """Private methods of the trainer, and that of models which makes one."""
    tree = ast.parse((PACKAGE / "training" / "trainer.py").read_text(encoding="utf-8"))
    methods = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return {"_trainer"} | {name for name in methods if re.match(r"_[a-z]\w*(step|epoch|loss)", name)}


def _trees(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))


def figures() -> dict[str, tuple[Callable[[], Any], str]]:
    """Name -> what measures it, and what it is in words."""
    import recvae
    from recvae.benchmark.run import run_benchmark

    quick: dict[str, Any] = {"models": ["Popularity"], "examples": 0, "show_progress": False}
    return {
        "top": (top_level_entries, "modules and packages at the top of recvae/"),
        "step": (lambda: sorted(step_calls().files), "files that one training step of MultVAE runs through"),
        "hops": (lambda: likelihood_calls().way, "calls from the likelihood to its arithmetic"),
        "likelihood": (lambda: sorted(likelihood_calls().files - {"data/batches.py"}), "files of the likelihood"),
        "mult-vae": (lambda: own_bases("MultVAE"), "classes of ours in the MRO of MultVAE"),
        "ease": (lambda: own_bases("EASE"), "classes of ours in the MRO of EASE"),
        "loaded": (modules_after_ease, "modules of ours loaded once recvae.EASE has been touched"),
        "steps": (steps_of_their_own, "places that rebuild a training step out of private parts"),
        "parameters": (lambda: parameters("MultVAE"), "constructor parameters of MultVAE"),
        "load_split": (lambda: card_reads(lambda: recvae.load_split("sample")), "times load_split reads its card"),
        "run_benchmark": (lambda: card_reads(lambda: run_benchmark("sample", **quick)), "times run_benchmark reads it"),
        "statements": (lambda: sum(statements().values()), "statements of recvae/, docstrings and comments apart"),
    }


def main() -> None:
    """Print the figures that were asked for, all of them by default."""
    known = figures()
    for name in sys.argv[1:] or known:
        measure, words = known[name]
        value = measure()
        print(f"{name:14} {value if isinstance(value, int) else len(value):>6}  {words}")
        if len(sys.argv) > 1 and not isinstance(value, int):
            print(*(f"    {entry}" for entry in value), sep="\n")


if __name__ == "__main__":
    main()
