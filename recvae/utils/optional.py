"""Optional libraries: imported when needed; if they are missing, the error names the extra to install."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from recvae.errors import MissingDependencyError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import a library of one of the extras.

    Parameters
    ----------
    module
        Dotted name of the module, such as "duckdb" or "implicit.cpu.als".
    extra
        The extra of recvae that installs the library, as pyproject.toml names it.
    purpose
        What needs the library: the subject of the error's sentence, followed by "needs the library".

    Returns
    -------
    ModuleType
        The module.

    Raises
    ------
    MissingDependencyError
        If the module, or one that it imports, is not installed or cannot be loaded.
    """
    try:
        return import_module(module)
    except ImportError as error:
        missing = isinstance(error, ModuleNotFoundError)
        library = (error.name if missing and error.name else module).partition(".")[0]
        problem = "which is not installed" if missing else f"which cannot be loaded ({error})"
        raise MissingDependencyError(
            f'{purpose} needs the library {library}, {problem}; run: pip install "recvae[{extra}]"'
        ) from error
