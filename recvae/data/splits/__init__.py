"""Splits of the data for honest evaluation: who is trained on, and what is hidden from whom."""

from recvae.data.names import SPLIT_OPTIONS, SPLIT_SEED
from recvae.data.splits.holdout import Holdout, Split
from recvae.data.splits.known_users import given_split, leave_last_split, per_user_split, temporal_split
from recvae.data.splits.registry import SPLITS, check_split, make_split, split_options
from recvae.data.splits.strong import strong_split

__all__ = [
    "SPLITS",
    "SPLIT_OPTIONS",
    "SPLIT_SEED",
    "Holdout",
    "Split",
    "check_split",
    "given_split",
    "leave_last_split",
    "make_split",
    "per_user_split",
    "split_options",
    "strong_split",
    "temporal_split",
]
