"""Events larger than memory: Parquet files are converted to shards of whole users, which are read in any order."""

from recvae.data.names import USERS_PER_SHARD as USERS_PER_SHARD
from recvae.data.shards.files import ShardFile as ShardFile
from recvae.data.shards.read import Shards as Shards
from recvae.data.shards.shuffled import WINDOW_BYTES as WINDOW_BYTES
from recvae.data.shards.shuffled import ShuffledRows as ShuffledRows
from recvae.data.shards.write import write_shards as write_shards
