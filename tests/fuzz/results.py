"""Files of results, and the page that is made of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recvae.benchmark.report import page
from recvae.benchmark.results import json_bytes, read_results
from recvae.benchmark.run import run_benchmark
from tests.fuzz.changes import change_bytes, change_tree, json_text
from tests.fuzz.judging import Kind, Mutant, Random, WrongError

SCRIPT = "<script>alert(1)</script>"
PAGES = 40  # one page of so many files: charts are slow to make


class Results(Kind):
    """What `recvae benchmark --out` writes, changed."""

    name = "results"

    def prepare(self, folder: Path) -> None:
        small = {"epochs": "2", "latent_dim": "4", "hidden_dims": "8", "l2": "300"}
        found = run_benchmark(models=["MultVAE", "EASE"], params=small, show_progress=False, examples=2)
        (folder / "results.json").write_bytes(json_bytes(found | {"command": "recvae benchmark"}))

    def open(self, folder: Path) -> None:
        self.original = json.loads((folder / "results.json").read_bytes())
        page._bundle = lambda: ""  # a megabyte of JavaScript, always the same

    def directed(self) -> list[Any]:
        texts: dict[str, bytes] = {
            "deep brackets": b"[" * 100_000,
            "nothing": b"",
            "cut": json_text(self.original)[:-9].encode(),
            "a long number": b'{"format": ' + b"9" * 6000 + b"}",
            "bytes that are no text": b'"\xff"',
            "a list": b"[]",
            "a format that is true": b'{"format": true}',
            "format 1": b'{"format": 1}',
            "format 99": b'{"format": 99}',
            "no settings": b'{"format": 4}',
            "no metrics": b'{"format": 4, "settings": {"metrics": []}}',
            "metrics with control characters": b'{"format": 4, "settings": {"metrics": ["\\u001b[31m\\n"]}}',
            "no models": b'{"format": 4, "settings": {"metrics": ["ndcg@100"]}}',
            "models that are text": b'{"format": 4, "settings": {"metrics": ["ndcg@100"]}, "models": "x"}',
            "10^400": json_text(self.original).replace("0.", "1" + "0" * 400 + ".").encode(),
        }
        made = [self._text(name, text) for name, text in texts.items()]
        return [*made, self._text("a folder", None), self._text("as it was", json_text(self.original).encode())]

    def _text(self, name: str, text: bytes | None) -> Any:
        return lambda random: Mutant(name, (text, True), False)

    def mutant(self, random: Random) -> Mutant:
        with_page = random.random() < 1 / PAGES
        if random.random() < 0.15:
            raw, what = change_bytes(random, json_text(self.original).encode())
            return Mutant(what, (raw, with_page), False)
        tree, said = self.original, []
        for _ in range(int(random.integers(1, 4))):
            tree, what = change_tree(random, tree)
            said.append(what)
        return Mutant("; ".join(said), (json_text(tree).encode(), with_page))

    def judge(self, mutant: Mutant, folder: Path) -> str:
        raw, with_page = mutant.content
        if raw is None:
            Path("results.json").mkdir()
        else:
            Path("results.json").write_bytes(raw)
        results = read_results(Path("results.json"))
        if not with_page:
            return "read"
        page.write_page(results, folder / "page")
        if SCRIPT in (folder / "page" / "index.html").read_text(encoding="utf-8"):
            raise WrongError("a script of the file's is on the page; ")
        return "made a page"
