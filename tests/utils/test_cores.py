"""The number of cores: by affinity, and by quotas of control groups in made-up trees and in a real group."""

import os
import subprocess
import sys
import textwrap
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from recvae.utils.cores import Cores, available_cores

V2 = "30 20 0:28 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct"


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


@pytest.fixture
def tree(tmp_path):
    """A function that writes a file system: text by path, with /proc/self/mountinfo and /proc/self/cgroup."""

    def write(mounts, groups, files):
        files = {"proc/self/mountinfo": "\n".join(mounts) + "\n", "proc/self/cgroup": groups + "\n"} | files
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def v2(**groups):
    """cpu.max of groups by path, with _ for the slash: v2(a_b="100000 100000")."""
    return {f"sys/fs/cgroup/{name.replace('_', '/')}/cpu.max": f"{text}\n" for name, text in groups.items()}


def v1(quotas, folder="sys/fs/cgroup/cpu,cpuacct", period=100_000):
    files = {}
    for name, quota in quotas.items():
        files[f"{folder}/{name}/cpu.cfs_quota_us"] = f"{quota}\n"
        files[f"{folder}/{name}/cpu.cfs_period_us"] = f"{period}\n"
    return files


@pytest.mark.parametrize(
    ("text", "count", "quota"),
    [
        ("max 100000", 8, None),
        ("200000 100000", 2, 2.0),
        ("150000 100000", 2, 1.5),  # half a core more than one is worth a second thread
        ("100001 100000", 2, 1.00001),
        ("25000 100000", 1, 0.25),
        ("1000 1000000", 1, 0.001),
        ("10000000 100000", 8, 100.0),
    ],
)
def test_quota_of_version_2(tree, text, count, quota):
    assert available_cores(tree([V2], "0::/job", v2(job=text))) == Cores(count, 8, quota)


@pytest.mark.parametrize(("quota", "count"), [(-1, 8), (300_000, 3), (250_000, 3), (1_000, 1)])
def test_quota_of_version_1(tree, quota, count):
    root = tree([V1], "4:memory:/other\n3:cpu,cpuacct:/job", v1({"job": quota}))
    assert available_cores(root) == Cores(count, 8, None if quota < 0 else quota / 100_000)


@pytest.mark.parametrize(("least", "count"), [("a", 1), ("a_b", 2), ("a_b_c", 3)])
def test_the_smallest_quota_of_a_group_and_those_above_wins(tree, least, count):
    quotas = {"a": "max 100000", "a_b": "500000 100000", "a_b_c": "400000 100000", least: f"{count}0000 10000"}
    assert available_cores(tree([V2], "0::/a/b/c", v2(**quotas, a_b_c_below="1 1", z="1 1"))).count == count


def test_groups_above_count_in_version_1(tree):
    root = tree([V1], "3:cpu,cpuacct:/pods/one", v1({"pods": 250_000, "pods/one": -1, "pods/two": 100_000}))
    assert available_cores(root).quota == 2.5


def test_a_group_above_without_files_does_not_hide_those_above_it(tree):
    assert available_cores(tree([V2], "0::/a/b/c", v2(a="200000 100000"))).count == 2


def test_hybrid_with_the_cpu_controller_in_version_1(tree):
    mounts = [
        "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755",
        "32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu",
        "34 31 0:31 / /sys/fs/cgroup/cpuset rw,relatime - cgroup cgroup rw,cpuset",
        "40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=cpu",
        "41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw",
    ]
    groups = "9:name=cpu:/named\n3:cpuset:/set\n1:cpu:/job\n0::/job"
    files = v1({"job": 200_000, "named": 10_000, "set": 10_000}, "sys/fs/cgroup/cpu")
    files |= v1({"named": 10_000}, "sys/fs/cgroup/systemd") | v1({"set": 10_000, "job": 10_000}, "sys/fs/cgroup/cpuset")
    files["sys/fs/cgroup/unified/job/cgroup.procs"] = "1\n"
    assert available_cores(tree(mounts, groups, files)).quota == 2.0


