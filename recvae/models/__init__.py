"""The models, one short file for each paper. A new one is a file and a line here."""

from recvae.models.ease import EASE
from recvae.models.edlae import EDLAE
from recvae.models.h_vamp import HVamp
from recvae.models.hybrid_vae import HybridVAE
from recvae.models.mult_dae import MultDAE
from recvae.models.mult_vae import MultVAE
from recvae.models.rec_vae import RecVAE

__all__ = ["EASE", "EDLAE", "HVamp", "HybridVAE", "MultDAE", "MultVAE", "RecVAE"]
