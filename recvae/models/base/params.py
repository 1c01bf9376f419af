"""Hyper-parameters, declared once as class attributes, which constructor, documentation, checks and files read.

A model is declared with `@parameters`, one hyper-parameter for each `hyper(...)`. Options that belong together go into
a frozen class of their own (`@frozen_parameters`), which the model takes as one parameter (`config`):

    @frozen_parameters
    class TrainingOptions:
        impl: str = hyper("auto", "how the likelihood is computed", choices=("auto", "chunked"))

    @parameters
    class MyVAE(Recommender):
        training: TrainingOptions = config(TrainingOptions, "how the model is trained")

`MyVAE(training=TrainingOptions(impl="chunked"))` sets the option. Its full name is `training__impl`, as in
scikit-learn: `get_params`, `set_params`, `--param`, searches and errors use that. Files keep flat keys (see `file_key`
of `hyper`).
"""

from __future__ import annotations

import dataclasses
import functools
import numbers
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, dataclass_transform

import numpy as np

from recvae.errors import InvalidParameterError, InvalidTypeError, UnknownNameError, shown
from recvae.models.base.spaces import Space, check_space
from recvae.utils.checks import LARGEST_INT

T = TypeVar("T")
LARGEST_FLOAT = 3.4e38  # the largest number that float32 can hold, rounded down


@dataclasses.dataclass(frozen=True)
class Option:
    """The declaration of one hyper-parameter, as `hyper` makes it."""

    why: str
    kind: type
    low: float | None
    high: float | None
    choices: Sequence[str] | None
    optional: bool
    run_option: bool
    search: Space | None
    file_key: str | None
    file_values: Mapping[Any, str]

    def to_file(self, value: Any) -> Any:
        """The value as it is written in files."""
        return self.file_values.get(value, value) if isinstance(value, (str, bool)) else value

    def from_file(self, value: Any) -> Any:
        """The inverse of `to_file`. Raises ValueError for a value that only the code uses."""
        if not isinstance(value, (str, bool)) or not self.file_values:
            return value
        known: dict[Any, Any] = {in_file: ours for ours, in_file in self.file_values.items()}
        if value in self.file_values and value not in known:
            raise ValueError(f"expected one of {', '.join(known)}, got {shown(value)}")
        return known.get(value, value)


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
    file_key: str | None = None,
    file_values: Mapping[Any, str] | None = None,
) -> Any:
    """Declare a hyper-parameter: its default, a one-line description, and its closed range or its choices.

    Parameters
    ----------
    default : object
        The default value.
    why : str
        One line for the documentation.
    low, high : float, optional
        Closed range of a number. Without limits, too, a number must be finite: within float32, or within 64 bits for an
        integer.
    choices : sequence of str, optional
        The values that are allowed.
    kind : {int, float, bool, str, tuple}, optional
        Type of the value (a tuple holds integers); by default str if there are choices, else that of the default value.
    optional : bool
        Whether None is allowed.
    run_option : bool
        Whether it is a setting of the machine rather than of the model, which is not saved with the model.
    search : Range or list, optional
        Search space for `recvae.tune`: `log`, `uniform` or `integers` of `recvae.models.base.spaces`, or a list.
    file_key : str, optional
        Name in model files, results and studies, where it differs from the name in the code.
    file_values : mapping, optional
        Values in these files, by the values in the code, where they differ.
    """
    if search is not None:
        check_space(search, default, low, high)
    kind = kind or (str if choices else type(default))
    option = Option(why, kind, low, high, choices, optional, run_option, search, file_key, file_values or {})
    return dataclasses.field(default=default, metadata={"option": option})


def config(cls: type[T], why: str, *, without: Sequence[str] = (), **defaults: Any) -> Any:
    """Declare a parameter whose value is a config: an instance of a class with `frozen_parameters`.

    Parameters
    ----------
    cls : type
        The class of the config.
    why : str
        One line for the documentation.
    without : sequence of str
        Options of the class that this model does not have. They stay at their defaults.
    **defaults
        Options of the default config that differ from the defaults of the class.
    """
    return dataclasses.field(default=cls(**defaults), metadata={"config": cls, "why": why, "without": without})


def fitted() -> Any:
    """Declare an attribute that `fit` sets; before that the model does not have it."""
    return dataclasses.field(init=False, repr=False)


