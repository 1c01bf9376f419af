"""Exports of models that are networks: ONNX files, files for numpy alone, vectors for an index."""

from recvae.serving.export.onnx_file import export_onnx
from recvae.serving.export.program import export_numpy
from recvae.serving.export.vectors import item_vectors, user_vectors

__all__ = ["export_numpy", "export_onnx", "item_vectors", "user_vectors"]
