"""Events larger than memory: Parquet files -> shards on disk, whole users each, to be read in any order."""

from recvae.shards.read import Shards as Shards
from recvae.shards.shard_file import Piece as Piece
from recvae.shards.shuffled import WINDOW_BYTES as WINDOW_BYTES
from recvae.shards.shuffled import ShuffledRows as ShuffledRows
from recvae.shards.write import USERS_PER_SHARD as USERS_PER_SHARD
from recvae.shards.write import write_shards as write_shards
