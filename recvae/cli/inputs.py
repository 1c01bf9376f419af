"""Flags that several commands share, and loaders for them: events, histories, shards, a split, a model."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recvae.cli.output import say_account, say_reading
from recvae.cli.reading import add_reading, read_file, read_options
from recvae.data.tables.options import ReadOptions
from recvae.errors import InvalidDataError, InvalidParameterError, RecvaeError, shown
from recvae.utils.paths import as_path

if TYPE_CHECKING:
    import pyarrow as pa

    from recvae.data.histories import Histories
    from recvae.data.ids import ItemIndex
    from recvae.data.interactions import Interactions
    from recvae.data.shards import Shards
    from recvae.data.splits import Split
    from recvae.models.base import Recommender

NEEDED: Any = object()  # default of an argument that is required, by flag or in --config
RULES = ("behavior", "weights", "min_item", "k_core", "half_life")  # flags of what counts as an event
LOW_VALUES = "leave out events of a lower value"


# flags ---------------------------------------------------------------------------------------------------------------


def path(text: str) -> Path:
    """Convert the text of a flag to a path, as its type in argparse."""
    try:
        return as_path(text)
    except RecvaeError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def weights(text: str) -> dict[str, float]:
    """Convert NAME=NUMBER,... to weights of behaviours, as the type of a flag in argparse."""
    from recvae.data.weight_spec import checked_weights

    try:
        pairs = [pair.rpartition("=") for pair in text.split(",")]
        if not all(name for name, _, _ in pairs):
            raise ValueError("expected NAME=NUMBER, separated by commas")
        return checked_weights({name.strip(): float(number) for name, _, number in pairs})
    except (RecvaeError, ValueError) as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None


def half_life(text: str) -> float | str:
    """Convert the text of --half-life: a number, or a span of time such as 30d."""
    from recvae.data.weight_spec import half_life_in_units

    try:
        return half_life_in_units(float(text))
    except (RecvaeError, ValueError):
        pass
    try:
        half_life_in_units(text)
    except RecvaeError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None
    return text


def add_dataset(add: Any, default: str | None = None, help_default: str = "") -> None:
    """Add the flags for a data set by name; `help_default` is added to the help and states the default."""
    from recvae.datasets.card import known_cards

    names = ", ".join(known_cards())
    add("--dataset", default=default, help=f"one of {names}, or a card of your own (.toml){help_default}")
    add_data_home(add)


def add_data_home(add: Any) -> None:
    """Add the flag for the folder of data sets."""
    add("--data-home", type=path, help="folder of data sets (default: RECVAE_DATA, else the user's cache)")


def add_events(parser: argparse.ArgumentParser, min_value_help: str = LOW_VALUES, filters: bool = True) -> None:
    """Add the flags for events: a file with columns of any name, or a data set; those of training, if `filters`."""
    add = parser.add_argument_group("events").add_argument
    add("--input", type=path, help="a file of events: delimited text or Parquet, also compressed, or a folder")
    add_columns(add, min_value_help)
    add("--time", help="its column of times: dates or numbers (default: none)")
    if filters:
        add_filters(add)
    add_reading(parser)
    add_dataset(add)


def add_columns(add: Any, min_value_help: str = LOW_VALUES) -> None:
    """Add the flags for the columns of the input, and for the filters of its rows."""
    from recvae.data.names import UNKNOWN_BEHAVIOR, VALUES

    add("--user", default="user", help="its column of user ids (default: user)")
    add("--item", default="item", help="its column of item ids (default: item)")
    add("--value", help="its column of values (default: each row counts 1)")
    add("--min-value", type=float, help=min_value_help)
    add("--min-user", type=int, help="leave out users with fewer events")
    add("--values", choices=VALUES, default="binary", help="how values are read (default: binary)")
    add("--behavior", metavar="COLUMN", help="its column of behaviours, such as view, cart, buy")
    add(
        "--weights",
        type=weights,
        metavar="NAME=NUMBER,...",
        help="what an event of each behaviour counts, such as view=1,cart=3,buy=5; 0: it was only seen",
    )
    add(
        "--unknown-behavior",
        choices=UNKNOWN_BEHAVIOR,
        default="refuse",
        help="events of other behaviours (default: refuse)",
    )


def add_filters(add: Any) -> None:
    """Add the flags for filters that apply to training data only."""
    add("--min-item", type=int, help="leave out items with fewer events")
    add("--k-core", action="store_true", help="repeat --min-item and --min-user until all that are left have enough")
    add(
        "--half-life",
        type=half_life,
        metavar="SPAN",
        help="age at which an event counts half, by --time: 30d, 12h or a number",
    )


def add_shards(add: Any) -> None:
    """Add the flag for events that recvae shard has written."""
    add("--shards", type=path, metavar="DIR", help="instead of events: a folder that recvae shard wrote")


def add_split(parser: argparse.ArgumentParser, default: str, test_input: bool = False) -> None:
    """Add the flags for the split, the options of `recvae.data.splits.make_split`."""
    from recvae.data.names import SPLIT_KINDS, SPLIT_SEED

    add = parser.add_argument_group("split").add_argument
    add("--split", metavar="KIND", help=f"one of {', '.join(SPLIT_KINDS)} (default: {default})")
    add("--heldout-users", type=int, help="users for validation, and as many for the test; needed for strong")
    add("--test-share", type=float, help="strong, per-user: of a user's events (default: 0.2); temporal: of all (0.1)")
    add("--valid-share", type=float, help="per-user, temporal, given: of what the test leaves (default: 0.1)")
    add("--last", type=int, help="leave-last: this many events of each user (default: 1)")
    add("--test-start", help="temporal: the test begins at this date or time")
    add("--valid-start", help="temporal: validation begins at this date or time")
    add("--split-seed", type=int, default=SPLIT_SEED, help="seed of the split (default: the paper's 98765)")
    add(
        "--split-folder",
        type=path,
        metavar="DIR",
        help="instead of events: a folder of train.csv, validation_tr.csv and so on, as the VAE papers have it, or of "
        "train.txt and test.txt, as LightGCN has it",
    )
    if test_input:
        add("--test-input", type=path, help="given: the file of test events, with columns as in --input")


def add_model(add: Any, param_help: str) -> None:
    """Add the flags for a model by name and its hyper-parameters."""
    from recvae.benchmark.grids import GRIDS

    add("--model", default="MultVAE", help=f"one of {', '.join(GRIDS)}, or module:Class (default: MultVAE)")
    add_param(add, param_help)


def add_param(add: Any, param_help: str) -> None:
    """Add the flag for hyper-parameters by name."""
    add("--param", action="append", default=[], metavar="NAME=VALUE", help=param_help)


# loaders -------------------------------------------------------------------------------------------------------------


def new_model(arguments: argparse.Namespace) -> Recommender:
    """A new model as --model, --seed and each --param describe it."""
    from recvae.benchmark.grids import first_model
    from recvae.models.base.params import options, parse_param, with_params

    model = first_model(arguments.model)
    settings: dict[str, Any] = {"random_state": arguments.seed} if "random_state" in options(model) else {}
    settings |= {name: parse_param(model, name, text) for name, text in param_texts(arguments).items()}
    return with_params(model, settings)


def param_texts(arguments: argparse.Namespace) -> dict[str, str]:
    """The text of each --param by name; the last one if a name is repeated. Raises InvalidParameterError."""
    for assignment in arguments.param:
        if "=" not in assignment:
            raise InvalidParameterError(f"Expected --param NAME=VALUE, got {shown(assignment)}.")
    return {name: text for name, _, text in (assignment.partition("=") for assignment in arguments.param)}


def open_shards(arguments: argparse.Namespace) -> Shards | None:
    """The folder of --shards, if it is given. Raises InvalidParameterError for options that the shards fix."""
    from recvae.data.shards import Shards

    if arguments.shards is None:
        return None
    of_events = ("input", "dataset", "value", "time", "min_value", "min_user", *RULES)
    for name in (*of_events, "split", "heldout_users", "test_input", "split_folder"):
        if getattr(arguments, name, None) not in (None, False):
            raise InvalidParameterError(
                f"Expected --shards without --{name.replace('_', '-')}: what is in them was settled by recvae shard."
            )
    return Shards(arguments.shards)


def load_events(arguments: argparse.Namespace) -> Interactions:
    """All events of --input or --dataset, before any split."""
    _check_source(arguments)
    if arguments.dataset is None:
        return _read_events(arguments.input, arguments)
    from recvae.datasets.load import load_dataset

    data = load_dataset(
        arguments.dataset, arguments.data_home, min_value=arguments.min_value, min_user=arguments.min_user
    )
    say_account(data, arguments.dataset)
    return data


def load_split_or_none(arguments: argparse.Namespace) -> Split | None:
    """The split of --split or --heldout-users; None if neither is given."""
    from recvae.data.splits import check_split, make_split, split_options
    from recvae.datasets.load import load_split

    if arguments.split_folder is not None:
        return _split_in_folder(arguments)
    _check_source(arguments)
    options = split_options_of(arguments)
    kind = arguments.split
    if kind is None and arguments.heldout_users is not None:
        kind = "strong"
    if kind is None:
        if options or arguments.test_input is not None:
            raise InvalidParameterError(f"Expected --split KIND for {', '.join(options) or 'test_input'}, got none.")
        return None
    if arguments.dataset is not None:
        split = load_split(
            arguments.dataset,
            arguments.data_home,
            split=kind,
            seed=arguments.split_seed,
            min_value=arguments.min_value,
            min_user=arguments.min_user,
            **options,
        )
        say_account(split.train, arguments.dataset)
        return split
    if "seed" in split_options(kind):
        options["seed"] = arguments.split_seed
    check_split(kind, options)
    test = None if arguments.test_input is None else _read_events(arguments.test_input, arguments, is_test=True)
    return make_split(load_events(arguments), kind, test, **options)


def check_split_folder(arguments: argparse.Namespace) -> None:
    """Raise InvalidParameterError for other data next to --split-folder."""
    for name in ("input", "dataset", "shards", "value", "time", "min_value", "min_user", *RULES, "test_input"):
        if getattr(arguments, name, None):
            raise InvalidParameterError(
                f"Expected --split-folder without --{name.replace('_', '-')}: its files are the data and the split."
            )


def _split_in_folder(arguments: argparse.Namespace) -> Split:
    from recvae.datasets.load import load_split

    check_split_folder(arguments)
    folder, options = arguments.split_folder, split_options_of(arguments)
    split = load_split(folder, split=arguments.split, seed=arguments.split_seed, **options)
    say_account(split.train, folder)
    return split


def split_options_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of the split that were given, by name."""
    from recvae.data.names import SPLIT_OPTIONS

    return {name: getattr(arguments, name) for name in SPLIT_OPTIONS if getattr(arguments, name) is not None}


