"""Measurements that are too long for the tests. Results are recorded in benchmarks/results/."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.accuracy.cold import run_cold
from benchmarks.accuracy.family import Family, models_of, run_family, seeds_of
from benchmarks.accuracy.growing import run_growing
from benchmarks.accuracy.joins import run_joins
from benchmarks.accuracy.reference import run_reference
from benchmarks.accuracy.reproduce import reproduce_table, run_reproduce
from benchmarks.accuracy.same import run_same
from benchmarks.accuracy.sampled import run_sampled
from benchmarks.accuracy.seconds import compare_seconds, compared, run_seconds
from benchmarks.latent.anomaly import run_anomaly
from benchmarks.latent.elbo import run_elbo
from benchmarks.latent.exploration import run_exploration
from benchmarks.latent.generation import run_generation
from benchmarks.pages.figures import draw_figures
from benchmarks.pages.fill import fill_pages
from benchmarks.pages.tables import RESULTS, family_table, results_page
from benchmarks.scale.bulk import run_bulk
from benchmarks.scale.fractal import fractal_table, run_fractal
from benchmarks.scale.large import run_large
from benchmarks.scale.ranks import run_ranks
from benchmarks.scale.ray import run_ray
from benchmarks.scale.resume import run_resume
from benchmarks.scale.rules import rules_table, run_rules
from benchmarks.scale.scaling import check_table, laws_table, run_scaling
from benchmarks.scale.service import run_service
from benchmarks.scale.shards import run_shards, shards_table
from benchmarks.scale.signals import COMMANDS as STOPPED
from benchmarks.scale.signals import SIGNALS, run_signals, signals_table
from benchmarks.speed import Save, run_epochs, run_rounds, run_speed
from benchmarks.speed.exports import exports_table, run_exports
from benchmarks.speed.gpu import run_gpu
from benchmarks.speed.growth import run_growth
from benchmarks.speed.ingest import run_ingest
from benchmarks.speed.paired import paired_table, run_paired
from benchmarks.speed.reading import run_reading
from benchmarks.speed.serving import run_serving
from benchmarks.speed.startup import run_startup, show
from benchmarks.speed.threads import run_threads, threads_table
from benchmarks.speed.vectors import run_vectors, sizes_of, vectors_table
from recvae.data.names import SPLIT_SEED
from recvae.errors import RecvaeError
from recvae.utils.files import check_writable

Given = argparse.Namespace
Option = tuple[str, dict[str, Any]]


class Command(NamedTuple):
    """A benchmark on the command line: its help, its function (-> exit status, None for 0), its options."""

    about: str
    run: Callable[[Given, Save], int | None]
    options: tuple[Option, ...] = ()


def option(name: str, default: Any = None, text: str = "", **more: Any) -> Option:
    """A flag with the type of its default, which the help text shows."""
    kind = {} if default is None or "action" in more else {"type": type(default)}
    shown = text if default is None or "action" in more else f"{text} (default: %(default)s)".strip()
    return name, {"default": default, "help": shown} | kind | more


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. -> exit status: 0; 1 if results are not as expected; 2 after an error message"""
    given = _parser().parse_args(argv)
    try:
        if given.out is not None:
            check_writable(given.out)  # before the measurement rather than after it
        return given.run(given, partial(_save, given.out)) or 0
    except RecvaeError as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, command in COMMANDS.items():
        subparser = commands.add_parser(name, help=command.about, description=command.about)
        subparser.set_defaults(run=command.run)
        for flag, options in (*command.options, OUT):
            subparser.add_argument(flag, **options)
    return parser


def _shown(run: Callable[[Given], dict[str, Any]]) -> Callable[[Given, Save], None]:
    """Wrap a benchmark that runs in one go: print its results as JSON, and save them."""

    def shown(given: Given, save: Save) -> None:
        results = run(given)
        print(json.dumps(results, indent=1))
        save(results)

    return shown


