"""Names and defaults of the data layer that cards and commands need: this module loads no library."""

from __future__ import annotations

from typing import Literal, get_args

# transform of the values of events: 1 for each event, log(1 + value), or unchanged
Values = Literal["binary", "log1p", "raw"]
VALUES: tuple[str, ...] = get_args(Values)

UNKNOWN_BEHAVIOR = ("refuse", "drop")  # what happens to events of behaviours without a weight

SPLIT_KINDS = ("strong", "per-user", "leave-last", "temporal", "given")
# the options of all kinds of splits, without the seed
SPLIT_OPTIONS = ("heldout_users", "test_share", "valid_share", "last", "test_start", "valid_start")
SPLIT_FOLDER = "folder"  # kind of a split whose files say who is held out: it has no options
SPLIT_SEED = 98765  # that of Liang et al. 2018

USERS_PER_SHARD = 20_000

# kinds of files of events, by `--format` and `format=`; `recvae.data.tables.formats` has their readers
FORMATS = (
    *("text", "parquet", "arrow", "json", "inter", "adjacency", "baskets", "counted"),
    *("matrix", "npz", "npy", "mtx", "libsvm", "libfm", "excel"),
)
