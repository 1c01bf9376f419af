"""Recommendations for more users than memory holds: Parquet in, a resumable folder of Parquet parts out."""

from recvae.serving.batch.parts import Part as Part
from recvae.serving.batch.run import BulkResult as BulkResult
from recvae.serving.batch.run import recommend_to_parquet as recommend_to_parquet
from recvae.serving.names import ENGINES as ENGINES
from recvae.serving.names import USERS_PER_PART as USERS_PER_PART
