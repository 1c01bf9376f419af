"""Products with a dense weight, in the precision and by the kernel that the hardware is fast in."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from recvae.errors import UnknownNameError

PRECISIONS = ("auto", "float32", "bfloat16")
ONEDNN = getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


def linear(hidden: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """h W^T + b.

    On a CPU, where no gradient is wanted, by oneDNN, as what torch.compile makes does it: on some CPUs it needs half
    the time of the BLAS behind F.linear, but for one row and a weight that lies `by_columns`.
    """
    if ONEDNN is None or hidden.device.type != "cpu" or hidden.dtype != torch.float32 or torch.is_grad_enabled():
        return F.linear(hidden, weight, bias)
    if len(hidden) == 1 and weight.T.is_contiguous():
        return torch.addmm(bias, hidden, weight.T)
    return ONEDNN(hidden, weight, bias, "none", [], "")


def by_columns(weight: Tensor) -> Tensor:
    """The same weight (I, H), in memory (H, I): for few rows, products with it take down to half the time."""
    return weight.T.contiguous().T


def in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether a precision is bfloat16; "auto" is where the hardware computes in it."""
    if precision not in PRECISIONS:
        raise UnknownNameError.among("precision", precision, PRECISIONS)
    return precision == "bfloat16" or (precision == "auto" and _computes_bfloat16(device))


def _computes_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16, rather than turning it into float32 first."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (
        torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()  # no public name for these
    )
