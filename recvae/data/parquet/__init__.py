"""Parquet files of events, also those larger than memory."""
