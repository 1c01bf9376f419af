"""Scores from the tensors of a model file, in plain numpy: none of the package's code is in it.

Each is computed in float64, and in float32 to know how much rounding may matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Tensors = Mapping[str, Array]


def scores(about: Mapping[str, Any], tensors: Tensors, rows: Array, users: Array) -> tuple[Array, Array]:
    """Scores of all items for dense rows, and by how much they may be off. -> (B, I), (B, I)

    about : the description of the file; tensors : by name; rows : (B, I) values as they came
    users : (B,) rows of the training, for models that know these alone
    """
    x = {"binary": lambda v: (v > 0) * 1.0, "log1p": np.log1p, "raw": np.asarray}[about["values"]](rows)
    with np.errstate(all="ignore"):
        exact, size = _scores(about, tensors, x, users, np.float64)
        rough, _ = _scores(about, tensors, x, users, np.float32)
        margin = 1e-5 * size + 20 * np.abs(exact - rough) + 1e-6
    exact = np.where(np.isnan(exact), 0, exact)
    return exact, np.where(np.isneginf(exact), 0, margin)


def _scores(about: Mapping[str, Any], tensors: Tensors, x: Array, users: Array, kind: Any) -> tuple[Array, Array]:
    """-> scores, and the sum of the sizes of what they are sums of"""
    t = {name: tensor.astype(kind if tensor.dtype.kind == "f" else tensor.dtype) for name, tensor in tensors.items()}
    x = x.astype(kind)
    name, params = about["class"], about["parameters"]
    if name == "Popularity":
        return np.repeat(t["item_counts"][None], len(x), 0), np.repeat(np.abs(t["item_counts"])[None], len(x), 0)
    if name in ("EASE", "EDLAE"):
        return _path(t, x)
    if name in ("ItemKNN", "P3alpha", "RP3beta", "SLIM"):
        found, size = _path({part: t[part] for part in ("data", "indices", "indptr")}, x)
        return np.where(found == 0, -np.inf, found), size
    if name == "GFCF":
        (found, size), (more, more_size) = _path(t, x), _products(x @ t["encoder"], t["decoder"])
        return found + more, size + more_size
    if name in ("BPR", "LMF"):
        return _products(t["user_factors"][users], t["item_factors"])
    if name == "ALS":
        return _products(_als(t["item_factors"], x, params, kind), t["item_factors"])
    found, size = NETWORKS[name](t, x, params)
    if name == "HybridVAE":
        path = {key.removeprefix("linear."): value for key, value in t.items() if key.startswith("linear.")}
        more, more_size = _path(path, x)
        return found + t["weight"] * more, size + np.abs(t["weight"]) * more_size
    return found, size


def _products(left: Array, right: Array) -> tuple[Array, Array]:
    return left @ right.T, np.abs(left) @ np.abs(right).T


def _path(t: Tensors, x: Array) -> tuple[Array, Array]:
    weights = t["weights"] if "weights" in t else dense(t["data"], t["indices"], t["indptr"], x.shape[1])
    return x @ weights, np.abs(x) @ np.abs(weights)


def dense(data: Array, indices: Array, indptr: Array, n_columns: int) -> Array:
    """A CSR matrix as a dense array, cell by cell."""
    made = np.zeros((len(indptr) - 1, n_columns), data.dtype)
    for row in range(len(indptr) - 1):
        for place in range(int(indptr[row]), int(indptr[row + 1])):
            if place < 0 or indices[place] < 0:
                raise IndexError("a negative index")
            made[row, int(indices[place])] += data[place]
    return made


def _als(factors: Array, x: Array, params: Mapping[str, Any], kind: Any) -> Array:
    """Hu, Koren & Volinsky 2008, equation 4, with confidence alpha x."""
    found = np.zeros((len(x), factors.shape[1]), kind)
    for user, row in enumerate(x):
        confidence = row * kind(params["alpha"])
        some = confidence > 0
        mine = factors[some]
        left = factors.T @ factors + mine.T @ ((confidence[some] - 1)[:, None] * mine)
        left += kind(params["regularization"]) * np.eye(factors.shape[1], dtype=kind)
        try:
            found[user] = np.linalg.solve(left, mine.T @ confidence[some])
        except np.linalg.LinAlgError:
            found[user] = np.nan
    return found


# networks ------------------------------------------------------------------------------------------------------------


def _first(t: Tensors, x: Array) -> Array:
    """The row at unit norm, times the first layer; a row of nothing gives the bias."""
    norms = np.sqrt((x * x).sum(1, keepdims=True))
    return (x / np.where(norms == 0, 1, norms).astype(x.dtype)) @ t["encoder.bag.weight"] + t["encoder.bag.bias"]


def _linear(t: Tensors, name: str, h: Array) -> Array:
    return h @ t[f"{name}.weight"].T + t[f"{name}.bias"]


def _sigmoid(h: Array) -> Array:
    return 1 / (1 + np.exp(-h))


def _glu(h: Array) -> Array:
    half = h.shape[1] // 2
    return h[:, :half] * _sigmoid(h[:, half:])


def _silu(h: Array) -> Array:
    return h * _sigmoid(h)


def _norm(t: Tensors, name: str, h: Array) -> Array:
    centred = h - h.mean(1, keepdims=True)
    spread = np.sqrt((centred * centred).mean(1, keepdims=True) + 0.1)
    return centred / spread * t[f"{name}.weight"] + t[f"{name}.bias"]


def _mean(h: Array) -> Array:
    return h[:, : h.shape[1] // 2]


def _out(t: Tensors, h: Array, params: Mapping[str, Any]) -> tuple[Array, Array]:
    weight, bias = t["decoder.weight"], t["decoder.bias"]
    if params.get("logits") == "cosine":
        h = _unit(h) / h.dtype.type(params["temperature"])
        weight = _unit(weight)
    found, size = _products(h, weight)
    return found + bias, size + np.abs(bias)


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.sqrt((vectors * vectors).sum(1, keepdims=True)), 1e-12)


def _decoded(t: Tensors, z: Array, activation: Any) -> Array:
    layer = 0
    while f"decoder.hidden.{layer}.weight" in t:
        z = activation(_linear(t, f"decoder.hidden.{layer}", z))
        layer += 1
    return z


def _tanh_encoder(t: Tensors, x: Array) -> Array:
    h, layer = _first(t, x), 0
    while f"encoder.layers.{layer}.weight" in t:
        h = _linear(t, f"encoder.layers.{layer}", np.tanh(h))
        layer += 1
    return h


def _mult_vae(t: Tensors, x: Array, params: Mapping[str, Any]) -> tuple[Array, Array]:
    return _out(t, _decoded(t, _mean(_tanh_encoder(t, x)), np.tanh), params)


def _mult_dae(t: Tensors, x: Array, params: Mapping[str, Any]) -> tuple[Array, Array]:
    return _out(t, _decoded(t, np.tanh(_tanh_encoder(t, x)), np.tanh), params)


def _rec_vae(t: Tensors, x: Array, params: Mapping[str, Any]) -> tuple[Array, Array]:
    h = total = _norm(t, "encoder.norms.0", _silu(_first(t, x)))
    layer = 0
    while f"encoder.layers.{layer}.weight" in t:
        h = _norm(t, f"encoder.norms.{layer + 1}", _silu(_linear(t, f"encoder.layers.{layer}", h) + total))
        total = total + h
        layer += 1
    return _out(t, _mean(_linear(t, "encoder.last", h)), params)


def _h_vamp(t: Tensors, x: Array, params: Mapping[str, Any]) -> tuple[Array, Array]:
    h, layer = _glu(_first(t, x)), 0
    while f"encoder.layers.{layer}.weight" in t:
        h = _glu(_linear(t, f"encoder.layers.{layer}", h))
        layer += 1
    upper = _mean(_linear(t, "encoder.upper", h))
    joint = _glu(_linear(t, "encoder.joint", np.concatenate([h, upper], 1)))
    lower = _mean(_linear(t, "encoder.lower", joint))
    return _out(t, _decoded(t, np.concatenate([lower, upper], 1), _glu), params)


NETWORKS = {"MultVAE": _mult_vae, "MultDAE": _mult_dae, "RecVAE": _rec_vae, "HybridVAE": _rec_vae, "HVamp": _h_vamp}


# exported programs ---------------------------------------------------------------------------------------------------


def program_scores(about: Mapping[str, Any], arrays: Tensors, rows: Array) -> tuple[Array, Array]:
    """Scores of an exported model: its steps taken by an interpreter of our own. -> (B, I), (B, I)"""
    x = {"binary": lambda v: (v > 0) * 1.0, "log1p": np.log1p, "raw": np.asarray}[about["values"]](rows)
    with np.errstate(all="ignore"):
        exact, size = _program(about, arrays, x, np.float64)
        rough, _ = _program(about, arrays, x, np.float32)
        margin = 1e-4 * size + 20 * np.abs(exact - rough) + 1e-6
    return np.where(np.isnan(exact), 0, exact), margin


def _program(about: Mapping[str, Any], arrays: Tensors, x: Array, kind: Any) -> tuple[Array, Array]:
    known: dict[str, Any] = {
        name: array.astype(kind) if array.dtype.kind == "f" else array for name, array in arrays.items()
    }
    x = x.astype(kind)
    norms = np.sqrt((x * x).sum(1, keepdims=True))
    known["first"] = (x / np.where(norms == 0, 1, norms)) @ known["first.weight"] + known["first.bias"]
    for name, step, arguments in about["steps"]:
        known[name] = _step(step, [_given(each, known) for each in arguments])
    hidden = known[about["hidden"]]
    found, size = _products(hidden, known["last.weight"])
    found, size = found + known["last.bias"], size + np.abs(known["last.bias"])
    if about["path_weight"] is not None:
        path = {"weights": known["path"]} if "path" in known else {}
        path = path or {part: known[f"path.{part}"] for part in ("data", "indices", "indptr")}
        more, more_size = _path(path, x)
        return found + about["path_weight"] * more, size + abs(about["path_weight"]) * more_size
    return found, size


def _given(argument: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(argument, list):
        return [_given(each, known) for each in argument]
    return known[argument] if isinstance(argument, str) else argument


def _step(name: str, a: list[Any]) -> Any:
    """torch's operators, as its documentation has them."""
    if name == "linear":
        return np.einsum("bi,oi->bo", a[0], a[1]) + a[2]
    if name == "tanh":
        return (1 - np.exp(-2 * np.abs(a[0]))) / (1 + np.exp(-2 * np.abs(a[0]))) * np.sign(a[0])
    if name == "silu":
        return _silu(a[0])
    if name == "glu":
        return _glu(a[0])
    if name == "add":
        return a[0] + a[1]
    if name == "div":
        return a[0] / a[1]
    if name == "cat":
        return np.hstack(a[0])
    if name == "chunk":
        width = -(-a[0].shape[a[2]] // a[1])  # torch's: all of one width but the last
        return np.split(a[0], range(width, a[0].shape[a[2]], width), axis=a[2])
    if name == "getitem":
        return a[0][a[1]]
    if name == "clamp_min":
        return np.maximum(a[0], a[1])
    if name == "linalg_vector_norm":
        return np.sqrt((a[0] * a[0]).sum(a[2][0], keepdims=True))
    if name == "layer_norm":
        centred = a[0] - a[0].mean(-1, keepdims=True)
        return centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + a[4]) * a[2] + a[3]
    raise KeyError(name)
