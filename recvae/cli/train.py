"""recvae train, recvae plan and recvae evaluate: train and save a model, estimate the cost of that, and test it."""

from __future__ import annotations

import argparse
import time
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from recvae.cli.inputs import (
    NEEDED,
    add_events,
    add_model,
    add_shards,
    add_split,
    load_events,
    load_split_or_none,
    new_model,
    open_shards,
    path,
)
from recvae.cli.output import check_outputs, only_main_process_says, say, say_dropped
from recvae.cli.reading import read_file
from recvae.errors import InvalidDataError, InvalidParameterError, NotSupportedError
from recvae.utils.files import check_writable
from recvae.utils.streams import put

if TYPE_CHECKING:
    import pyarrow as pa

    from recvae.data.shards import Shards
    from recvae.data.splits import Holdout
    from recvae.distributed.communicator import Communicator
    from recvae.models.base import Recommender
    from recvae.training.callbacks import Callback
    from recvae.training.checkpoint import Checkpoint


def train_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of recvae train."""
    add = parser.add_argument
    plan_flags(parser)
    add("--out", type=path, default=NEEDED, help="the model file to write")
    add(
        "--checkpoint",
        type=path,
        metavar="DIR",
        help="write checkpoints to this folder; after a stop, the same command resumes from there",
    )
    add("--checkpoint-minutes", type=float, default=10.0, help="how often, apart from each epoch (default: 10)")
    add(
        "--log",
        type=path,
        metavar="FILE.jsonl",
        help="add a line of JSON to this file for each epoch, as it ends",
    )
    add(
        "--tensorboard",
        type=path,
        metavar="DIR",
        help="write curves for TensorBoard into a folder in this one",
    )


def train(arguments: argparse.Namespace) -> None:
    """Run recvae train, by itself or as one of the processes of torchrun."""
    from recvae.distributed.launch import joined

    check_outputs(arguments)
    check_writable(arguments.out)
    callbacks, checkpoint = _callbacks(arguments), _checkpoint(arguments)
    model, shards = new_model(arguments), open_shards(arguments)
    device_type = str(getattr(model, "device", "auto")).partition(":")[0]
    with joined(device_type) as communicator, only_main_process_says(communicator):
        _train(arguments, model, shards, callbacks, checkpoint, communicator)


def _train(
    arguments: argparse.Namespace,
    model: Recommender,
    shards: Shards | None,
    callbacks: list[Callback],
    checkpoint: Checkpoint | None,
    communicator: Communicator,
) -> None:
    from recvae.benchmark.results import json_bytes
    from recvae.data.interactions import Interactions
    from recvae.models.autoencoder.base import Autoencoder
    from recvae.models.base.params import flat_params
    from recvae.tuning.selection import fit_split

    split = None if shards is not None else load_split_or_none(arguments)
    data = shards or (load_events(arguments) if split is None else split.refit or split.train)
    # the account of the rows was printed when they were read
    say(replace(data, account=None).describe() if isinstance(data, Interactions) else str(data))
    valid = split.valid if split is not None else _valid_of(shards)
    say_dropped("validation", valid)
    say_dropped("test", None if split is None else split.test)
    if communicator.size > 1:
        say(
            f"{_parallelism(model).capitalize()} parallel training by {communicator.size} processes on "
            f"{communicator.device.type}"
        )
    started = time.perf_counter()
    if split is None:
        model = model.fit(data, valid=valid, callbacks=callbacks, checkpoint=checkpoint)
    else:
        model = fit_split(model, split, callbacks=callbacks, checkpoint=checkpoint)
    seconds = time.perf_counter() - started
    if not communicator.is_main_process:
        return
    model.save(arguments.out)
    if isinstance(model, Autoencoder):
        say(f"{model.plan_.impl.capitalize()} likelihood: {model.plan_.why}")
    say(f"{type(model).__name__} written to {arguments.out}")
    if arguments.json:
        about = {"model": type(model).__name__, "file": str(arguments.out), "parameters": flat_params(model)}
        sizes = {"users": data.n_users, "items": data.n_items, "events": data.n_events, "values": model.values_}
        put(json_bytes(about | sizes | {"seconds": seconds}).decode())


def _callbacks(arguments: argparse.Namespace) -> list[Callback]:
    """The callbacks for --tensorboard and --log. Raises OutputError before the data are read."""
    from recvae.training.callbacks import JsonLines, TensorBoard

    callbacks: list[Callback] = [] if arguments.tensorboard is None else [TensorBoard(arguments.tensorboard)]
    if arguments.log is not None:
        check_writable(arguments.log)
        callbacks.append(JsonLines(arguments.log))
    return callbacks


def _checkpoint(arguments: argparse.Namespace) -> Checkpoint | None:
    """The folder and interval of --checkpoint; None if not given."""
    from recvae.training.checkpoint import Checkpoint, as_checkpoint

    if arguments.checkpoint is None:
        return None
    return as_checkpoint(Checkpoint(arguments.checkpoint, arguments.checkpoint_minutes))


def _valid_of(shards: Shards | None) -> Holdout | None:
    """The validation users of shards; None without any."""
    return None if shards is None or shards.heldout_users is None else shards.valid


def _parallelism(model: Recommender) -> str:
    """The parallel strategy, "data" or "tensor". Raises NotSupportedError for models without training steps."""
    from recvae.models.autoencoder.base import Autoencoder

    if not isinstance(model, Autoencoder):
        raise NotSupportedError(
            f"{type(model).__name__} is solved in one go, by one process: start it without torchrun."
        )
    return str(model.training.parallel)


def plan_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of recvae plan, which are also flags of recvae train."""
    add = parser.add_argument
    add_events(parser)
    add_shards(add)
    add_model(add, "a hyper-parameter, such as latent_dim=64")
    add("--seed", type=int, default=0, help="seed of the model (default: 0)")
    add_split(parser, "none: train on everything", test_input=True)
    add("--json", action="store_true", help="print JSON")


