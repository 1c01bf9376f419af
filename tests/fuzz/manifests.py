"""Manifests of bulk recommendation, and of the cells that shards are made of."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

import recvae
from recvae.data.shards import Shards, write_shards
from recvae.serving.batch import recommend_to_parquet
from tests.fuzz.changes import change_bytes
from tests.fuzz.folders import MANIFEST, Files, Folders, read_files
from tests.fuzz.judging import Random, WrongError
from tests.fuzz.shards import events


class BulkManifests(Folders):
    """A folder of lists, half of it changed, and made whole again."""

    name = "manifests"

    def prepare(self, folder: Path) -> None:
        source = events(folder / "events.parquet", False)
        model = recvae.EASE(l2=1.0).fit(recvae.Interactions.read(source))
        model.save(folder / "model.recvae")
        recommend_to_parquet(model, source, folder / "bulk", N=3, users_per_part=10, show_progress=False)

    def open(self, folder: Path) -> None:
        super().open(folder)
        self.source = folder / "events.parquet"
        self.model = recvae.load(folder / "model.recvae")
        self.counts = (30, 90, 3)

    def judge_folder(self, original: str, here: Path) -> str:
        before = _parts(read_files(here))
        found = recommend_to_parquet(self.model, self.source, here, N=3, users_per_part=10, show_progress=False)
        counts = found.users, found.recommendations, found.parts
        parts = json.loads((here / MANIFEST).read_bytes())["parts"]
        said = sum(part["users"] for part in parts), sum(part["rows"] for part in parts), len(parts)
        if counts != said:
            raise WrongError(f"a resumed run counts otherwise; {counts} for {said}")
        if counts != self.counts:
            return "taken at its word"  # a manifest that says it is done, sealed by the writer of its own
        left, right = (_parts(files) for files in (read_files(here), self.originals[original]))
        if left != right:
            odd = sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
            if any(left.get(name) != before.get(name) for name in odd):  # what the manifest's digest fits is kept
                raise WrongError(f"a resumed run makes other files; {odd}")
            return "with parts of others"
        return "as in one go" if found.made else "as it was"


def _parts(files: Files) -> Files:
    """All but the manifest."""
    return {name: content for name, content in files.items() if name != MANIFEST}


class CellManifests(Folders):
    """The cells of a run of `write_shards` that was stopped, changed, and resumed."""

    name = "cells"
    within = ".recvae-cells/"

    def prepare(self, folder: Path) -> None:
        class StopError(Exception):
            pass

        def stop(piece: Any) -> None:
            raise StopError

        for name, values in (("plain", False), ("values", True)):
            source = events(folder / f"{name}.parquet", values)
            with contextlib.suppress(StopError):
                self._write(source, folder / name, values, on_part=stop)
            shutil.copytree(folder / name, folder / f"whole-{name}")
            self._write(source, folder / f"whole-{name}", values)

    def _write(self, source: Path, out: Path, values: bool, **options: Any) -> Shards:
        column = {"value": "value", "values": "raw"} if values else {}
        return write_shards(source, out, users_per_shard=10, show_progress=False, **column, **options)

    def open(self, folder: Path) -> None:
        super().open(folder)
        self.folder = folder
        self.whole = {
            name.removeprefix("whole-"): files for name, files in self.originals.items() if name[:6] == "whole-"
        }
        self.originals = {name: files for name, files in self.originals.items() if name[:6] != "whole-"}

    def change_content(self, random: Random, name: str, content: bytes, files: Files) -> tuple[bytes, str]:
        kinds = {"lengths": np.int64, "counts": np.int64, "items": np.int32, "values": np.float32}
        kind = kinds.get(name.rpartition("/")[2])
        if kind is None or random.random() < 0.2:
            return change_bytes(random, content)
        numbers = np.frombuffer(content, kind).copy()
        if random.random() < 0.2:
            numbers = numbers[: int(random.integers(len(numbers)))]
        if len(numbers):
            odd = [np.nan, -1.0, np.inf, 0.0, 2.0, 7.0] if kind is np.float32 else [-1, 0, 2**31 - 1, 100, 1, 12]
            numbers[int(random.integers(len(numbers)))] = odd[int(random.integers(len(odd)))]
        return numbers.tobytes(), "numbers"

    def judge_folder(self, original: str, here: Path) -> str:
        shards = self._write(self.folder / f"{original}.parquet", here, original == "values")
        shards.check(deep=True)
        for number in range(len(shards.shard_files)):
            piece = shards.shard(number)
            if not (np.isfinite(piece.data) & (piece.data > 0)).all():
                raise WrongError(f"values that are none are in shards; {piece.data}")
        left, right = read_files(here), self.whole[original]
        json.loads(left["_manifest.json"])
        return "as in one go" if left == right else "of other cells"
