"""A script that runs a recvae command in a separate process, so that the peak memory is that of the command."""

from __future__ import annotations

# takes the arguments of the command; the last line of its output is JSON
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
