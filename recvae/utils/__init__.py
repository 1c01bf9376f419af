"""Small things without a home in the field: files, memory, threads, top-k, devices."""
