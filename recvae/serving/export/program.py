"""A fitted model as data, arrays and the traced operations of its network, and its export as a file for numpy.

Both exports are built from the trace: no network is implemented a second time.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor, fx, nn

from recvae.errors import InvalidTypeError, NotFittedError, NotSupportedError
from recvae.models.autoencoder.base import Autoencoder
from recvae.models.base import Recommender
from recvae.models.base.model_file import File, check_file, write_bytes
from recvae.models.base.state import snapshot
from recvae.models.hybrid_vae import HybridVAE
from recvae.nn import VAE
from recvae.nn.encoders import input_layer
from recvae.serving.export.numpy_scorer import FORMAT, OPERATORS, Scorer
from recvae.version import __version__

Array = NDArray[Any]
ENDS = ("first.weight", "first.bias", "last.weight", "last.bias")  # (I, H), (H,), (I, H'), (I,)


class Program(NamedTuple):
    """The arrays and operations that compute scores: h(x) W^T + b, for a HybridVAE + a x B.

    Two networks are one, whose first layer, h and W are those of both next to each other.

    Attributes
    ----------
    description : dict[str, Any]
        "steps", from "first" (B, H), the output of the first layer, to h, which "hidden" names; "path_weight", which is
        a, or None without a linear path; and the metadata of `describe`.
    arrays : dict[str, Array]
        Those of `ENDS`; those of a linear path, "path" or, for a CSR matrix, "path.data", "path.indices" and
        "path.indptr"; and the parameters of the other layers by name.
    """

    description: dict[str, Any]
    arrays: dict[str, Array]


def program(model: Any) -> Program:
    """A fitted model as a program, checked against the model on one user. Raises as `check_network` does."""
    fitted = check_network(model)
    networks, weights = _networks(fitted)
    steps, hidden, arrays = _trace(networks)
    arrays |= dict(zip(ENDS, map(_array, _ends(networks, weights)), strict=True))
    about = describe(fitted) | {"format": FORMAT, "steps": steps, "hidden": hidden, "path_weight": None}
    if isinstance(fitted, HybridVAE):
        about["path_weight"], arrays = fitted.weight_, arrays | _path(fitted.linear_.weights_)
    scorer = Scorer(about, arrays)
    check_scores(fitted, lambda row: scorer.recommend(ragged(row), fitted.n_items_, filter_seen=False))
    return Program(about, arrays)


def ragged(rows: sparse.csr_matrix) -> tuple[Array, Array, Array]:
    """The arrays of a CSR matrix: columns (E,), offsets of the rows (B + 1,), values (E,)."""
    return rows.indices, rows.indptr, rows.data


def describe(model: Recommender) -> dict[str, Any]:
    """Metadata of a fitted model, for JSON."""
    return {
        "class": type(model).__name__,
        "version": __version__,
        "n_items": model.n_items_,
        "values": model.values_,
        "item_ids": None if model.item_ids_ is None else model.item_ids_.tolist(),
    }


def check_network(model: Any) -> Autoencoder:
    """Return a snapshot of the model, if it is fitted and ranks by a network.

    Raises
    ------
    InvalidTypeError
    NotFittedError
    NotSupportedError
    """
    name = type(model).__name__
    if not isinstance(model, Recommender):
        raise InvalidTypeError(f"Expected a model of recvae, got {name}.")
    if not isinstance(model, Autoencoder):
        raise NotSupportedError(
            f"{name} has no network to export; MultVAE, MultDAE, RecVAE, HVamp and HybridVAE have one. "
            f"model.save writes models of all kinds."
        )
    if not hasattr(model, "n_items_"):
        raise NotFittedError(f"Expected a fitted {name}; call fit first.")
    return snapshot(model)


def check_scores(model: Recommender, ranking: Callable[[sparse.csr_matrix], tuple[Array, Array]]) -> None:
    """Raise NotSupportedError if a model's scores differ from those of its network, as in a user's own subclass.

    Parameters
    ----------
    ranking : Callable[[sparse.csr_matrix], tuple[Array, Array]]
        A row -> ids and scores (1, I) of all items, including those in the row.
    """
    n_items, n_seen = model.n_items_, min(5, model.n_items_)
    row = sparse.csr_matrix((np.ones(n_seen, np.float32), np.arange(n_seen), [0, n_seen]), shape=(1, n_items))
    expected, found = np.full((2, n_items), np.nan)
    for scores, (ids, values) in (
        (expected, model.recommend([0], row, n_items, filter_already_liked_items=False)),
        (found, ranking(row)),
    ):
        scores[ids[0]] = values[0]
    if not np.allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()):
        raise NotSupportedError(
            f"{type(model).__name__} scores otherwise than its network by itself does, and so cannot be exported."
        )


def export_numpy(model: Any, file: File) -> None:
    """Write a fitted network as an .npz file for `recvae.serving.export.numpy_scorer`, which needs only numpy.

    Parameters
    ----------
    model : Recommender
        A fitted MultVAE, MultDAE, RecVAE, HVamp or HybridVAE.
    file : str or Path or file object
        A path, which is written atomically, or an open binary file. The file contains arrays and JSON, no code, and the
        raw ids of the items if the model has them.

    Raises
    ------
    NotFittedError, InvalidTypeError
        If it is not a fitted model.
    NotSupportedError
        If the model is not a network.
    OutputError
        If the file cannot be written.
    """
    check_file(file, "write")
    description, weights = program(model)
    text = np.frombuffer(json.dumps(description).encode(), dtype=np.uint8)
    arrays: dict[str, Any] = {"description": text, **weights}
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_bytes(file, content.getvalue())


class _PassThrough(nn.Module):
    """Replaces the first layer: returns its input, which already is the output of that layer."""

    def forward(self, h: Tensor, rng: object) -> Tensor:
        return h


class _AfterFirstLayer(nn.Module):
    """The layers after the first ones: their output (B, H) -> the decoders' last hidden states (B, H').

    It uses the networks' parameters, and does not change the networks.
    """

    def __init__(self, networks: Sequence[VAE]):
        super().__init__()
        parameters = [p for network in networks for p in network.parameters()]
        shared = {id(p): nn.Parameter(p.detach().cpu(), requires_grad=False) for p in parameters}
        self.networks = [deepcopy(network, shared) for network in networks]
        for i, network in enumerate(self.networks):
            assert isinstance(network.encoder, nn.Module)
            network.encoder.register_module("bag", _PassThrough())
            self.add_module(f"network{i}", network)

    def forward(self, h: Tensor) -> Tensor:
        parts = h.chunk(len(self.networks), dim=1) if len(self.networks) > 1 else [h]  # first layers have one width
        hidden: list[Tensor] = [
            network.hidden(part)  # type: ignore[arg-type]
            for network, part in zip(self.networks, parts, strict=True)
        ]
        return torch.cat(hidden, 1) if len(hidden) > 1 else hidden[0]


def _networks(model: Autoencoder) -> tuple[list[VAE], list[float]]:
    """The networks whose scores are summed, and their weights."""
    if isinstance(model, HybridVAE) and model.second_ is not None:
        return [model.network_, model.second_.network_], [1.0, model.second_weight_]
    return [model.network_], [1.0]


def _ends(networks: Sequence[VAE], weights: Sequence[float]) -> tuple[Tensor, ...]:
    """Tensors of the first and the last layer of all networks as one, by `ENDS`."""
    bags = [input_layer(network.encoder) for network in networks]
    outputs = [network.decoder.output for network in networks]
    if len(networks) == 1:
        return bags[0].weight, bags[0].bias, *outputs[0]
    return (
        torch.cat([bag.weight for bag in bags], 1),
        torch.cat([bag.bias for bag in bags]),
        torch.cat([factor * weight for factor, (weight, _) in zip(weights, outputs, strict=True)], 1),
        torch.stack([factor * bias for factor, (_, bias) in zip(weights, outputs, strict=True)]).sum(0),
    )


def _trace(networks: Sequence[VAE]) -> tuple[list[list[Any]], str, dict[str, Array]]:
    """Trace networks after their first layers.

    The arguments of a step are names of arrays or of earlier steps, numbers, and lists of these.

    Returns
    -------
    tuple[list[list[Any]], str, dict[str, Array]]
        Steps [name, operator, arguments], the name of the last one, and the arrays that they use.
    """
    example = torch.zeros(2, sum(input_layer(network.encoder).weight.shape[1] for network in networks))
    with torch.enable_grad():  # without gradients, torch would trace products as operators of oneDNN
        exported = torch.export.export(
            _AfterFirstLayer(networks), (example,), dynamic_shapes=({0: torch.export.Dim("B")},), strict=False
        )
    sources = exported.graph_signature.inputs_to_parameters | {exported.graph_signature.user_inputs[0]: "first"}
    names = {node: sources[node.name] for node in exported.graph.nodes if node.name in sources}
    ((hidden,),) = exported.graph.output_node().args
    steps: dict[str, list[Any]] = {}
    last = _follow(hidden, names, steps)
    used = set(sources.values()) & set(_names(list(steps.values()))) - {"first"}
    return list(steps.values()), last, {name: _array(exported.state_dict[name]) for name in sorted(used)}


def _follow(node: fx.Node, names: dict[fx.Node, str], steps: dict[str, list[Any]]) -> str:
    """Append the steps that compute a node to `steps`, in order. -> the name of its value"""
    if node in names:
        return names[node]
    step = getattr(getattr(node.target, "overloadpacket", node.target), "__name__", "")
    arguments: Any = fx.map_arg(list(node.args), lambda source: _follow(source, names, steps))
    if step == "expand_as" or (step == "to" and node.args[1] is torch.float32):  # all is float32, and broadcasts
        names[node] = arguments[0]
        return names[node]
    length = step == "linalg_vector_norm" and node.args[1] != 2
    if node.op != "call_function" or step not in OPERATORS or node.kwargs or length:
        raise NotSupportedError(f"The network has a step that cannot be exported: {node.format_node()}.")
    names[node] = node.name
    steps[node.name] = [node.name, step, arguments]
    return node.name


def _names(argument: Any) -> list[str]:
    """All names among nested arguments."""
    if isinstance(argument, list):
        return [name for part in argument for name in _names(part)]
    return [argument] if isinstance(argument, str) else []


def _path(weights: Tensor | sparse.csr_matrix) -> dict[str, Array]:
    """The arrays of a linear path: "path" if it is dense, three of a CSR matrix if it is sparse."""
    if isinstance(weights, Tensor):
        return {"path": _array(weights)}
    if not weights.has_canonical_format:
        weights = weights.copy()
        weights.sum_duplicates()
    return {"path.data": weights.data, "path.indices": weights.indices, "path.indptr": weights.indptr.astype(np.int64)}


def _array(tensor: Tensor) -> Array:
    array: Array = tensor.detach().cpu().numpy()
    return array
