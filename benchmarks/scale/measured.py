"""A command of recvae as a program for a process of its own, so that its peak memory is that of the command."""

from __future__ import annotations

# to be run with the command's arguments; its last line is JSON
COMMAND = """
import json, sys, time
from recvae.cli.main import main
from recvae.utils.memory import PeakMemory
started = time.perf_counter()
with PeakMemory() as peak:
    status = main(sys.argv[1:])
print(json.dumps({"seconds": time.perf_counter() - started, "peak_mib": peak.mib}))
sys.exit(status)
"""