def _bulk(given: Given, save: Save) -> int:
    results = run_bulk(given.data_home, given.users, given.wide_users, given.users_per_part, given.work)
    print(json.dumps(results, indent=1))
    save(results)
    return 0 if all(case["equal"] for case in results["cases"]) else 1


def _ray(given: Given, save: Save) -> int:
    results = run_ray(given.data_home, given.users, given.users_per_part, given.work)
    print(json.dumps(results, indent=1))
    save(results)
    return 0 if results["killed_run_same_bytes"] else 1


def _family(given: Given, save: Save) -> None:
    split_seeds, models = seeds_of(given.split_seeds), models_of(given.models)
    work = given.work, given.users, given.peers, given.thin
    family = Family(given.dataset, given.data_home, split_seeds, models, *work)
    results = run_family(family, given.again)
    save(results)
    print(family_table(results))


def _reproduce(given: Given, save: Save) -> int:
    models = None if given.models is None else given.models.split(",")
    results = run_reproduce(given.dataset, given.data_home, models, given.seeds)
    save(results)
    print(reproduce_table(results))
    return 0 if results["reproduced"] else 1


def _seconds(given: Given, save: Save) -> None:
    if given.compare is not None:
        result = compare_seconds(*given.compare)
        save(result)
        print(compared(result))
        return
    run_seconds(given.dataset, given.data_home, given.model, given.seeds, given.tree, save, given.params)


def _exports(given: Given, save: Save) -> None:
    print(exports_table(run_exports(given.dataset, given.data_home, given.epochs, save)))


def _vectors(given: Given, save: Save) -> None:
    print(vectors_table(run_vectors(sizes_of(given.items), given.data_home, save)))


def _threads(given: Given, save: Save) -> None:
    print(threads_table(run_threads(given.data_home, given.rounds, given.only, save, given.quick)))


def _service(given: Given, save: Save) -> int:
    results = run_service(given.requests)
    print(json.dumps(results, indent=1))
    save(results)
    return 0 if results["constant"] and not results["failed"] and not results["other_lists"] else 1


def _signals(given: Given, save: Save) -> int:
    names, kinds = (text.split(";") for text in (given.commands, given.signals))
    results = run_signals(given.moments, given.out, save, names, kinds, given.each)
    print(signals_table(results))
    return 1 if results.get("wrong") else 0


def _paired(given: Given, save: Save) -> int:
    sizes = {"epochs": given.epochs, "repeats": given.repeats, "dataset": given.dataset, "home": given.data_home}
    results = run_paired(given.before, given.after, given.rounds, given.threads, save, **sizes)
    print(paired_table(results))
    return 1 if results["slower"] or (given.same and not all(results["same"].values())) else 0


def _same(given: Given, save: Save) -> int:
    results = run_same(given.before, given.after, given.threads, given.turns)
    print(json.dumps(results, indent=1))
    save(results)
    return 1 if results["different"] else 0


def _startup(given: Given, save: Save) -> None:
    print(show(run_startup(given.rounds, given.venv, save)))


def _rules(given: Given, save: Save) -> None:
    results = run_rules(given.users, given.items, given.rounds, given.listed_users)
    save(results)
    print(rules_table(results))


def _shards(given: Given, save: Save) -> None:
    print(shards_table(run_shards(given.rows, given.work, save)))


def _fractal(given: Given, save: Save) -> None:
    sizes = given.users, given.items, given.events
    results = run_fractal(given.dataset, given.data_home, sizes, given.seed, given.folder)
    save(results)
    print(fractal_table(results))


def _scaling(given: Given, save: Save) -> None:
    results = run_scaling(given.quick, save)
    print(laws_table(results), check_table(results), sep="\n\n")


def _table(given: Given, save: Save) -> None:
    (RESULTS / "README.md").write_text(results_page() + "\n", encoding="utf-8")
    fill_pages()
    for path in draw_figures(RESULTS):
        print(path)


