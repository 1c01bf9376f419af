"""What `recvae tune` does: a search, its table, and a configuration with which to train."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from rich.table import Table

from recvae.benchmark.grids import CANDIDATES, known_model
from recvae.benchmark.results import json_bytes
from recvae.cli.arguments import asked_split, assignments, check_out, say, say_account, say_dropped
from recvae.data.splits import Split
from recvae.datasets.load import load_split
from recvae.errors import InvalidParameterError
from recvae.models.base.params import param_text, parse_param
from recvae.tuning.search import Tuned, tune
from recvae.tuning.study import check_study
from recvae.utils.files import check_writable, write_whole
from recvae.utils.streams import printed, put
from recvae.version import __version__


def run(arguments: argparse.Namespace) -> None:
    """recvae tune"""
    check_out(arguments)
    if arguments.out is not None:
        check_writable(arguments.out)
    if arguments.study is not None:
        check_study(arguments.study)  # now rather than after the data are read
    model = CANDIDATES[known_model(arguments.model)][0]
    fixed = {name: parse_param(model, name, text) for name, text in assignments(arguments)}
    split = _split(arguments)
    say_dropped("validation", split.valid)
    tuned = tune(
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
        found = {"model": type(tuned.model).__name__, "parameters": tuned.params, "metric": tuned.metric}
        rest = {"value": tuned.value, "importance": tuned.importance, "seconds": tuned.seconds}
        trials = [asdict(trial) for trial in tuned.trials]
        put(json_bytes(found | rest | {"trials": trials}).decode())
    else:
        with printed() as console:
            console.print(_table(tuned))


def _split(arguments: argparse.Namespace) -> Split:
    """The split that is asked for, else the data set's own."""
    split = asked_split(arguments)
    if split is not None:
        return split
    if arguments.dataset is None:
        raise InvalidParameterError("Expected --split or --heldout-users with --input, to have users to choose by.")
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
    """The best settings, as `recvae train --config` and `recvae benchmark --config` take them."""
    params = "".join(f"    {json.dumps(f'{name}={param_text(value)}')},\n" for name, value in tuned.params.items())
    return (
        f"# the best of {len(tuned.trials)} trials: {tuned.metric} {tuned.value:.4f} on validation users "
        f"(recvae {__version__})\n"
        f"model = {json.dumps(type(tuned.model).__name__)}\nparam = [\n{params}]\n"
    )


def _table(tuned: Tuned, best: int = 8) -> Table:
    """The best trials side by side, and the importance of each hyper-parameter where it is known."""
    ended = sorted((t for t in tuned.trials if t.value is not None), key=lambda t: -(t.value or 0.0))[:best]
    states = [trial.state for trial in tuned.trials]
    counts = ", ".join(
        f"{states.count(state)} {state}" for state in ("complete", "pruned", "failed") if state in states
    )
    table = Table(
        title=f"{type(tuned.model).__name__}: the best of {len(states)} trials ({counts}) in {tuned.seconds:,.0f} s",
        title_justify="left",
    )
    table.add_column("trial")
    for trial in ended:
        table.add_column(str(trial.number), justify="right", overflow="fold")
    shares = {name: f"{share:.0%}" for name, share in tuned.importance.items()}
    if shares:
        table.add_column("importance", justify="right")
    table.add_row(tuned.metric, *(f"{trial.value:.4f}" for trial in ended))
    for name in ended[0].params:
        table.add_row(name, *(param_text(trial.params[name]) for trial in ended), *([shares[name]] if shares else []))
    table.add_row("seconds", *(f"{trial.seconds:.1f}" for trial in ended))
    return table
