"""The long run: every kind, so many mutants of each; exit status 1 where there is a failure."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tests.fuzz.kinds import COUNTS, KINDS
from tests.fuzz.refusals import refusals, unreached
from tests.fuzz.running import debug, run_kind, summary


def main() -> int:
    """Run, and write what came of it after each kind."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    add = parser.add_argument
    add("--kinds", default=",".join(KINDS), help="comma-separated (default: %(default)s)")
    add("--count", type=int, help=f"mutants of each kind (default: {COUNTS})")
    add("--share", type=float, default=1.0, help="of these counts, such as .1 for a shorter run")
    add("--seed", type=int, default=0)
    add("--workers", type=int, default=2, help="children at a time (default: 2)")
    add("--out", type=Path, help="JSON file of results, in which other kinds stay")
    add("--only", type=int, metavar="NUMBER", help="judge this mutant of one kind in this process, and say all of it")
    given = parser.parse_args()
    torch.set_num_threads(1)
    names = given.kinds.split(",")
    if given.only is not None:
        mutant, verdict = debug(KINDS[names[0]](), given.seed, given.only)
        print(mutant.what, verdict.outcome, verdict.gate, verdict.failure, verdict.detail, sep="\n")
        return int(bool(verdict.failure))
    results: dict[str, Any] = {"kinds": {}, "reached": []}
    if given.out is not None and given.out.exists():
        results = json.loads(given.out.read_text(encoding="utf-8"))
    for name in names:
        kind, started = KINDS[name](), time.perf_counter()
        count = given.count or max(1, int(COUNTS[name] * given.share))
        verdicts = list(run_kind(kind, given.seed, count, workers=given.workers))
        found = summary(kind, given.seed, verdicts, time.perf_counter() - started)
        results["kinds"][name] = found
        places = {place for verdict in verdicts for place in map(tuple, verdict.reached)}
        results["reached"] = sorted(set(results["reached"]) | {each.key for each in refusals() if each.covers(places)})
        results["refusals"] = len(refusals())
        results["unreached"] = unreached(set(results["reached"]))
        print(f"{name}: {found['mutants']:,} mutants in {found['seconds']:,} s, {found['outcomes']}", flush=True)
        for failure, first in found["failures"].items():
            print(f"  {first['count']} x {failure}; {first['number']}: {first['what']}\n      {first['detail'][-400:]}")
        if given.out is not None:
            given.out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    print(f"{len(results['reached'])} of {results['refusals']} refusals reached; not: {results['unreached']}")
    return int(any(found["failures"] for found in results["kinds"].values()) or bool(results["unreached"]))


if __name__ == "__main__":
    sys.exit(main())