def test_hybrid_with_the_cpu_controller_in_version_2(tree):
    unified = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
    memory = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
    files = {"sys/fs/cgroup/unified/job/cpu.max": "300000 100000\n"}
    assert available_cores(tree([memory, unified], "4:memory:/job\n0::/job", files)).count == 3


def test_container_with_a_namespace_of_its_own(tree):
    assert available_cores(tree([V2], "0::/", {"sys/fs/cgroup/cpu.max": "200000 100000\n"})).count == 2


def test_container_that_sees_the_path_of_the_host(tree):
    """Docker without a namespace: the mount shows the container's group at its root, and names its path."""
    mount = V1.replace(" / /sys", " /docker/c0ffee /sys")
    root = tree([mount], "3:cpu,cpuacct:/docker/c0ffee/inner", v1({"": 300_000, "inner": 200_000}))
    assert available_cores(root).quota == 2.0
    root = tree([mount], "3:cpu,cpuacct:/docker/c0ffee", {})
    assert available_cores(root).quota == 3.0


@pytest.mark.parametrize("path", ["/kubepods/pod1/c0ffee", "/../../other"])
def test_container_whose_path_is_not_below_the_mount(tree, path):
    files = {"sys/fs/cgroup/cpu.max": "200000 100000\n", "sys/fs/other/cpu.max": "1000 100000\n"}
    assert available_cores(tree([V2], f"0::{path}", files)).count == 2


def test_of_several_mounts_those_that_hold_the_group_count(tree):
    other = "50 20 0:28 /other /mnt/other rw - cgroup2 cgroup2 rw"
    files = v2(job="300000 100000") | {"mnt/other/cpu.max": "100000 100000\n"}
    assert available_cores(tree([V2, other], "0::/job", files)).count == 3


def test_a_mount_that_is_hidden_by_a_later_one_does_not_count(tree):
    hiding = "60 20 0:50 / /sys/fs/cgroup rw - tmpfs tmpfs rw"
    assert available_cores(tree([V2, hiding], "0::/job", v2(job="100000 100000"))).quota is None


def test_a_mount_point_with_a_space(tree):
    mount = r"30 20 0:28 / /my\040groups rw - cgroup2 cgroup2 rw"
    assert available_cores(tree([mount], "0::/a b:c", {"my groups/a b:c/cpu.max": "100000 100000"})).count == 1


def test_both_versions_count(tree):
    files = v1({"job": 500_000}) | {"mnt/job/cpu.max": "400000 100000"}
    mounts = [V1, "41 31 0:38 / /mnt rw - cgroup2 cgroup2 rw"]
    assert available_cores(tree(mounts, "1:cpu,cpuacct:/job\n0::/job", files)).quota == 4.0


@pytest.mark.parametrize(
    "text",
    ["", "100000", "100000 ", "x y", "100000 0", "0 100000", "-1 100000", "1e5 100000", "1.5 1", "1 2 3", "\0 \0"],
)
def test_what_is_not_a_quota_is_ignored(tree, text):
    root = tree([V2], "0::/a/job", v2(a="300000 100000", a_job=text))
    assert available_cores(root) == Cores(3, 8, 3.0)


@pytest.mark.parametrize("number", ["", "x", "0", "-7", "9" * 400, "٣", "1_0"])
def test_what_is_not_a_number_is_ignored_in_version_1(tree, number):
    root = tree([V1], "3:cpu,cpuacct:/job", v1({"job": number}))
    assert available_cores(root) == Cores(8, 8, None)
    root = tree([V1], "3:cpu,cpuacct:/job", v1({"job": 100_000}, period=number))
    assert available_cores(root) == Cores(8, 8, None)


