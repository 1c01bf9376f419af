"""The folder of data sets."""

from __future__ import annotations

import os
from pathlib import Path

from recvae.utils.paths import input_path


def data_home(home: str | Path | None = None) -> Path:
    """Folder of data sets: the argument, else RECVAE_DATA, else the cache folder of the user."""
    folder = home or os.environ.get("RECVAE_DATA")
    if not folder:
        import platformdirs

        folder = platformdirs.user_cache_dir("recvae")
    return input_path(folder)
