"""Model files: tensors and a JSON description in one safetensors file. Nothing in it is ever executed."""

from __future__ import annotations

import hashlib
import inspect
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from torch import Tensor

import recvae.models
from recvae.data.ids import id_array
from recvae.data.names import VALUES
from recvae.data.weight_spec import preparation_from_file
from recvae.errors import (
    DataNotFoundError,
    InvalidDataError,
    InvalidTypeError,
    OutputError,
    UnknownNameError,
    shown,
)
from recvae.models.base.file_tensors import describe_tensor
from recvae.models.base.params import check_params, get_params, params_for_file, params_from_file
from recvae.utils.checks import check_integer
from recvae.utils.device import find_device
from recvae.utils.files import write_whole
from recvae.utils.finite import all_finite
from recvae.utils.gradients import with_gradients
from recvae.utils.memory import require_memory
from recvae.utils.paths import input_path, output_path
from recvae.utils.tensor_file import (
    DTYPES,
    NAMES,
    packed,
    raw_bytes,
    read_header,
    read_tensors,
    refuse_constant,
    tensor_entries,
)
from recvae.version import __version__

if TYPE_CHECKING:
    from recvae.models.base import Recommender

FORMAT = 1
HEADER = 100_000_000  # upper limit of the header of a safetensors file, in bytes
File = str | os.PathLike[str] | BinaryIO
MAX_ITEMS = 2**31 - 1  # lists of items are int32


def save(model: Recommender, file: File) -> None:
    """See `Recommender.save`."""
    model._check_fitted()
    description = {
        "class": type(model).__name__,
        "parameters": params_for_file(model, model.params_),
        "values": model.values_,
        "n_items": model.n_items_,
        "item_ids": None if model.item_ids_ is None else model.item_ids_.tolist(),
        "titles": None if model.titles_ is None else model.titles_.tolist(),
        "trained_on": model.trained_on_,
        "version": __version__,
    }
    if model.preparation_:
        description["preparation"] = model.preparation_
    write_model(file, model._tensors(), description)


@with_gradients()  # a model that a service has loaded can be trained further
def load(file: File, device: str | None = None) -> Recommender:
    """Read a model that `save` wrote, with its hyper-parameters, ids and titles.

    Parameters
    ----------
    file : str, Path or binary file
        A path, or an open binary file.
    device : str, optional
        Torch device for models that have a network, such as "cpu"; by default a GPU if there is one, regardless of
        where the model was fitted. Other models are on the CPU.

    Returns
    -------
    Recommender
        The fitted model. A class of your own is found once its module has been imported.

    Raises
    ------
    DataNotFoundError
    InvalidDataError
        For a damaged file, or one that is not a model file of recvae.
    NotEnoughMemoryError
        For a file that is larger than the available memory.
    UnknownNameError
        For a model class that is not known in this process.
    InvalidParameterError
        For a device that does not exist.

    Notes
    -----
    A file is data; nothing in it is executed. The sizes that its header claims are checked before memory is allocated.
    It can set only finite numbers and hyper-parameters within their ranges, and not the device.
    """
    if device is not None:
        find_device(device)
    tensors, description = read_model(file)
    name = description.get("class")
    cls = _model_class(name)
    try:
        model: Any = cls(**_params(cls, description["parameters"], len(tensors)))
        if device is not None and hasattr(model, "device"):
            model.device = device
        check_params(model)
        state = _state(description)
        state |= model._restore(tensors, state["n_items_"]) | {"params_": get_params(model)}
    except (TypeError, LookupError, ValueError, AttributeError, RuntimeError, ArithmeticError, MemoryError) as error:
        raise InvalidDataError(
            f"The file holds a {name} that this version of recvae, {__version__}, cannot restore: {error}"
        ) from error
    model.__dict__.update(state)
    return model


def load_class(cls: type[Recommender], file: File, device: str | None) -> Recommender:
    """As `load`; also raises InvalidDataError for a model of another class."""
    model = load(file, device)
    if not isinstance(model, cls):
        raise InvalidDataError(
            f"Expected a file of a {cls.__name__}, got one of a {type(model).__name__}; recvae.load reads any."
        )
    return model