def plan(arguments: argparse.Namespace) -> None:
    """Run recvae plan."""
    from recvae.benchmark.results import json_bytes
    from recvae.models.autoencoder.base import Autoencoder

    model, shards = new_model(arguments), open_shards(arguments)
    if not isinstance(model, Autoencoder):
        raise InvalidParameterError(
            f"Expected a model that is trained step by step, such as MultVAE, got {type(model).__name__}: it is solved "
            f"in one go, and refuses by itself what would not fit."
        )
    split = None if shards is not None else load_split_or_none(arguments)
    data = shards or (load_events(arguments) if split is None else split.train)
    estimate = model.plan(data, valid=split.valid if split is not None else _valid_of(shards))
    if arguments.json:
        put(json_bytes(asdict(estimate) | {"peak": estimate.memory.peak, "fits": estimate.fits}).decode())
    else:
        put(f"{estimate}\n")


def evaluate_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of recvae evaluate."""
    from recvae.evaluation.names import DEFAULT_METRICS

    add = parser.add_argument
    add("model_file", type=path, nargs="?", default=NEEDED, help="what recvae train wrote")
    add_events(parser)
    add_split(parser, "strong with --heldout-users", test_input=True)
    add_shards(add)
    add("--metrics", default=",".join(DEFAULT_METRICS), help="comma-separated (default: %(default)s)")
    add("--candidates", type=path, help="rank these items only: a file with columns --user and --item")
    add("--sampled-negatives", type=int, help="rank held-out items among so many random ones: see the guide's warning")
    add("--out", type=path, help="write the metrics to this .csv, .tsv, .jsonl or .parquet file")
    add("--per-user", action="store_true", help="write the value of each user to --out instead of the means")
    add("--json", action="store_true", help="print JSON")


def evaluate(arguments: argparse.Namespace) -> None:
    """Run recvae evaluate."""
    from recvae.benchmark.results import json_bytes
    from recvae.data.shards import Shards
    from recvae.data.tables.frames import check_table, write_table
    from recvae.evaluation.evaluate import evaluate as evaluate_model
    from recvae.models.base import load

    check_outputs(arguments)
    if arguments.out is not None:
        check_table(arguments.out)  # before the work
    model = load(arguments.model_file)
    source = open_shards(arguments) or load_split_or_none(arguments)
    if source is None:
        raise InvalidParameterError("Expected --split or --heldout-users, as in training; got neither.")
    trained = source if isinstance(source, Shards) else source.refit or source.train
    if model.trained_on_ != trained.fingerprint():
        raise InvalidDataError(
            "Expected the model to have been trained on the training part of this split, but it was on other users or "
            "events, perhaps those of the test: take the data, the split and the --split-seed of training."
        )
    say_dropped("test", source.test)
    metrics, negatives = arguments.metrics.split(","), arguments.sampled_negatives
    options = {"candidates": _candidates(arguments), "sampled_negatives": negatives, "show_progress": True}
    result = evaluate_model(model, source.test, metrics, **options)
    if arguments.out is not None:
        write_table(arguments.out, result.frame(per_user=arguments.per_user))
        say(f"Metrics written to {arguments.out}")
    if arguments.json:
        metrics = {name: {"mean": metric.mean, "stderr": metric.stderr} for name, metric in result.items()}
        put(json_bytes({"users": len(result.users), "metrics": metrics, "lists": result.lists}).decode())
    else:
        put(f"{result}\n")


def _candidates(arguments: argparse.Namespace) -> pa.Table | None:
    """The table of --candidates, with columns user and item; None if not given."""
    if arguments.candidates is None:
        return None
    read = read_file(arguments.candidates, arguments, ids_only=True)
    return read.table.rename_columns(["user", "item"])
