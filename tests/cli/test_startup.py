"""What each command loads: nobody waits for a library that the command does not need."""

import os
import subprocess
import sys

import pytest

from recvae.cli.main import COMMANDS

LARGE = {
    "torch",
    "scipy",
    "numpy",
    "pyarrow",
    "pandas",
    "polars",
    "duckdb",
    "implicit",
    "altair",
    "sklearn",
    "matplotlib",
}
RUN = """
import sys
from recvae.cli.main import main
try:
    main(sys.argv[1:])
except SystemExit:
    pass
print(*{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


def loaded(code, *arguments, home=None):
    """The top-level modules that are loaded once `code` has run in a process of its own; and its output."""
    env = os.environ | ({} if home is None else {"RECVAE_DATA": str(home)})
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stderr.split()), done.stdout


def test_importing_recvae_loads_no_library():
    modules, _ = loaded('import recvae, sys; print(*{n.partition(".")[0] for n in sys.modules}, file=sys.stderr)')
    assert "recvae" in modules
    assert not modules & LARGE
    assert not modules & {"rich", "msgspec", "psutil", "pooch"}  # nor the small ones


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_loads_no_large_library(command):
    modules, out = loaded(RUN, *[command] * bool(command), "--help")
    assert out.startswith(f"usage: recvae {command}".rstrip())
    assert not modules & LARGE


@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_the_list_of_data_sets_loads_no_large_library(flags, tmp_path):
    modules, out = loaded(RUN, "datasets", *flags, home=tmp_path)
    assert "ml-20m" in out
    assert not modules & LARGE