def load_histories(
    arguments: argparse.Namespace, index: ItemIndex, weights: Mapping[str, float] | None = None
) -> Histories:
    """Read what the users of the input liked and have seen, as histories over the items of a model.

    With --min-user, only users who liked that many items. Without --weights, behaviours have the `weights` of training.

    Raises
    ------
    InvalidDataError
        If no event has a sufficient value, or the model knows none of the items.
    """
    import numpy as np

    from recvae.data.histories import read_histories

    _check_source(arguments)
    user, item, value = arguments.user, arguments.item, arguments.value
    if arguments.dataset is None:
        read, min_value = read_file(arguments.input, arguments), arguments.min_value
        say_reading(read, arguments.input)
        events = read.table
        user, item, value = (read.columns.by_role()[role] for role in ("user", "item", "value"))
        rules = {"behavior": read.columns.by_role()["behavior"], "unknown_behavior": arguments.unknown_behavior}
        rules["weights"] = (arguments.weights or weights) if arguments.behavior else arguments.weights
    else:
        from recvae.datasets.load import behavior_rules, load_unfiltered

        events, min_value = load_unfiltered(arguments.dataset, arguments.data_home, min_value=arguments.min_value)
        value = "value" if "value" in events.column_names else None
        rules = behavior_rules(arguments.dataset)
    seen_too = load_seen(arguments)
    histories = read_histories(
        events, index, user=user, item=item, value=value, min_value=min_value, seen=seen_too, **rules
    )
    _check_histories(histories, index, min_value)
    if not arguments.min_user:
        return histories
    chosen = np.flatnonzero(np.isin(histories.users, load_events(arguments).user_ids))
    return histories.select(chosen)