def _save(out: Path | None, results: dict[str, Any]) -> None:
    if out is not None:
        out.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


DATASET = option("--dataset", "ml-1m")
HOME = option("--data-home", None, "folder of data sets (default: RECVAE_DATA, else the user's cache)", type=Path)
PEERS = option("--peers", None, "folder for environments of other packages; without it, none are run", type=Path)
SPLIT = option("--split-seed", SPLIT_SEED)
OUT = option("--out", None, "write the results to this JSON file", type=Path)

COMMANDS = {
    "reference": Command(
        "MultVAE against a dense textbook implementation of it, on the same users",
        _shown(lambda given: run_reference(given.dataset, given.data_home, given.seeds, given.textbook_epochs)),
        (DATASET, HOME, option("--seeds", 3), option("--textbook-epochs", 100, "its passes over the users")),
    ),
    "speed": Command(
        "training steps against a dense textbook implementation's, ranking against implicit's ALS, interleaved",
        lambda given, save: run_speed(given.rounds, save),
        (option("--rounds", 5),),
    ),
    "epochs": Command(
        "epochs on real data against RecBole's and Cornac's",
        lambda given, save: run_epochs(given.epochs, given.data_home, given.peers, save),
        (option("--epochs", 5), HOME, PEERS),
    ),
    "rounds": Command(
        "RecVAE's rounds of passes against those of dense code",
        lambda given, save: run_rounds(given.rounds, given.data_home, save),
        (option("--rounds", 5), HOME),
    ),
    "joins": Command(
        "ways to combine a VAE and a linear path, on validation users",
        lambda given, save: run_joins(given.dataset, given.data_home, seeds_of(given.split_seeds), save),
        (DATASET, HOME, option("--split-seeds", "1,2", "seeds of the splits, whose validation users are used")),
    ),
    "gpu": Command("training steps on a GPU, against a lower bound on their time", _shown(lambda given: run_gpu())),
    "growth": Command(
        "time and memory of training against the number of items and of users",
        lambda given, save: run_growth(given.repeats, save),
        (option("--repeats", 5),),
    ),
    "family": Command(
        "every model on several splits, differences pooled by user; resumes where it was stopped",
        _family,
        (
            DATASET,
            HOME,
            option("--peers", None, "folder for the environment of iALS; without it, iALS is not run", type=Path),
            option("--split-seeds", "101-105", "seeds of the splits, such as 101-105 or 1,2"),
            option("--models", "all", "comma-separated names, including iALS"),
            option("--users", "test", "valid is for development: test users are not used", choices=("test", "valid")),
            option("--work", None, "folder outside of the repository for values per user", type=Path, required=True),
            option("--thin", None, "share of each user's events to learn from, the others are the test", type=float),
            option("--again", False, "run finished models again", action="store_true"),
        ),
    ),
    "reproduce": Command(
        "our models by a card's protocol, against published figures",
        _reproduce,
        (
            option("--dataset", "ml-20m", "one whose card has published figures"),
            HOME,
            option("--models", None, "comma-separated names (default: all that the card has figures of)"),
            option("--seeds", 1),
        ),
    ),
    "seconds": Command(
        "seconds of a fit by the defaults and its accuracy on validation users, with this or another checkout's code",
        _seconds,
        (
            DATASET,
            HOME,
            option("--model", "HybridVAE", choices=("HybridVAE", "RecVAE", "MultVAE")),
            option("--seeds", 3),
            option("--tree", None, "folder of a checkout, whose code is used (default: this one)", type=Path),
            option("--params", {}, 'other hyper-parameters, such as {"epochs": 20}', type=json.loads),
            option("--compare", None, "instead, compare two results", nargs=2, metavar=("BEFORE", "AFTER"), type=Path),
        ),
    ),
    "exports": Command(
        "lists of exported models against torch's, on real data", _exports, (DATASET, HOME, option("--epochs", 2))
    ),
    "vectors": Command(
        "a vector index over the item vectors of large catalogues",
        _vectors,
        (option("--items", "100000,1000000", "numbers of items"), HOME),
    ),
    "threads": Command(
        "fits and ranking on one and all cores: alone, next to a busy process, two at a time, with a quota of a core",
        _threads,
        (
            HOME,
            option("--rounds", 5),
            option("--only", [], 'rows, such as "MultVAE, quiet", or how their names begin', nargs="+", type=str),
            option("--quick", False, "tiny data, as a smoke test", action="store_true"),
        ),
    ),
    "serving": Command(
        "latency of ten recommendations for one user, from raw ids to raw ids",
        _shown(lambda given: run_serving(given.calls)),
        (option("--calls", 500),),
    ),
    "rules": Command(
        "lists with a deny list of each user, and without, in turns; the memory of lists as JSON lines",
        _rules,
        (
            option("--users", 100_000),
            option("--items", 3_000),
            option("--rounds", 5),
            option("--listed-users", 300_000, "users of the JSON lines, ten each"),
        ),
    ),
    "service": Command(
        "four forked workers of eight threads each: whether memory, log and warnings stay constant after warm-up",
        _service,
        (option("--requests", 10_000),),
    ),
    "signals": Command(
        "commands that are sent SIGKILL, SIGINT and SIGTERM at many moments; resumes from --out",
        _signals,
        (
            option("--moments", 40, "moments for each command; the signals alternate"),
            option("--each", False, "send each signal at each moment: three times as many runs", action="store_true"),
            option("--commands", ";".join(STOPPED), "separated by semicolons"),
            option("--signals", ";".join(SIGNALS), "separated by semicolons"),
        ),
    ),
    "paired": Command(
        "two checkouts, interleaved: seconds of fits, lists and loading, and whether all results are bit-identical",
        _paired,
        (
            DATASET,
            HOME,
            option("--before", None, "folder of a checkout", type=Path, required=True),
            option("--after", None, "folder of the other", type=Path, required=True),
            option("--rounds", 5),
            option("--threads", 2),
            option("--epochs", 2, "of MultVAE"),
            option("--repeats", 3, "in a process, of which the shortest counts"),
            option("--same", False, "fail if any result is not bit-identical", action="store_true"),
        ),
    ),
    "same": Command(
        "two checkouts: whether weights, lists and files of every model are bit-identical",
        _same,
        (
            option("--before", None, "folder of a checkout", type=Path, required=True),
            option("--after", None, "folder of the other", type=Path, required=True),
            option("--threads", 1),
            option("--turns", 25, "in which tasks on the sample are timed by both; 0 for none"),
        ),
    ),
    "bulk": Command(
        "lists for a million users, from Parquet to Parquet; a run that is killed and resumed",
        _bulk,
        (
            HOME,
            option("--users", 1_000_000, "drawn from those of ml-1m"),
            option("--wide-users", 100_000, "random users with 20,000 items"),
            option("--users-per-part", None, "(default: 50,000, and eight parts at least)", type=int),
            option("--work", None, "folder with room for input and output (default: the system's)", type=Path),
        ),
    ),
    "ray": Command(
        "lists for a million users on Ray, against one process; and a run in which an actor is killed",
        _ray,
        (
            HOME,
            option("--users", 1_000_000, "drawn from those of ml-1m"),
            option("--users-per-part", None, "(default: 50,000, and eight parts at least)", type=int),
            option("--work", None, "folder with room for input and output (default: the system's)", type=Path),
        ),
    ),
    "anomaly": Command(
        "how well bots planted among real users are detected",
        lambda given, save: run_anomaly(given.dataset, given.data_home, save),
        (DATASET, HOME),
    ),
    "generation": Command(
        "a model trained on synthetic users only, tested on real ones",
        lambda given, save: run_generation(given.dataset, given.data_home, save),
        (DATASET, HOME),
    ),
    "exploration": Command(
        "accuracy of lists with exploration against their coverage of the catalogue",
        lambda given, save: run_exploration(given.dataset, given.data_home, save),
        (DATASET, HOME),
    ),
    "elbo": Command(
        "the ELBO's two terms over caps of beta, and the latent space; resumes from --out",
        lambda given, save: run_elbo(given.dataset, given.data_home, given.out, save),
        (DATASET, HOME),
    ),
    "cold": Command(
        "cold items, added by their features",
        lambda given, save: run_cold(given.dataset, given.data_home, given.split_seed, save),
        (DATASET, HOME, SPLIT),
    ),
    "growing": Command(
        "partial_fit on new rows next to a new fit on all rows",
        lambda given, save: run_growing(given.dataset, given.data_home, given.split_seed, save),
        (DATASET, HOME, SPLIT),
    ),
    "startup": Command(
        "seconds until commands answer, in turns with an empty Python; the size of an installation",
        _startup,
        (
            option("--rounds", 7),
            option("--venv", None, "environment whose largest distributions are listed, such as .venv", type=Path),
        ),
    ),
    "reading": Command(
        "seconds and memory of reading CSV and JSON lines, next to pyarrow and DuckDB",
        _shown(lambda given: run_reading(given.rows, given.repeats, given.kinds)),
        (
            option("--rows", 10_000_000),
            option("--repeats", 5),
            option("--kinds", "", "such as 'CSV, integers;JSON lines'; all if empty"),
        ),
    ),
    "ingest": Command(
        "time and memory of reading ten million events from a Parquet file into `Interactions`",
        _shown(lambda given: run_ingest(given.rows)),
        (option("--rows", 10_000_000),),
    ),
    "shards": Command(
        "raw events in Parquet files to shards on disk, and a shuffled pass over these: time and memory",
        _shards,
        (
            option("--rows", 100_000_000),
            option("--work", None, "folder that keeps the raw files, with room for output (default: none)", type=Path),
        ),
    ),
    "fractal": Command(
        "real data expanded fractally to a large size, as Parquet files",
        _fractal,
        (
            DATASET,
            HOME,
            option("--users", 500_000),
            option("--items", 1_000_000),
            option("--events", 50_000_000),
            option("--seed", 0),
            option("--folder", None, "empty folder for the files of events", type=Path, required=True),
        ),
    ),
    "ranks": Command(
        "one model trained by one, two and four processes, on ml-1m: how much the results differ",
        _shown(lambda given: run_ranks(given.data_home)),
        (HOME,),
    ),
    "resume": Command(
        "trainings on ml-1m that are killed at random moments and resumed, against uninterrupted runs",
        _shown(lambda given: run_resume(given.data_home, given.kills)),
        (HOME, option("--kills", 20)),
    ),
    "large": Command(
        "an epoch with a million items from shards on disk, steps with fewer items, and a dense step",
        _shown(lambda given: run_large([Path(folder) for folder in given.folders.split(",")])),
        (option("--folders", "", "folders of recvae shard, comma-separated, the one with most items first"),),
    ),
    "scaling": Command(
        "time and memory of a step against items, users, events, candidates and ranks, with a cost model",
        _scaling,
        (option("--quick", False, "tiny sizes, as a smoke test", action="store_true"),),
    ),
    "sampled": Command(
        "the sampled likelihood against the exact one: accuracy, and time to the accuracy of the exact one",
        _shown(
            lambda given: run_sampled(
                given.dataset, given.data_home, given.work, given.epochs, given.samplers.split(",")
            )
        ),
        (
            DATASET,
            HOME,
            option("--epochs", 50),
            option("--samplers", "popularity,uniform,in-batch"),
            option("--work", None, "folder that keeps what is finished (default: none)", type=Path),
        ),
    ),
    "table": Command(
        "write the tables of the README and the guide, the figures and the page of all tables from recorded results",
        _table,
    ),
}


if __name__ == "__main__":
    sys.exit(main())
