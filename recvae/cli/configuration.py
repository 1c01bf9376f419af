"""The file of `--config`: settings of a command by their names, as its flags would give them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from recvae.errors import InvalidParameterError, RecvaeError, shown
from recvae.utils.paths import input_path


def read_config(path: Path) -> dict[str, Any]:
    """The settings of a TOML file, by the names of their arguments. Raises InvalidParameterError."""
    try:
        settings = tomllib.loads(input_path(path).read_text(encoding="utf-8"))
        return {name.replace("-", "_"): _as_flag(name, value) for name, value in settings.items()}
    except RecvaeError:
        raise
    except (OSError, ValueError) as error:
        raise InvalidParameterError(f"The configuration {path} cannot be read: {error}.") from error
    except RecursionError:
        raise InvalidParameterError(f"The configuration {path} cannot be read: it is too deep.") from None


def _as_flag(name: str, value: Any) -> Any:
    """A setting as the command line would give it: argparse reads texts by the type of their flag."""
    if name == "param":
        return [str(assignment) for assignment in value] if isinstance(value, list) else [str(value)]
    if isinstance(value, bool) != (name == "json") or isinstance(value, dict):
        raise InvalidParameterError(f"Expected {name} in the configuration as its flag has it, got {shown(value)}.")
    if isinstance(value, list):
        return ",".join(str(part) for part in value)
    return value if name == "json" else str(value)