def test_half_of_the_files_of_version_1_is_no_quota(tree):
    files = {"sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "100000\n"}
    assert available_cores(tree([V1], "3:cpu,cpuacct:/job", files)).quota is None


def test_without_files_the_affinity_counts(tmp_path):
    assert available_cores(tmp_path) == Cores(8, 8, None)
    assert available_cores(tmp_path / "missing") == Cores(8, 8, None)


@pytest.mark.parametrize("garbage", ["", "\n\n", "::", "0:", "0::", "cpu", "1:cpu", "0::\0", "a - b - c", "x " * 99])
def test_garbage_in_the_files_of_the_process_is_ignored(tree, garbage):
    assert available_cores(tree([garbage], garbage, {})).count == 8
    assert available_cores(tree([garbage, V2], f"{garbage}\n0::/job", v2(job="300000 100000"))).count == 3
    assert available_cores(tree([V2[: len(V2) // 2]], "0::/job", v2(job="300000 100000"))).quota is None


def test_files_that_cannot_be_read_are_ignored(tree):
    root = tree([V2], "0::/a/job", v2(a="300000 100000") | {"sys/fs/cgroup/a/job/cpu.max/is": "a folder"})
    assert available_cores(root).count == 3
    (root / "proc/self/cgroup").write_bytes(b"0::/\xff\xfe\n0::/a/job\n")
    assert available_cores(root).count == 3


@pytest.mark.parametrize(("cores", "count"), [(5, 5), (None, 1)])
def test_without_affinity_all_cores_count(monkeypatch, tmp_path, cores, count):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "process_cpu_count", lambda: cores, raising=False)
    assert available_cores(tmp_path) == Cores(count, count, None)
    monkeypatch.delattr(os, "process_cpu_count")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert available_cores(tmp_path) == Cores(count, count, None)


@pytest.mark.parametrize(
    ("cores", "reason"),
    [
        (Cores(2, 4, 1.5), "2 cores (affinity 4, quota 1.5)"),
        (Cores(1, 1), "1 core (affinity 1, no quota)"),
        (Cores(1, 2, 1 / 3), "1 core (affinity 2, quota 0.333)"),
    ],
)
def test_the_reason_is_a_phrase(cores, reason):
    assert cores.reason() == reason


def in_process(before, *, last="print(available_cores().count, available_cores().quota)"):
    """What a new process prints that runs `before`, then asks for its cores."""
    code = f"import os, sys\n{textwrap.dedent(before)}\nfrom recvae.utils.cores import available_cores\n{last}"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="affinity is Linux's")
def test_a_real_affinity_of_one_core():
    found = in_process("os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})")
    assert found.split()[0] == "1"


def test_the_count_needs_no_library():
    loaded = in_process("", last="print({'torch', 'numpy', 'scipy', 'psutil'} & set(sys.modules))")
    assert loaded == "set()"


@contextmanager
def real_group(quota, period):
    """A control group with a quota, or a skip with the reason. -> the file that takes process ids"""
    first, second = Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")
    parent = first if (first / "cpu.cfs_quota_us").exists() or (first / "tasks").exists() else second
    group = parent / f"recvae-test-{os.getpid()}"
    try:
        try:
            group.mkdir()
            if (group / "cpu.cfs_quota_us").exists():
                (group / "cpu.cfs_period_us").write_text(str(period))
                (group / "cpu.cfs_quota_us").write_text(str(quota))
            else:
                (group / "cpu.max").write_text(f"{quota} {period}")
        except OSError as error:
            pytest.skip(f"a control group with a quota cannot be made here: {error}")
        yield group / "cgroup.procs"
    finally:
        with suppress(OSError):
            group.rmdir()


@pytest.mark.parametrize(("quota", "shown"), [(50_000, "1 0.5"), (100_000, "1 1.0")])
def test_a_real_control_group(quota, shown):
    with real_group(quota, 100_000) as procs:
        assert in_process(f"open({str(procs)!r}, 'w').write(str(os.getpid()))") == shown
