"""Events and results that are larger than memory: Parquet files read by DuckDB, folders of files that may grow."""
