"""recvae tune: search for hyper-parameters, print a table, and write a configuration for training."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from recvae.cli.inputs import add_events, add_model, add_split, load_split_or_none, param_texts, path
from recvae.cli.output import check_outputs, say, say_account, say_dropped
from recvae.errors import InvalidParameterError
from recvae.utils.files import check_writable, write_whole
from recvae.utils.streams import printed, put
from recvae.version import __version__

if TYPE_CHECKING:
    from rich.table import Table

    from recvae.data.splits import Split
    from recvae.tuning.search import Tuned

BEST = 8  # number of trials in the table, the best ones


def tune_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of recvae tune."""
    add = parser.add_argument
    add_events(parser)
    add_model(add, "a hyper-parameter that is not searched for but fixed, such as epochs=20")
    add("--trials", type=int, default=30, help="fits in all, including those that the study has (default: 30)")
    add("--metric", default="ndcg@100", help="of validation users (default: ndcg@100)")
    add("--study", type=path, help="SQLite file that keeps the trials; the same command resumes a stopped search")
    add("--name", help="of the study in that file (default: the model)")
    add("--timeout", type=float, help="begin no trial after this many seconds")
    add("--seed", type=int, default=0, help="seed of the proposals and of the models (default: 0)")
    add_split(parser, "the data set's own", test_input=True)
    add(
        "--out",
        type=path,
        help="write the best settings to this TOML file, for --config of train and benchmark",
    )
    add("--json", action="store_true", help="print all trials as JSON instead of the table of the best")


def tune(arguments: argparse.Namespace) -> None:
    """Run recvae tune."""
    from recvae.benchmark.grids import first_model
    from recvae.benchmark.results import json_bytes
    from recvae.models.base.params import parse_param
    from recvae.tuning.search import tune as search
    from recvae.tuning.study import check_study

    check_outputs(arguments)
    if arguments.out is not None:
        check_writable(arguments.out)
    if arguments.study is not None:
        check_study(arguments.study)  # before the data are read
    model = first_model(arguments.model)
    fixed = {name: parse_param(model, name, text) for name, text in param_texts(arguments).items()}
    split = _split(arguments)
    say_dropped("validation", split.valid)
    tuned = search(
        type(model),
        split,
        arguments.trials,
        metric=arguments.metric,
        fixed=fixed,
        study=arguments.study,
        name=arguments.name,
        seed=arguments.seed,
        timeout=arguments.timeout,
        log=say,
    )
    if arguments.out is not None:
        write_whole(arguments.out, _config(tuned).encode())
        say(f"Settings written to {arguments.out}")
    if arguments.json:
        about = {"model": type(tuned.model).__name__, "parameters": tuned.params, "metric": tuned.metric}
        result = {"value": tuned.value, "importance": tuned.importance, "seconds": tuned.seconds}
        put(json_bytes(about | result | {"trials": [asdict(trial) for trial in tuned.trials]}).decode())
    else:
        with printed() as console:
            console.print(_table(tuned))


def _split(arguments: argparse.Namespace) -> Split:
    """The split of the flags, else that of the data set's card."""
    split = load_split_or_none(arguments)
    if split is not None:
        return split
    if arguments.dataset is None:
        raise InvalidParameterError("Expected --split or --heldout-users with --input, to have users to choose by.")
    from recvae.datasets.load import load_split

    split = load_split(
        arguments.dataset,
        arguments.data_home,
        seed=arguments.split_seed,
        min_value=arguments.min_value,
        min_user=arguments.min_user,
    )
    say_account(split.train, arguments.dataset)
    return split


def _config(tuned: Tuned) -> str:
    """The best settings, for `recvae train --config` and `recvae benchmark --config`."""
    from recvae.models.base.params import param_text

    params = "".join(f"    {json.dumps(f'{name}={param_text(value)}')},\n" for name, value in tuned.params.items())
    return (
        f"# the best of {len(tuned.trials)} trials: {tuned.metric} {tuned.value:.4f} on validation users "
        f"(recvae {__version__})\n"
        f"model = {json.dumps(type(tuned.model).__name__)}\nparam = [\n{params}]\n"
    )


def _table(tuned: Tuned) -> Table:
    """The best trials side by side, with the importance of each hyper-parameter if it was estimated."""
    from rich.table import Table

    from recvae.models.base.params import param_text

    complete = sorted((t for t in tuned.trials if t.value is not None), key=lambda t: -(t.value or 0.0))[:BEST]
    states = [trial.state for trial in tuned.trials]
    counts = ", ".join(
        f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed") if state in states
    )
    table = Table(
        title=f"{type(tuned.model).__name__}: the best of {len(states)} trials ({counts}) in {tuned.seconds:,.0f} s",
        title_justify="left",
    )
    table.add_column("trial")
    for trial in complete:
        table.add_column(str(trial.number), justify="right", overflow="fold")
    shares = {name: f"{share:.0%}" for name, share in tuned.importance.items()}
    if shares:
        table.add_column("importance", justify="right")
    table.add_row(tuned.metric, *(f"{trial.value:.4f}" for trial in complete))
    for name in complete[0].params:
        importance = [shares[name]] if shares else []
        table.add_row(name, *(param_text(trial.params[name]) for trial in complete), *importance)
    table.add_row("seconds", *(f"{trial.seconds:.1f}" for trial in complete))
    return table
