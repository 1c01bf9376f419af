"""The parts of a run on one machine: ordered events in, one block of users at a time through the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count, cycle, islice
from pathlib import Path

from recvae.serving.batch.ordered import OrderedEvents
from recvae.serving.batch.parts import Part, PartMaker, Progress, block_sizes
from recvae.utils.files import write_whole, writing
from recvae.utils.folder import Manifest


def check_parts(manifest: Manifest[Part]) -> None:
    """Raise ValueError unless the parts are numbered from 0, and the ids of users are all integers or all text."""
    for number, part in enumerate(manifest.parts):
        if part.file != _name(number):
            raise ValueError(f"expected {_name(number)}, got {part.file}")
    if len({type(user) for part in manifest.parts for user in (part.first, part.last)}) > 1:
        raise ValueError("expected users to be all numbers or all text")


def make_missing_parts(
    folder: Path,
    manifest: Manifest[Part],
    intact: list[bool],
    events: OrderedEvents,
    maker: PartMaker,
    progress: Progress,
    on_part: Callable[[Part], None],
) -> tuple[Manifest[Part], int]:
    """Write the parts that are not intact, in order. -> the final manifest, the number of parts written"""
    first = intact.index(False) if False in intact else len(intact)
    kept = manifest.parts[:first]
    manifest, n_made = replace(manifest, done=False), 0
    manifest.write(folder)
    n_users, n_kept = events.count_users(), sum(part.users for part in kept)
    sizes = block_sizes(maker.users_per_part)
    blocks = events.blocks(kept[-1].last if kept else None, cycle(sizes))
    progress.start(n_users, n_kept)
    for number in count(first):
        part_blocks = islice(blocks, len(sizes))
        if number < len(intact) and intact[number]:
            deque(part_blocks, maxlen=0)  # skip its users
            progress.advance(manifest.parts[number].users)
            continue
        result = maker.make(part_blocks, progress.advance)
        if result is None:
            break
        part, content = result
        part = replace(part, file=_name(number))
        write_whole(folder / part.file, content)
        manifest, n_made = manifest.with_part(number, part), n_made + 1
        manifest.write(folder)
        on_part(part)
    manifest = replace(manifest, done=True)
    manifest.write(folder)
    return manifest, n_made


def replace_parts(
    folder: Path, manifest: Manifest[Part], parts: Sequence[Part], source: Path, on_part: Callable[[Part], None]
) -> tuple[Manifest[Part], int]:
    """Replace the parts of the folder by those in `source`, ordered by user. -> as `make_missing_parts`"""
    manifest = replace(manifest, parts=[], done=False)
    manifest.write(folder)  # from here on, no file in the folder counts as written by an earlier run
    with writing(folder):
        for old in folder.glob("part-?????.parquet"):
            old.unlink()
    for number, source_part in enumerate(sorted(parts, key=lambda part: part.first)):
        part = replace(source_part, file=_name(number))
        with writing(folder / part.file):
            (source / source_part.file).replace(folder / part.file)
        manifest = manifest.with_part(number, part)
        on_part(part)
    manifest = replace(manifest, done=True)
    manifest.write(folder)
    return manifest, len(parts)


def _name(number: int) -> str:
    return f"part-{number:05}.parquet"
