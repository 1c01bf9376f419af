"""Making the parts on one machine: ordered events in, a block of users at a time through the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count, cycle, islice
from pathlib import Path

from recvae.serving.batch.lists import Lists, Part, block_sizes
from recvae.serving.batch.meter import Meter
from recvae.serving.batch.ordered import OrderedEvents
from recvae.utils.files import write_whole, writing
from recvae.utils.folder import Manifest


def check_parts(manifest: Manifest[Part]) -> None:
    """Raise ValueError where the parts are not the first ones, in their order, of users of one kind."""
    for number, part in enumerate(manifest.parts):
        if part.file != _name(number):
            raise ValueError(f"expected {_name(number)}, got {part.file}")
    if len({type(user) for part in manifest.parts for user in (part.first, part.last)}) > 1:
        raise ValueError("expected users to be all numbers or all text")


def fill(
    folder: Path,
    manifest: Manifest[Part],
    whole: list[bool],
    events: OrderedEvents,
    lists: Lists,
    meter: Meter,
    on_part: Callable[[Part], None],
) -> tuple[Manifest[Part], int]:
    """Make the parts that are not whole, in order, from the first of them on. -> what is there, how many were made"""
    first = whole.index(False) if False in whole else len(whole)
    kept = manifest.parts[:first]
    manifest, made = replace(manifest, done=False), 0
    manifest.write(folder)
    n_users, n_kept = events.count_users(), sum(part.users for part in kept)
    sizes = block_sizes(lists.users_per_part)
    blocks = events.blocks(kept[-1].last if kept else None, cycle(sizes))
    meter.start(n_users, n_kept)
    for number in count(first):
        mine = islice(blocks, len(sizes))
        if number < len(whole) and whole[number]:
            deque(mine, maxlen=0)  # to come to the users after it
            meter.advance(manifest.parts[number].users)
            continue
        made_part = lists.part(mine, meter.advance)
        if made_part is None:
            break
        part, content = made_part
        part = replace(part, file=_name(number))
        write_whole(folder / part.file, content)
        manifest, made = manifest.with_part(number, part), made + 1
        manifest.write(folder)
        on_part(part)
    manifest = replace(manifest, done=True)
    manifest.write(folder)
    return manifest, made


def replace_parts(
    folder: Path, manifest: Manifest[Part], parts: Sequence[Part], place: Path, on_part: Callable[[Part], None]
) -> tuple[Manifest[Part], int]:
    """Take all parts that lie in `place`, in the order of their first users, for those of the folder. -> as `fill`"""
    manifest = replace(manifest, parts=[], done=False)
    manifest.write(folder)  # what is in the folder from here on is ours
    with writing(folder):
        for old in folder.glob("part-?????.parquet"):
            old.unlink()
    for number, made in enumerate(sorted(parts, key=lambda part: part.first)):
        part = replace(made, file=_name(number))
        with writing(folder / part.file):
            (place / made.file).replace(folder / part.file)
        manifest = manifest.with_part(number, part)
        on_part(part)
    manifest = replace(manifest, done=True)
    manifest.write(folder)
    return manifest, len(parts)


def _name(number: int) -> str:
    return f"part-{number:05}.parquet"
