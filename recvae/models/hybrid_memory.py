"""Memory of a HybridVAE's parts next to its network, for the plan of a fit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from recvae.models.autoencoder.memory_estimate import DataSizes, MemoryEstimate
from recvae.models.autoencoder.memory_plan import plan_memory
from recvae.models.autoencoder.shape import Shape
from recvae.models.closed_form import is_sparse
from recvae.models.linear_choice import bytes_to_choose, bytes_to_solve, choices
from recvae.models.low_pass import bytes_to_filter, low_pass_share
from recvae.utils.device import find_device


def bytes_of_parts(model: Any, sizes: DataSizes, network: MemoryEstimate) -> int:
    """Bytes of the linear path's weights, solved for before the training and after it, and of a second network."""
    n_items, shape = sizes.items, Shape(sizes.users, sizes.items, sizes.events)
    in_sparse_form = is_sparse(model.form, n_items)
    weights, solved = bytes_to_solve(n_items, model.neighbours, in_sparse_form, model.item_power != 0)
    if low_pass_share(model.low_pass, shape, model.form):
        solved = max(solved, weights + bytes_to_filter(*shape))
    chosen, (penalties, user_powers, item_powers) = 0, choices(model.l2, model.user_power, model.item_power)
    if max(len(penalties), len(user_powers), len(item_powers)) > 1:
        chosen = bytes_to_choose(len(penalties), len(user_powers), n_items, model.neighbours, in_sparse_form)
    trained = network.weights + network.rows  # what is left of the network's training
    second = 0
    if model._has_second(shape):
        plan = plan_memory(model._second(), replace(sizes, extras_allocated=True), find_device(model.device))
        second = trained + weights + plan.memory.peak
        trained += plan.memory.weights
    return int(max(weights, max(trained + solved, second, chosen) - network.peak))
