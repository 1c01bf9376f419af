"""The contract that every model keeps: fit on rows, recommend for rows. Its prose is here, once."""

from recvae.models.base.abilities import abilities
from recvae.models.base.base import Callbacks, FitCallback, FitRun, Model
from recvae.models.base.explain import Explains
from recvae.models.base.exploring import Explored
from recvae.models.base.files import Saves, load
from recvae.models.base.growing import Grows
from recvae.models.base.latent import Encoding, Imagines
from recvae.models.base.params import parameters
from recvae.models.base.serving import Serves, UnknownItemsWarning
from recvae.models.base.similar import FindsSimilar

__all__ = [
    "Callbacks",
    "Encoding",
    "Explored",
    "FitCallback",
    "FitRun",
    "Model",
    "Recommender",
    "UnknownItemsWarning",
    "abilities",
    "load",
]


@parameters
class Recommender(Serves, FindsSimilar, Explains, Imagines, Grows, Saves):
    """A model that ranks items for rows of a users x items matrix.

    A user is a row, never a number that the model looks up: whoever was not there at training is scored like anyone
    else. (Baselines that cannot do so say it: see `KnownUsers`.) A constructor stores its arguments and does nothing
    more; they are checked by `fit`. Every model can `fit`, `recommend`, `score` and `save`; `abilities()` names the
    other verbs that it has, and those that it has not raise NotSupportedError.
    """

    @classmethod
    def abilities(cls) -> frozenset[str]:
        """The verbs beyond fit, recommend, score and save that models of this class have."""
        return abilities(cls)