def load_seen(arguments: argparse.Namespace) -> pa.Table | None:
    """The table of --seen, items that users have seen outside the events; None if not given."""
    if arguments.seen is None:
        return None
    read = read_file(arguments.seen, arguments, ids_only=True)
    say_reading(read, arguments.seen)
    return read.table


def _check_source(arguments: argparse.Namespace) -> None:
    if (arguments.input is None) == (arguments.dataset is None):
        raise InvalidParameterError("Expected either --input FILE or --dataset NAME, got both or neither.")
    columns = (arguments.user, arguments.item, arguments.value, arguments.time, arguments.values)
    if arguments.dataset is not None and columns != ("user", "item", None, None, "binary"):
        raise InvalidParameterError(
            "Expected --user, --item, --value, --time and --values with --input only: a data set's card sets them."
        )
    for name in RULES:
        if arguments.dataset is not None and getattr(arguments, name, None):
            flag = name.replace("_", "-")
            raise InvalidParameterError(f"Expected --{flag} with --input only: a data set's card has its own.")
    if arguments.dataset is not None and read_options(arguments) != ReadOptions(spoken="flag"):
        raise InvalidParameterError("Expected options of reading with --input only: a data set's card has its own.")
    if arguments.dataset is not None and getattr(arguments, "test_input", None) is not None:
        raise InvalidParameterError("Expected --test-input with --input only: a data set's card names its test.")


def _check_histories(histories: Histories, index: ItemIndex, min_value: float | None) -> None:
    if histories.rows.nnz == histories.unknown.events == 0:
        at_least = "" if min_value is None else f" and at least {min_value:g}"
        raise InvalidDataError(f"Expected at least one event with a value of more than 0{at_least}, got none.")
    if histories.rows.nnz == 0 and histories.seen is None:
        raise InvalidDataError(
            f"Expected events on some of the {len(index):,} items, such as {shown(next(iter(index)))}, got none: the "
            f"items here are such as {shown(histories.unknown.examples[0])}."
        )


def _read_events(source: Path, arguments: argparse.Namespace, is_test: bool = False) -> Interactions:
    from recvae.data.interactions import Interactions

    rules = {"weights": arguments.weights, "unknown_behavior": arguments.unknown_behavior}
    if not is_test:
        rules |= {"min_user": arguments.min_user or 0, "min_item": getattr(arguments, "min_item", None) or 0}
        rules |= {"k_core": getattr(arguments, "k_core", False), "half_life": getattr(arguments, "half_life", None)}
    data = Interactions.from_reading(
        read_file(source, arguments), min_value=arguments.min_value, values=arguments.values, **rules
    )
    say_account(data, source)
    return data
