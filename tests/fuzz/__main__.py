"""The long run: every kind, so many mutants of each; exit status 1 where there is a failure.

python -m tests.fuzz --out benchmarks/results/fuzz.json                  all that is recorded
python -m tests.fuzz --kinds models=500,shards --seed 1                  some kinds, with a count or without
python -m tests.fuzz --kinds models --only 1234                          one mutant, and all that is known of it
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from recvae.version import __version__
from tests.fuzz.kinds import COUNTS, KINDS
from tests.fuzz.planted import PLANTS, find
from tests.fuzz.refusals import EXCEPTED, NOT_BY_FILES, refusals, unreached
from tests.fuzz.running import debug, run_kind, summary


def main() -> int:
    """Run, and write what came of it after each kind."""
    given = _parser().parse_args()
    torch.set_num_threads(1)
    if given.planted:
        found = {name: find(plant, given.seed) for name, plant in PLANTS.items()}
        print(json.dumps(found, indent=1))
        return int(None in found.values())
    counts = {}
    for each in given.kinds.split(","):
        name, _, count = each.partition("=")
        counts[name] = int(count) if count else max(1, int(COUNTS[name] * given.share))
    if given.only is not None:
        mutant, verdict = debug(KINDS[next(iter(counts))](), given.seed, given.only)
        print(mutant.what, verdict.outcome, verdict.gate, verdict.failure, verdict.detail, sep="\n")
        return int(bool(verdict.failure))
    results: dict[str, Any] = {"kinds": {}, "reached": []}
    if given.out is not None and given.out.exists():
        results = json.loads(given.out.read_text(encoding="utf-8"))
    results |= {"recvae": __version__, "not_by_files": NOT_BY_FILES | EXCEPTED}
    for name, count in counts.items():
        _run(name, count, given.seed, given.workers, results)
        if given.out is not None:
            given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"{results['mutants']:,} mutants in all, {results['sealed_share']:.0%} of them sealed")
    print(f"{len(results['reached'])} of {results['refusals']} refusals of the loaders were reached")
    for key in results["unreached"]:
        print(f"  not reached: {key}")
    whole = set(results["kinds"]) == set(KINDS) and bool(results["unreached"])
    return int(whole or any(found["failures"] for found in results["kinds"].values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--kinds", default=",".join(KINDS), help="comma-separated, each with =COUNT or without (default: all)")
    add("--share", type=float, default=1.0, help=f"of the counts that a long run has: {COUNTS}")
    add("--seed", type=int, default=0)
    add("--workers", type=int, default=2, help="children at a time (default: 2)")
    add("--out", type=Path, help="JSON file of results, in which what it has of other kinds stays")
    add("--only", type=int, metavar="NUMBER", help="judge one mutant in this process, and say all of it")
    add("--planted", action="store_true", help="see that faults which are planted are found")
    return parser


def _run(name: str, count: int, seed: int, workers: int, results: dict[str, Any]) -> None:
    """Run a kind into the results."""
    kind, started = KINDS[name](), time.perf_counter()
    verdicts = list(run_kind(kind, seed, count, workers=workers))
    found = summary(kind, seed, verdicts, time.perf_counter() - started)
    results["kinds"][name] = found
    places = {(file, line) for verdict in verdicts for file, line in verdict.reached}
    every = refusals()
    reached = set(results["reached"]) | {each.key for each in every if each.covers(places)}
    results["reached"] = sorted(reached & {each.key for each in every})
    results["refusals"], results["unreached"] = len(every), unreached(reached)
    kinds = results["kinds"].values()
    results["mutants"] = sum(each["mutants"] for each in kinds)
    results["sealed_share"] = round(
        sum(each["sealed_share"] * each["mutants"] for each in kinds) / results["mutants"], 3
    )
    print(
        f"{name}: {found['mutants']:,} mutants ({found['sealed_share']:.0%} sealed) in {found['seconds']:,} s, "
        f"{found['outcomes']}",
        flush=True,
    )
    for failure, first in found["failures"].items():
        print(f"  {first['count']} x {failure}; {first['number']}: {first['what']}\n      {first['detail'][-400:]}")


if __name__ == "__main__":
    sys.exit(main())
