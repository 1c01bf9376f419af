"""Two checkouts: the same seed gives the same weights and lists bit for bit, and each reads the other's files.

For changes that must not change results, such as a refactoring. `paired` compares their speed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("same_fits.py")
RANKS = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def run_same(before: Path, after: Path, threads: int = 1) -> dict[str, Any]:
    """Fit every model in both checkouts, load each other's files, and compare digests. -> for JSON"""
    sides = {"before": before.resolve(), "after": after.resolve()}
    with tempfile.TemporaryDirectory() as name:
        folders = {side: Path(name, side) for side in sides}
        for folder in folders.values():
            folder.mkdir()
        fits = {side: _digests(sides[side], [str(SCRIPT), "fit", str(folders[side])], threads) for side in sides}
        read = {
            f"{reader} reads {writer}": _digests(sides[reader], [str(SCRIPT), "load", str(folders[writer])], threads)
            for reader, writer in (("before", "after"), ("after", "before"))
        }
        ranks = {side: _digests(sides[side], [*RANKS, str(SCRIPT), "ranks"], threads) for side in sides}
    rows = {what: fits["after"].get(what) == digest for what, digest in fits["before"].items()}
    rows |= {what: ranks["after"].get(what) == digest for what, digest in ranks["before"].items()}
    for direction, digests in read.items():
        rows |= {f"{direction}: {what}": fits["before"][what] == digest for what, digest in digests.items()}
    return {"threads": threads, "compared": len(rows), "different": [what for what, same in rows.items() if not same]}


def _digests(checkout: Path, arguments: list[str], threads: int) -> dict[str, str]:
    """Digests that the script prints in a process that imports recvae from a checkout."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, *arguments]
    done = subprocess.run(command, env=environment, cwd=checkout, stdout=subprocess.PIPE, text=True, check=True)
    printed: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if not Path(printed["from"]).is_relative_to(checkout):
        raise SystemExit(f"Expected recvae in the checkout {checkout}, and it was imported from elsewhere.")
    digests: dict[str, str] = printed["digests"]
    return digests
