"""Configurations of the command line: --config FILE."""

from __future__ import annotations

import contextlib
import io
import os
import unicodedata
from pathlib import Path
from typing import Any

import recvae
from recvae.cli import main as cli
from recvae.errors import RecvaeError
from tests.fuzz.cards import COLUMNS
from tests.fuzz.changes import change_bytes, change_tree, toml_text
from tests.fuzz.folders import OUTSIDE, read_files, write_files
from tests.fuzz.judging import Kind, Mutant, Random, WrongError, _place

BASE: dict[str, Any] = {"input": "events.csv", "min-user": 1, "param": ["l2=1"], "model": "EASE", "values": "binary"}
COMMANDS: dict[str, dict[str, Any]] = {
    "train": BASE | {"out": "made.recvae", "seed": 0, "value": "value", "min_value": 2.0, "json": True},
    "evaluate": BASE | {"model_file": "model.recvae", "heldout_users": 2, "metrics": ["ndcg@10"]},
    "recommend": {"model_file": "model.recvae", "input": "events.csv", "N": 3, "out": "made.csv", "min_value": 1.0},
    "plan": BASE | {"model": "MultVAE", "param": ["latent_dim=4"], "split": "strong", "heldout_users": 2},
    "datasets": {"json": True, "data_home": "home"},
}


class RefusedError(RecvaeError):
    """The command ended with a sentence."""


class Configurations(Kind):
    """TOML files of settings, given to a command."""

    name = "configurations"

    def prepare(self, folder: Path) -> None:
        (folder / "events.csv").write_text(COLUMNS)
        recvae.EASE(l2=1.0).fit(recvae.Interactions.read(folder / "events.csv")).save(folder / "model.recvae")

    def open(self, folder: Path) -> None:
        self.files = read_files(folder)

    def directed(self) -> list[Any]:
        texts = {
            "deep brackets": b"a = " + b"[" * 50_000,
            "deep tables": b"[" + b"a." * 10_000 + b"b]",
            "no TOML": b"model = ",
            "bytes that are no text": b'model = "\xff"',
            "a long number": b"seed = " + b"9" * 6000,
            "nothing": b"",
            "an unknown setting": b'"odd\\n\\u001b[31m" = 3',
            "a table": b"[model]\na = 1",
            "true for a number": b"seed = true",
            "input as output": b'out = "events.csv"',
        }
        return [
            lambda random, n=name, t=text: Mutant(f"train: {n}", ("train", t), False) for name, text in texts.items()
        ]

    def mutant(self, random: Random) -> Mutant:
        command = str(random.choice(list(COMMANDS)))
        if random.random() < 0.2:
            raw, what = change_bytes(random, toml_text(COMMANDS[command]).encode())
            return Mutant(f"{command}: {what}", (command, raw), False)
        tree, said = COMMANDS[command], []
        for _ in range(int(random.integers(1, 4))):
            tree, what = change_tree(random, tree)
            said.append(what)
        return Mutant(f"{command}: {'; '.join(said)}", (command, toml_text(tree).encode()))

    def judge(self, mutant: Mutant, folder: Path) -> str:
        command, raw = mutant.content
        write_files(folder.parent, OUTSIDE)
        write_files(folder, self.files | {"settings.toml": raw})
        os.environ["HOME"] = str(folder)
        said, answered = io.StringIO(), io.StringIO()
        gates: list[RecvaeError] = []
        parse, run = cli._parse, cli.main

        def watched(argv: Any) -> Any:
            """The command, whose errors are kept for the record of gates."""
            arguments = parse(argv)
            inner = arguments.run

            def kept(given: Any) -> Any:
                try:
                    return inner(given)
                except RecvaeError as error:
                    gates.append(error)
                    raise

            arguments.run = kept
            return arguments

        cli._parse = watched
        try:
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(answered):
                try:
                    status = run([command, "--config", "settings.toml"])
                except SystemExit as stop:  # argparse, which says how the command is used and then why
                    status = stop.code
        finally:
            cli._parse = parse
            left = {name: content for name, content in read_files(folder.parent).items() if name in OUTSIDE}
            kept_files = {name: content for name, content in read_files(folder).items() if name in self.files}
            if left != OUTSIDE or kept_files != self.files:
                raise WrongError(f"a file that is read, or one outside, was changed; {sorted(kept_files)}")
        lines = said.getvalue().splitlines()
        if status == 0:
            return "ran"
        if status != 2 or not lines:
            raise WrongError(f"exit status {status}; {said.getvalue()[-500:]}")
        text = said.getvalue().rstrip("\n")
        if text.startswith("recvae: ") or "\nrecvae: " in text:
            text = (
                text[text.rfind("recvae: ") :] if text.startswith("recvae: ") else text[text.index("\nrecvae: ") + 1 :]
            )
        else:
            text = lines[-1]
        odd = [c for c in text if unicodedata.category(c) in ("Cc", "Cs")]
        if odd or len(text) > 2000:
            where = _place(gates[0]) if gates else "the arguments"
            raise WrongError(
                f"the sentence has several lines, control characters or is long, from {where}; {text[:300]!r}"
            )
        if gates:
            raise gates[0]
        raise RefusedError(" ".join(text.split()[:12]))
