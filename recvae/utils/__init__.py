"""Utilities: files, memory, threads, top-k, devices."""
