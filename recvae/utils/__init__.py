"""Utilities: files, memory, threads and cores, top-k, devices."""
