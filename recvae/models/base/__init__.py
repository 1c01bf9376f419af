"""The base of all models: `Recommender`, and the types of its arguments and results."""

from typing import TYPE_CHECKING, Any

from recvae.models.base.generative import Encoding, Explored
from recvae.models.base.model import Callbacks, FitCallback, FitRun
from recvae.models.base.recommend import UnknownItemsWarning
from recvae.models.base.recommender import Recommender

if TYPE_CHECKING:
    from recvae.models.base.model_file import load

__all__ = [
    "Callbacks",
    "Encoding",
    "Explored",
    "FitCallback",
    "FitRun",
    "Recommender",
    "UnknownItemsWarning",
    "load",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name != "load":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from recvae.models.base.model_file import load

        return load
