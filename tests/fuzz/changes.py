"""Changes of trees such as JSON and TOML hold, and of bytes."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

from tests.fuzz.judging import Random

DEEP = "@deep@"  # becomes a hundred thousand brackets in the text: more than a parser that recurses can follow
HUGE = "@huge@"  # becomes a number of 6,000 digits: more than Python reads
NUMBERS: list[Any] = [
    *(0, 1, -1, 2, 3, 7, 8, 9, 255, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63)),
    *(10**9, 10**12, 10**30, 10**400, 0.5, -0.5, 1e-320, 1e38, 1e308, math.nan, math.inf, -math.inf),
]
TEXTS = [
    *("", "x", "binary", "raw", "log1p", "auto", "meta", "cuda:99", "sparse", "dense", "none", "NaN", "8", "None"),
    *(
        "\ud800",
        "\0",
        "a\nb",
        "a\rb",
        "\x1b[31mred",
        "\u202e",
        "\u2028",
        "\x85",
        "<script>alert(1)</script>",
        "x" * 5000,
    ),
    *(
        "..",
        ".",
        "/",
        "~",
        "../outside",
        "../../outside",
        "inside/../../outside",
        "a" * 300,
        "a/b",
        "*",
        "[1]",
        "%s",
        "{}",
    ),
]
OTHERS: list[Any] = [
    None,
    True,
    False,
    [],
    {},
    [1],
    ["x"],
    {"a": 1},
    [[[]]],
    [None] * 100,
    [1, "x"],
    DEEP,
    HUGE,
    {"": {}},
]


def nasty(random: Random) -> Any:
    """A value that someone did not think of."""
    pool = (NUMBERS, TEXTS, OTHERS)[random.choice(3, p=[0.45, 0.3, 0.25])]
    return copy.deepcopy(pool[int(random.integers(len(pool)))])


def nearby(random: Random, value: Any) -> Any:
    """A value of the same type, most often."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return int(random.choice([value - 1, value + 1, -value, 2 * value, value + 100, 0, 1]))
    if isinstance(value, float):
        return float(random.choice([value / 2, value * 2, -value, value + 1e-9, math.nan, math.inf, 0.0]))
    if isinstance(value, str):
        at = int(random.integers(len(value) + 1))
        return [value[:at], value[at:], value + "x", value.upper(), value[:at] + "\n" + value[at:], value * 2][
            int(random.integers(6))
        ]
    if isinstance(value, list):
        return [value[:-1], value + value[-1:], value[::-1], value * 2, value[1:]][int(random.integers(5))]
    return nasty(random)


def nodes(tree: Any, path: tuple[Any, ...] = (), depth: int = 0) -> list[tuple[Any, ...]]:
    """The paths of all that is in a tree, but for the later elements of long lists."""
    found = [] if path == () else [path]
    keys = list(tree) if isinstance(tree, dict) else range(min(len(tree), 4)) if isinstance(tree, list) else ()
    return found + [each for key in keys if depth < 6 for each in nodes(tree[key], (*path, key), depth + 1)]


def put(tree: Any, path: tuple[Any, ...], value: Any) -> Any:
    """The tree, a copy, with another value at a path."""
    tree = copy.deepcopy(tree)
    at(tree, path[:-1])[path[-1]] = value
    return tree


def at(tree: Any, path: tuple[Any, ...]) -> Any:
    """What is at a path."""
    for key in path:
        tree = tree[key]
    return tree


def change_tree(random: Random, tree: Any) -> tuple[Any, str]:
    """A tree with something changed, as a copy; and what, in words."""
    paths = nodes(tree)
    path = paths[int(random.integers(len(paths)))]
    value, name = at(tree, path), ".".join(map(str, path))
    how = random.choice(["nasty", "nearby", "delete", "add", "other"], p=[0.45, 0.25, 0.12, 0.08, 0.1])
    if how == "nasty":
        new = nasty(random)
    elif how == "nearby":
        new = nearby(random, value)
    elif how == "other":
        new = copy.deepcopy(at(tree, paths[int(random.integers(len(paths)))]))
    else:
        tree = copy.deepcopy(tree)
        owner = at(tree, path[:-1])
        if how == "delete":
            del owner[path[-1]]
        elif isinstance(owner, dict):
            owner[str(random.choice(["extra", "", "format", "file", "class", "\ud800"]))] = nasty(random)
        else:
            owner.insert(int(path[-1]), nasty(random))
        return tree, f"{how} at {name}"
    return put(tree, path, new), f"{name} = {new!r:.80}"


def json_text(tree: Any) -> str:
    """JSON, with what Python's writer cannot write."""
    text = json.dumps(tree)
    return text.replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000).replace(json.dumps(HUGE), "9" * 6000)


def toml_text(tree: dict[str, Any]) -> str:
    """TOML of tables of tables."""
    lines: list[str] = []
    _toml_table(tree, (), lines)
    return "\n".join(lines) + "\n"


def _toml_table(table: dict[str, Any], path: tuple[str, ...], lines: list[str]) -> None:
    if path:
        lines.append(f"[{'.'.join(json.dumps(key) for key in path)}]")
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    lines += [f"{json.dumps(key)} = {_toml(value)}" for key, value in table.items() if key not in inner]
    for key, value in inner.items():
        _toml_table(value, (*path, key), lines)


def _toml(value: Any) -> str:
    if value is None:
        return "[[]]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(value) if math.isfinite(value) else {"nan": "nan", "inf": "inf", "-inf": "-inf"}[str(value)]
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(each)}" for key, each in value.items()) + "}"
    if value == DEEP:
        return "[" * 50_000 + "]" * 50_000
    if value == HUGE:
        return "9" * 6000
    return json.dumps(value) if isinstance(value, str) else str(value)


def change_bytes(random: Random, content: bytes) -> tuple[bytes, str]:
    """Bytes with something changed, and what."""
    raw = bytearray(content)
    how = str(random.choice(["flip", "cut", "insert", "zero", "long", "repeat", "append"]))
    place = int(random.integers(max(1, len(raw))))
    if how == "flip":
        for each in random.integers(len(raw), size=int(random.integers(1, 4))) if raw else []:
            raw[int(each)] ^= int(random.integers(1, 256))
    elif how == "cut":
        del raw[place:]
    elif how == "insert":
        raw[place:place] = random.bytes(int(random.integers(1, 9)))
    elif how == "zero":
        raw[place : place + 8] = bytes(len(raw[place : place + 8]))
    elif how == "long":  # a length that lies
        place -= place % 8
        number = int(random.choice([2**62, 2**63 - 1, 2**31 - 1, 2**32 - 1, 10**9, 0, 1]))
        raw[place : place + 8] = number.to_bytes(8, "little")[: len(raw[place : place + 8])]
    elif how == "repeat":
        raw[place:place] = raw[place : place + 64]
    else:
        raw += random.bytes(int(random.integers(1, 64)))
    return bytes(raw), f"bytes: {how} at {place}"