def _model_class(name: Any) -> type[Recommender]:
    """The class of this name; user-defined classes come first. Raises UnknownNameError."""
    from recvae.models.base import Recommender

    known: dict[str, Any] = {name: cls for name, cls in Recommender.registry.items() if not inspect.isabstract(cls)}
    if not isinstance(name, str) or name not in known:  # it may be a class of recvae not imported yet
        builtin = {name: cls for name, cls in recvae.models.all_models().items() if not inspect.isabstract(cls)}
        known = builtin | known
    if not isinstance(name, str) or name not in known:
        raise UnknownNameError.among("model class", name, known)
    cls: type[Recommender] = known[name]
    return cls


def _params(model: type, values: dict[str, Any], n_tensors: int) -> dict[str, Any]:
    """Constructor arguments from a file's parameters: no run options, no list (of widths) longer than `n_tensors`."""
    if any(isinstance(value, list) and len(value) > n_tensors for value in values.values()):
        raise ValueError(f"there are more layers than its {n_tensors} tensors make")
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    return params_from_file(model, values)


def _state(description: dict[str, Any]) -> dict[str, Any]:
    """The attributes that `fit` sets in every model, from a file. Raises ValueError or KeyError for invalid ones."""
    n_items = check_integer("n_items", description["n_items"], 1, MAX_ITEMS)
    values, trained_on = description["values"], description["trained_on"]
    if values not in VALUES or not isinstance(trained_on, str | None):
        raise ValueError(f"values are read as {shown(values)}, trained on {shown(trained_on)}")
    state: dict[str, Any] = {"n_items_": n_items, "values_": values, "trained_on_": trained_on}
    state["preparation_"] = preparation_from_file(description.get("preparation", {}))
    for name in ("item_ids", "titles"):
        texts = description[name]
        if texts is not None and (not isinstance(texts, list) or len(texts) != n_items):
            raise ValueError(f"there are {name} for another number of items than {n_items}")
        state[f"{name}_"] = None if texts is None else id_array(texts, name)
    ids = description["item_ids"]
    if (ids is not None and len(set(ids)) != n_items) or not _all_text(description["titles"] or []):
        raise ValueError("there are item_ids that are not distinct, or titles that are no text")
    return state


def _all_text(values: list[Any]) -> bool:
    return all(isinstance(value, str) for value in values)


def write_model(file: File, tensors: Mapping[str, Tensor], description: dict[str, Any]) -> None:
    """Write to a path, atomically, or to an open binary file: the same bytes for the same model, in any process.

    Raises
    ------
    OutputError
    InvalidDataError
        For ids and titles that are too long, numbers that are not finite, and types of tensors that `read_model`
        refuses.
    """
    check_file(file, "write")
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    for name, tensor in plain.items():
        check_numbers(tensor, name)
    text = json.dumps(description | {"format": FORMAT}, default=lambda number: number.item())  # numpy scalars
    header, body = packed(plain, {"recvae": text, "sha256": _checksum(plain, text)})
    if len(header) > HEADER:
        raise InvalidDataError(f"Expected ids and titles of at most {HEADER:,} bytes, got more; save without titles.")
    write_bytes(file, b"".join([header, *body]))


def write_bytes(file: File, content: bytes) -> None:
    """Write to a path, atomically, or to an open binary file. Raises InvalidTypeError, OutputError."""
    target = check_file(file, "write")
    if isinstance(target, Path):
        write_whole(target, content)
        return
    try:
        written = target.write(content)
        while isinstance(written, int) and written < len(content):  # an unbuffered file may write a part only
            more = target.write(memoryview(content)[written:])
            if not more:
                raise OSError(0, f"it took {written:,} of {len(content):,} bytes")
            written += more
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"Expected an open binary file that can be written, got {_called(target)}: {reason}."
        ) from error


def check_file(file: File, verb: str) -> Path | BinaryIO:
    """Check that `file` is a path that can be read or written, or an open binary file. `verb`: "read" or "write".

    Raises
    ------
    InvalidTypeError
        For any other object, and for a file that was opened as text.
    RecvaeError
        As `recvae.utils.paths` does.
    """
    if isinstance(file, (str, os.PathLike)):
        return input_path(file) if verb == "read" else output_path(file)
    if not hasattr(file, verb):
        raise InvalidTypeError(f"Expected a path or an open binary file, got {type(file).__name__}.")
    if hasattr(file, "encoding"):
        raise InvalidTypeError(f"Expected a file opened as binary, got {_called(file)}, which is open as text.")
    return file


