"""Recommending to more users than memory holds: Parquet in, Parquet in parts out, to be gone on with after a stop."""

from recvae.bulk.lists import Part as Part
from recvae.bulk.run import ENGINES as ENGINES
from recvae.bulk.run import USERS_PER_PART as USERS_PER_PART
from recvae.bulk.run import BulkResult as BulkResult
from recvae.bulk.run import recommend_to_parquet as recommend_to_parquet
