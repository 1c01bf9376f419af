"""Hyper-parameters are written once, as class attributes: constructor, documentation, checks, files read them there."""

from __future__ import annotations

import dataclasses
import numbers
from collections.abc import Sequence
from typing import Any, TypeVar, dataclass_transform

from recvae.errors import InvalidParameterError, InvalidTypeError, UnknownNameError, shown
from recvae.models.base.spaces import Space, check_space
from recvae.utils.checks import LARGEST_INT

T = TypeVar("T")
LARGEST_FLOAT = 3.4e38  # which float32 can hold


def hyper(
    default: Any,
    why: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: Sequence[str] | None = None,
    kind: type | None = None,
    optional: bool = False,
    run_option: bool = False,
    search: Space | None = None,
) -> Any:
    """Declare a hyper-parameter: its default, one line of why, and its closed range or its choices.

    `kind` is int, float, str or tuple (of integers), by default that of the default value. `optional` admits None. A
    number is finite even where it has no limit: one that float32 holds, or 64 bits. `run_option` marks what belongs to
    the machine rather than to the model, and is not saved with it. `search` is where `recvae.tune` looks for a better
    value: `log`, `uniform` or `whole` of `recvae.models.base.spaces`, or a list.
    """
    if search is not None:
        check_space(search, default, low, high)
    rule = {
        "search": search,
        "why": why,
        "low": low,
        "high": high,
        "choices": choices,
        "kind": kind or (str if choices else type(default)),
    }
    return dataclasses.field(default=default, metadata=rule | {"optional": optional, "run_option": run_option})


def fitted() -> Any:
    """Declare an attribute that `fit` sets; before that the model does not have it."""
    return dataclasses.field(init=False, repr=False)


@dataclass_transform(kw_only_default=True)
def parameters(cls: type[T]) -> type[T]:
    """Class decorator: a keyword constructor that only stores, a repr, and a numpydoc `Parameters` section."""
    # dataclass() puts the signature in the place of an absent docstring, where it would pass for prose
    cls.__doc__ = cls.__dict__.get("__doc__") or f"{cls.__name__}."
    made = dataclasses.dataclass(kw_only=True, eq=False)(cls)
    lines = [
        f"    {f.name} : {_type_text(f)}, default {f.default!r}\n        {_sentence(f.metadata['why'])}"
        for f in _declared(made)
    ]
    if lines:
        made.__doc__ = f"{cls.__doc__.rstrip()}\n\n    Parameters\n    ----------\n" + "\n".join(lines) + "\n"
    return made


def get_params(model: Any, run_options: bool = True) -> dict[str, Any]:
    """The hyper-parameters of a model by name, as its constructor takes them."""
    chosen = (field for field in _declared(model) if run_options or not field.metadata["run_option"])
    return {field.name: getattr(model, field.name) for field in chosen}


def search_space(model: Any) -> dict[str, Space]:
    """Where to search for each hyper-parameter of a model, or of its class, that declares it."""
    return {field.name: field.metadata["search"] for field in _declared(model) if field.metadata["search"] is not None}


def check_params(model: Any) -> None:
    """Raise an error that names the first hyper-parameter outside of its declared kind, range or choices."""
    for field in _declared(model):
        value, rule = getattr(model, field.name), field.metadata
        if value is None and rule["optional"]:
            continue
        owner = f"{type(model).__name__}({field.name}={shown(value)})"
        if rule["choices"] is not None and not (isinstance(value, str) and value in rule["choices"]):
            raise UnknownNameError.among(f"{field.name} of {type(model).__name__}", value, rule["choices"])
        if not isinstance(value, _KINDS[rule["kind"]][0]) or isinstance(value, bool):
            raise InvalidTypeError(f"{owner}: expected {_KINDS[rule['kind']][1]}, got {type(value).__name__}.")
        for number in value if rule["kind"] is tuple else [value]:
            _check_number(owner, number, rule)


def saved_params(model: Any) -> dict[str, type]:
    """The hyper-parameters of a model, or of its class, that a file keeps, and the kind of each."""
    return {field.name: field.metadata["kind"] for field in _declared(model) if not field.metadata["run_option"]}


def params_for_file(model: Any, values: dict[str, Any]) -> dict[str, Any]:
    """Those of `values` that a file keeps, numbers by the kind that is declared: an l2 of 1 is one of 1.0."""
    kept = {name: (kind, values[name]) for name, kind in saved_params(model).items()}
    return {
        name: kind(value) if kind in (int, float) and value is not None else value
        for name, (kind, value) in kept.items()
    }


def parse_param(model: Any, name: str, text: str) -> Any:
    """A hyper-parameter as a command line gives it: "64", "0.5", "600,200" for a tuple, "none"."""
    rule = next(field.metadata for field in _declared(model) if field.name == name)
    if text.lower() == "none" and rule["optional"]:
        return None
    try:
        if rule["kind"] is tuple:
            return tuple(int(part) for part in text.split(",") if part)
        return rule["kind"](text)
    except ValueError as error:
        raise InvalidParameterError(f"Expected {_KINDS[rule['kind']][1]} as {name}, got {shown(text)}.") from error


def param_text(value: Any) -> str:
    """A hyper-parameter as a command line gives it, from which `parse_param` makes it again."""
    if isinstance(value, (tuple, list)):
        return ",".join(str(part) for part in value)
    return "none" if value is None else str(value)


# kind -> what is accepted, and what an error calls it
_KINDS: dict[type, tuple[Any, str]] = {
    int: (numbers.Integral, "an integer"),
    float: (numbers.Real, "a number"),
    str: (str, "a string"),
    tuple: ((tuple, list), "a tuple of integers such as (600,)"),
}


def _declared(model: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(model) if "why" in field.metadata]


def _type_text(field: dataclasses.Field[Any]) -> str:
    """The type of a hyper-parameter as numpydoc writes it, such as "float or None"."""
    kind = field.metadata["kind"]
    return ("tuple of int" if kind is tuple else kind.__name__) + (" or None" if field.metadata["optional"] else "")


def _sentence(why: str) -> str:
    """The reason of a hyper-parameter as a sentence."""
    return why[0].upper() + why[1:].rstrip(".") + "."


def _check_number(owner: str, value: Any, rule: Any) -> None:
    if isinstance(value, str):
        return
    if rule["kind"] is tuple and (not isinstance(value, numbers.Integral) or isinstance(value, bool)):
        raise InvalidTypeError(f"{owner}: expected {_KINDS[tuple][1]}, got {type(value).__name__} in it.")
    low, high = rule["low"], rule["high"]
    largest, holder = (LARGEST_FLOAT, "float32") if rule["kind"] is float else (LARGEST_INT, "64 bits")
    # written so that NaN, which compares false, is refused as well; an integer of any size is compared as it is
    if not (-largest if low is None else low) <= value <= (largest if high is None else high):
        limits = f"of at least {low:g} that {holder} can hold" if high is None else f"from {low:g} to {high:g}"
        raise InvalidParameterError(f"{owner}: expected a value {limits if low is not None else holder + ' can hold'}.")
