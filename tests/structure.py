"""Figures of the code's structure, each by one command: `python -m tests.structure [NAME ...]`."""

from __future__ import annotations

import ast
import inspect
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "recvae"


def top_level_entries() -> list[str]:
    """Modules and packages at the top of the package, `__init__.py` apart."""
    names = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    return sorted(names - {"__init__.py"})


def modules_after_ease() -> list[str]:
    """Modules of ours that are loaded once `recvae.EASE` has been touched, in a fresh process."""
    code = "import recvae, sys, json; recvae.EASE; print(json.dumps([m for m in sys.modules if m.split('.')[0] == 'recvae']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return sorted(json.loads(done.stdout))


def own_bases(name: str) -> list[str]:
    """Classes of ours in the method resolution order of a public model."""
    import recvae

    return [cls.__name__ for cls in getattr(recvae, name).__mro__ if cls.__module__.split(".")[0] == "recvae"]


def parameters(name: str) -> list[str]:
    """What the constructor of a public model takes."""
    import recvae

    return [parameter for parameter in inspect.signature(getattr(recvae, name)).parameters]


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
    """The functions of ours that are called within a `with` block: in which files, and how deep."""

    def __init__(self) -> None:
        self.files: set[str] = set()
        self.deepest: list[str] = []
        self._stack: list[str] = []

    def __enter__(self) -> Calls:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *error: object) -> None:
        sys.setprofile(None)

    def _note(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event not in ("call", "return") or not code.co_filename.startswith(str(PACKAGE)):
            return
        if event == "return":
            if self._stack:
                self._stack.pop()
            return
        path = str(Path(code.co_filename).relative_to(PACKAGE))
        self.files.add(path)
        self._stack.append(f"{path}: {code.co_qualname}")
        if len(self._stack) > len(self.deepest):
            self.deepest = list(self._stack)


def _trees(folder: Path) -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(folder.rglob("*.py")):
        yield path, ast.parse(path.read_text(encoding="utf-8"))
