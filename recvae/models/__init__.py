"""The models, one short file for each paper. A new one needs a file, and a line here and in `recvae/__init__.py`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recvae.models.ease import EASE
    from recvae.models.edlae import EDLAE
    from recvae.models.h_vamp import HVamp
    from recvae.models.hybrid_vae import HybridVAE
    from recvae.models.mult_dae import MultDAE
    from recvae.models.mult_vae import MultVAE
    from recvae.models.rec_vae import RecVAE

__all__ = ["EASE", "EDLAE", "HVamp", "HybridVAE", "MultDAE", "MultVAE", "RecVAE", "all_models"]

# name -> module, imported at first use: closed-form models do not need the code of networks
_MODULES = {
    "EASE": "ease",
    "EDLAE": "edlae",
    "HVamp": "h_vamp",
    "HybridVAE": "hybrid_vae",
    "MultDAE": "mult_dae",
    "MultVAE": "mult_vae",
    "RecVAE": "rec_vae",
}


def all_models() -> dict[str, Any]:
    """The classes of all models by name, baselines included; their modules are loaded."""
    baselines = import_module("recvae.models.baselines")
    models = {name: getattr(import_module(f"recvae.models.{module}"), name) for name, module in _MODULES.items()}
    return models | {name: getattr(baselines, name) for name in baselines.__all__}


if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f"recvae.models.{_MODULES[name]}"), name)
