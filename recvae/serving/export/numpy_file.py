"""Models for places without torch: one .npz file, which `numpy_scorer` reads."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from recvae.models.base.model_file import File, check_file, write_bytes
from recvae.serving.export.program import program


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
