"""How many CPU cores this process may use: its scheduling affinity and the CPU quotas of its control groups."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple


@dataclass(frozen=True)
class Cores:
    """A number of cores, and the limits that it came from."""

    count: int
    """cores that can compute at the same time, at least 1: the smaller limit, a quota rounded up"""
    affinity: int
    """cores on which the scheduler may run this process"""
    quota: float | None = None
    """cores' worth of CPU time that the control groups grant, such as 1.5; None without a quota"""

    def reason(self) -> str:
        """The number and its limits for a line of a log, such as "2 cores (affinity 4, quota 1.5)"."""
        quota = "no quota" if self.quota is None else f"quota {self.quota:.3g}"
        return f"{self.count} core{'s' * (self.count != 1)} (affinity {self.affinity}, {quota})"


class _Mount(NamedTuple):
    """A mounted control group hierarchy: its file system, the group at its root, where it is, its controllers."""

    kind: str
    top: PurePosixPath
    point: PurePosixPath
    controllers: list[str]


def available_cores(root: Path = Path("/")) -> Cores:
    """The cores that this process may use now, by its affinity and, on Linux, by quotas of control groups.

    Quotas count in the process's group and in all groups above it that are mounted, in version 1 (`cpu.cfs_quota_us`)
    and version 2 (`cpu.max`); the smallest wins. A file that is missing, unreadable or not understood sets no limit.

    Parameters
    ----------
    root
        The folder with `proc/self/cgroup`, `proc/self/mountinfo` and the mount points that these name.

    References
    ----------
    https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/scheduler/sched-bwc.html
    """
    affinity = _affinity()
    quota = min(_quotas(root), default=None)
    count = affinity if quota is None else min(affinity, math.ceil(quota))
    return Cores(max(count, 1), affinity, quota)


def _affinity() -> int:
    """Cores on which this process may run; all cores where the system has no affinity."""
    with suppress(AttributeError, OSError):  # missing on macOS and Windows
        return len(os.sched_getaffinity(0))
    count = getattr(os, "process_cpu_count", os.cpu_count)()  # the former from Python 3.13
    return count or 1


def _quotas(root: Path) -> Iterator[float]:
    """The quotas, in cores, of the process's groups and those above them."""
    mounts = _mounts(_text(root / "proc/self/mountinfo").splitlines())
    for line in _text(root / "proc/self/cgroup").splitlines():
        # hierarchy:controllers:/path, and 0::/path for version 2
        hierarchy, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (hierarchy, controllers) == ("0", ""):
            unified = [mount for mount in mounts if mount.kind == "cgroup2"]
            yield from _in_groups(root, unified, _absolute(path), _quota_2)
        elif "cpu" in controllers.split(","):
            version_1 = [mount for mount in mounts if mount.kind == "cgroup" and "cpu" in mount.controllers]
            yield from _in_groups(root, version_1, _absolute(path), _quota_1)


def _mounts(lines: Iterable[str]) -> list[_Mount]:
    """The control group hierarchies among the mounts of a process; a later mount hides an earlier one."""
    mounts: dict[str, _Mount | None] = {}
    for line in lines:
        # id parent major:minor root point options [tags ...] - kind source options
        before, _, after = line.partition(" - ")
        fields, more = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(more) < 3:
            continue
        top, point = (_absolute(_unescaped(field)) for field in fields[3:5])
        mount = _Mount(more[0], top, point, more[2].split(","))
        mounts[fields[4]] = mount if mount.kind in ("cgroup", "cgroup2") else None
    return [mount for mount in mounts.values() if mount is not None]


def _absolute(path: str) -> PurePosixPath:
    return PurePosixPath("/" + path.lstrip("/"))


def _unescaped(field: str) -> str:
    r"""A path of mountinfo, in which a space is \040."""
    return re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), field)


def _in_groups(
    root: Path, mounts: list[_Mount], path: PurePosixPath, quota: Callable[[Path], float | None]
) -> Iterator[float]:
    """The quotas of the group `path` and the groups above it, as far as they are mounted.

    In a container, `path` may be that of the host and not below any mount; the container's own group is then the root
    of the mount.
    """
    below = [mount for mount in mounts if path.is_relative_to(mount.top) and ".." not in path.parts]
    for mount in below or mounts:
        group = mount.point / path.relative_to(mount.top) if below else mount.point
        for folder in (group, *group.parents):
            if folder.is_relative_to(mount.point):
                found = quota(root / folder.relative_to("/"))
                if found is not None:
                    yield found


def _quota_2(folder: Path) -> float | None:
    """The quota of a group of version 2: "50000 100000" in microseconds of CPU time per period, "max" for none."""
    numbers = _text(folder / "cpu.max").split()
    return _cores(*numbers) if len(numbers) == 2 else None


def _quota_1(folder: Path) -> float | None:
    """The quota of a group of version 1, whose two numbers are in two files, -1 for none."""
    return _cores(*(_text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")))


def _cores(quota: str, period: str) -> float | None:
    if not all(re.fullmatch("[0-9]{1,18}", number) and int(number) for number in (quota, period)):
        return None
    return int(quota) / int(period)


def _text(path: Path) -> str:
    """The content of a file; nothing if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="surrogateescape")
    except (OSError, ValueError):  # the latter for a path with a null byte
        return ""