@dataclass_transform(kw_only_default=True)
def parameters(cls: type[T]) -> type[T]:
    """Class decorator: a keyword constructor that only stores, a repr, and a `Parameters` section in the docstring.

    Scalars of numpy are stored as Python's.
    """
    doc = _own_doc(cls)
    return _documented(dataclasses.dataclass(kw_only=True, eq=False)(cls), doc)


@dataclass_transform(kw_only_default=True, frozen_default=True)
def frozen_parameters(cls: type[T]) -> type[T]:
    """Class decorator of a config: as `parameters`, but immutable and equal by value; its repr omits defaults."""

    def changed_only(self: Any) -> str:
        values = {field.name: getattr(self, field.name) for field in _declared(self) if _is_changed(self, field)}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in values.items())})"

    doc = _own_doc(cls)
    cls.__repr__ = changed_only  # type: ignore[method-assign]
    return _documented(dataclasses.dataclass(kw_only=True, frozen=True, repr=False)(cls), doc)


def options(model: Any) -> dict[str, Option]:
    """All hyper-parameters of a model, or of its class, by name; options of a config as `training__impl`."""
    declared: dict[str, Option] = {}
    for field in _declared(model):
        if "config" in field.metadata:
            declared |= {f"{field.name}__{name}": option for name, option in _nested(field).items()}
        else:
            declared[field.name] = field.metadata["option"]
    return declared


def get_params(model: Any, deep: bool = False) -> dict[str, Any]:
    """The hyper-parameters of a model by name, as its constructor takes them; `deep` adds the options of configs."""
    values = {field.name: getattr(model, field.name) for field in _declared(model)}
    if deep:
        for field in _declared(model):
            name = field.name
            if "config" in field.metadata and isinstance(values[name], field.metadata["config"]):
                values |= {f"{name}__{option}": getattr(values[name], option) for option in _nested(field)}
    return values