def _called(file: BinaryIO) -> str:
    """The name of an open file, for messages."""
    return str(getattr(file, "name", "the open file"))


def read_model(file: File) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model file that `write_model` wrote.

    The sizes in the header are compared with the size of the file, if `file` is a path, before anything else is read.

    Returns
    -------
    tuple[dict[str, Tensor], dict[str, Any]]
        (tensors, description).

    Raises
    ------
    DataNotFoundError
        If there is no such file.
    InvalidDataError
        If it is damaged, not a model file of recvae or of another format, or contains numbers that are not finite.
    NotEnoughMemoryError
        If it is larger than the available memory.
    """
    file = check_file(file, "read")
    name = str(file) if isinstance(file, (str, Path)) else str(getattr(file, "name", "the open file"))
    try:
        if isinstance(file, (str, Path)):
            with Path(file).open("rb") as stream:
                tensors, metadata = _content(stream, name, os.fstat(stream.fileno()).st_size)
        else:
            tensors, metadata = _content(file, name)
    except OSError as error:
        raise DataNotFoundError(f"Expected a model file at {name}, got: {error.strerror or error}.") from error
    try:
        description = json.loads(metadata["recvae"], parse_constant=refuse_constant)
        if not isinstance(description, dict):
            raise ValueError("its description is none")
        intact = metadata["sha256"] == _checksum(tensors, metadata["recvae"])
    except (ValueError, RecursionError) as error:
        raise _foreign(name, error) from error
    known = description.get("format")
    if type(known) is not int or known != FORMAT:
        raise InvalidDataError(
            f"Expected a model file of format {FORMAT}, got {shown(known)} in {name}; load it with recvae "
            f"{shown(description.get('version', 'of its time')).strip(chr(39))}."
        )
    if not intact:
        raise InvalidDataError(f"The model file {name} is damaged: its content does not fit its checksum.")
    for entry, tensor in tensors.items():
        check_numbers(tensor, entry)
    return tensors, description


def content_checksum(content: bytes) -> str:
    """The checksum stored in a model file: the same for the same model and version of recvae."""
    checksum: str = _header(io.BytesIO(content), "the open file")["__metadata__"]["sha256"]
    return checksum


def check_numbers(tensor: Tensor, name: str) -> None:
    """Raise InvalidDataError for a tensor of a type that files cannot have, or with numbers that are not finite."""
    kind = describe_tensor(tensor)
    if tensor.dtype not in NAMES:
        raise InvalidDataError(f"Expected {name} of one of the types {', '.join(DTYPES)}, got {kind}.")
    if not all_finite(tensor):
        raise InvalidDataError(f"Expected finite numbers as {name}, got NaN or an infinity in {kind}.")


def _content(stream: BinaryIO, name: str, size: int | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file and the header's text entries; nothing is read after an invalid header."""
    header = _header(stream, name)
    try:
        entries = tensor_entries(header)
        total = sum(entry.size for entry in entries)
        if size is not None and size != stream.tell() + total:
            raise ValueError(f"it has {size:,} bytes, where its header names {stream.tell() + total:,}")
    except (ValueError, KeyError, TypeError) as error:
        raise _foreign(name, error) from error
    require_memory(total, f"the model file {name}", "a machine with more memory")
    try:
        return read_tensors(stream, entries), header["__metadata__"]
    except (ValueError, TypeError, RuntimeError, MemoryError) as error:
        raise _foreign(name, error) from error


def _header(stream: BinaryIO, name: str) -> dict[str, Any]:
    try:
        header = read_header(stream, HEADER)
        if not all(isinstance(header["__metadata__"][entry], str) for entry in ("recvae", "sha256")):
            raise TypeError("its entries are no text")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _foreign(name, error) from error
    return header


def _foreign(name: str, error: Exception) -> InvalidDataError:
    return InvalidDataError(f"Expected a model file of recvae, got {name}, which is damaged or another: {error}.")


def _checksum(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(raw_bytes(tensor))
    return digest.hexdigest()