def changed_params(model: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor arguments that change: `training__impl` gives a new `training`. Raises UnknownNameError."""
    known = get_params(model, deep=True)
    for name in changes:
        if name not in known:
            raise unknown_param(name, model)
    changes = {name: _without_numpy(value) for name, value in changes.items()}
    changed = {name: value for name, value in changes.items() if "__" not in name}
    for name, value in changes.items():
        outer, _, option = name.partition("__")
        if option:
            changed[outer] = dataclasses.replace(changed.get(outer, known[outer]), **{option: value})
    return changed


def with_params(model: T, changes: Mapping[str, Any]) -> T:
    """An unfitted model of the same class, with some hyper-parameters changed; names as in `set_params`."""
    return type(model)(**get_params(model) | changed_params(model, changes))


def unknown_param(name: str, *models: Any) -> UnknownNameError:
    """The error for an unknown hyper-parameter of these models, or classes; it names the full name of an option."""
    classes = [model if isinstance(model, type) else type(model) for model in models]
    kind = f"hyper-parameter of {classes[0].__name__}" if len(classes) == 1 else "hyper-parameter"
    full = next((full for full in (_in_config(cls, name) for cls in classes) if full), None)
    if full is not None:
        return UnknownNameError(f"There is no {kind} called {shown(name)}; it is {full}.")
    return UnknownNameError.among(kind, name, {known for cls in classes for known in options(cls)})


def search_space(model: Any) -> dict[str, Space]:
    """The search space of each hyper-parameter of a model, or of its class, that declares one."""
    return {name: option.search for name, option in options(model).items() if option.search is not None}


def check_params(model: Any) -> None:
    """Raise an error for the first hyper-parameter that is outside of its declared type, range or choices."""
    for field in _declared(model):
        value = getattr(model, field.name)
        if "config" not in field.metadata:
            _check(type(model).__name__, field.name, value, field.metadata["option"])
            continue
        cls = field.metadata["config"]
        if not isinstance(value, cls):
            raise InvalidTypeError(
                f"{type(model).__name__}({field.name}={shown(value)}): expected {cls.__name__}(...), got "
                f"{type(value).__name__}."
            )
        for name, option in options(cls).items():
            _check(type(model).__name__, f"{field.name}__{name}", getattr(value, name), option)
            if name in field.metadata["without"] and getattr(value, name) != getattr(field.default, name):
                raise InvalidParameterError(
                    f"{type(model).__name__}({field.name}__{name}={shown(getattr(value, name))}): this model does not "
                    f"have that option; leave it out."
                )


def flat_params(model: Any, run_options: bool = True) -> dict[str, Any]:
    """The hyper-parameters of a model as a flat dictionary, with the keys and values that files use."""
    return _flat(model, get_params(model), run_options)


def file_keys(model: Any) -> dict[str, str]:
    """The key in files of each hyper-parameter of a model, or of its class, by its name."""
    return {name: _file_key(name, option) for name, option in options(model).items()}


def params_for_file(model: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `values` that a model file keeps, numbers in their declared type: l2=1 becomes 1.0.

    values : the constructor's arguments by name
    """
    kinds = {_file_key(name, option): option.kind for name, option in options(model).items()}
    return {
        key: kinds[key](value) if kinds[key] in (int, float) and value is not None else value
        for key, value in _flat(model, values, run_options=False).items()
    }


def params_from_file(cls: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's arguments from those of a file. Raises ValueError for keys that a file may not set."""
    known = {_file_key(name, option): (name, option) for name, option in options(cls).items() if not option.run_option}
    arguments: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"it has no hyper-parameter {shown(key)} that a file may set")
        name, option = known[key]
        outer, _, inner = name.partition("__")
        if inner:
            nested.setdefault(outer, {})[inner] = option.from_file(value)
        else:
            arguments[name] = option.from_file(value)
    defaults: dict[str, Any] = {field.name: field.default for field in _declared(cls)}
    return arguments | {name: dataclasses.replace(defaults[name], **changes) for name, changes in nested.items()}


def parse_param(model: Any, name: str, text: str) -> Any:
    """Parse a hyper-parameter from a command line: "64", "0.5", "600,200" for a tuple, "none".

    Raises UnknownNameError, InvalidParameterError.
    """
    known = options(model)
    inner = [full for full in known if full.startswith(f"{name}__")]
    if inner:
        raise InvalidParameterError(f"Expected one option of {name}, such as {inner[0]}, got {name}.")
    if name not in known:
        raise unknown_param(name, model)
    option = known[name]
    if text.lower() == "none" and option.optional:
        return None
    try:
        if option.kind is tuple:
            return tuple(int(part) for part in text.split(",") if part)
        if option.kind is bool:
            return {"true": True, "false": False}[text.lower()]
        return option.kind(text)
    except (ValueError, KeyError) as error:
        raise InvalidParameterError(f"Expected {_KINDS[option.kind][1]} as {name}, got {shown(text)}.") from error


def param_text(value: Any) -> str:
    """Format a hyper-parameter for a command line; `parse_param` is the inverse."""
    if isinstance(value, (tuple, list)):
        return ",".join(str(part) for part in value)
    return "none" if value is None else str(value)


# type -> classes that are accepted, and its name in errors
_KINDS: dict[type, tuple[Any, str]] = {
    int: (numbers.Integral, "an integer"),
    float: (numbers.Real, "a number"),
    bool: (bool, "True or False"),
    str: (str, "a string"),
    tuple: ((tuple, list), "a tuple of integers such as (600,)"),
}


def _declared(model: Any) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(model) if field.metadata.keys() & {"option", "config"}]


def _nested(field: dataclasses.Field[Any]) -> dict[str, Option]:
    """The options of a config, without those that the model does not have."""
    known = options(field.metadata["config"])
    return {name: option for name, option in known.items() if name not in field.metadata["without"]}


def _is_changed(config: Any, field: dataclasses.Field[Any]) -> bool:
    return bool(getattr(config, field.name) != field.default)


def _file_key(name: str, option: Option) -> str:
    return option.file_key or name.rpartition("__")[2]


def _flat(model: Any, values: Mapping[str, Any], run_options: bool) -> dict[str, Any]:
    """Constructor arguments by their keys in files."""
    flat = {}
    for name, option in options(model).items():
        if run_options or not option.run_option:
            outer, _, inner = name.partition("__")
            flat[_file_key(name, option)] = option.to_file(getattr(values[outer], inner) if inner else values[outer])
    return flat


def _without_numpy(value: Any) -> Any:
    """Numbers of numpy as Python's, whose arithmetic does not overflow: `2 * np.uint8(200)` is 144."""
    if isinstance(value, (tuple, list)):
        return type(value)(map(_without_numpy, value)) if any(isinstance(part, np.generic) for part in value) else value
    return value.item() if isinstance(value, np.generic) else value


def _own_doc(cls: type) -> str:
    """The docstring of a class, or its name: without one, dataclass() would generate it from the signature."""
    cls.__doc__ = cls.__dict__.get("__doc__") or f"{cls.__name__}."
    return cls.__doc__


def _documented(cls: type[T], doc: str) -> type[T]:
    """Add a Parameters section, before the other sections, and a constructor that refuses unknown keywords by name."""
    lines = [
        f"    {field.name} : {_type_text(field)}, default {field.default!r}\n        {_sentence(_why(field))}"
        for field in _declared(cls)
    ]
    if lines:
        section = "    Parameters\n    ----------\n" + "\n".join(lines) + "\n"
        prose, *sections = re.split(r"\n(?= {4}\w[\w ]*\n {4}-{3,}\n)", doc.rstrip(), maxsplit=1)
        cls.__doc__ = "\n".join([f"{prose.rstrip()}\n", section, *sections]) + ("\n" if sections else "")

    store = cls.__init__

    @functools.wraps(store)
    def __init__(self: Any, *args: Any, **values: Any) -> None:  # noqa: N807
        known = {field.name for field in _declared(cls)}
        for name in values:
            if name not in known:
                raise _unknown_keyword(cls, name)
        store(self, *args, **{name: _without_numpy(value) for name, value in values.items()})

    cls.__init__ = __init__  # type: ignore[method-assign]
    return cls


def _in_config(cls: type, name: str) -> str | None:
    """The full name of an option of a config, from its name alone or its key in files, or None."""
    nested = {full: option for full, option in options(cls).items() if "__" in full}
    return next((f for f, option in nested.items() if name in (f.rpartition("__")[2], _file_key(f, option))), None)


def _unknown_keyword(cls: type, name: str) -> InvalidTypeError:
    full = name if name in options(cls) else _in_config(cls, name)
    if full is None:
        return InvalidTypeError(str(unknown_param(name, cls)))
    outer, _, inner = full.partition("__")
    config_class = next(field.metadata["config"] for field in _declared(cls) if field.name == outer)
    return InvalidTypeError(
        f"{cls.__name__} takes no keyword {name}; give {outer}={config_class.__name__}({inner}=...), or "
        f"set_params({full}=...)."
    )


def _why(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata["why"] if "config" in field.metadata else field.metadata["option"].why)


def _type_text(field: dataclasses.Field[Any]) -> str:
    """The type of a parameter as numpydoc writes it, such as "float or None"."""
    if "config" in field.metadata:
        return str(field.metadata["config"].__name__)
    option: Option = field.metadata["option"]
    if option.choices is not None:
        # not numpydoc's {"a", "b"}: mkdocstrings takes the first of these for the default
        return " or ".join(map(repr, [*option.choices, *([None] if option.optional else [])]))
    return ("tuple of int" if option.kind is tuple else option.kind.__name__) + (" or None" if option.optional else "")


def _sentence(why: str) -> str:
    """The description of a hyper-parameter as a sentence."""
    return why[0].upper() + why[1:].rstrip(".") + "."


def _check(owner: str, name: str, value: Any, option: Option) -> None:
    if value is None and option.optional:
        return
    call = f"{owner}({name}={shown(value)})"
    if option.choices is not None and not (isinstance(value, str) and value in option.choices):
        raise UnknownNameError.among(f"{name} of {owner}", value, option.choices)
    accepted, words = _KINDS[option.kind]
    if not isinstance(value, accepted) or (isinstance(value, bool) and option.kind is not bool):
        raise InvalidTypeError(f"{call}: expected {words}, got {type(value).__name__}.")
    for number in value if option.kind is tuple else [value]:
        _check_number(call, number, option)


def _check_number(call: str, value: Any, option: Option) -> None:
    if isinstance(value, (str, bool)) and option.kind is not tuple:
        return
    if option.kind is tuple and (not isinstance(value, numbers.Integral) or isinstance(value, bool)):
        raise InvalidTypeError(f"{call}: expected {_KINDS[tuple][1]}, got {type(value).__name__} in it.")
    low, high = option.low, option.high
    largest, holder = (LARGEST_FLOAT, "float32") if option.kind is float else (LARGEST_INT, "64 bits")
    # written so that NaN, which compares false, is refused as well; integers of any size are compared exactly
    if not (-largest if low is None else low) <= value <= (largest if high is None else high):
        limits = f"of at least {low:g} that {holder} can hold" if high is None else f"from {low:g} to {high:g}"
        raise InvalidParameterError(f"{call}: expected a value {limits if low is not None else holder + ' can hold'}.")
