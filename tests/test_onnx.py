"""How many cores a process may use: those it is bound to, within the quota of its control groups."""

import os

import pytest

from headstart.backbones import onnx


def groups(root, own, files):
    """Control groups as files; gives what `quota` reads."""
    for name, text in files.items():
        path = root / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    (root / "own").write_text(own, "utf-8")
    return root / "groups", root / "own"


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 2),  # rounded up
        ("0::/\n", {"cpu.max": "5000 100000\n"}, 1),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("", {"cpu.max": "200000 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "300000 100000\n"}, 3),  # of a group above
        ("0::/a/b\n", {"a/b/cpu.max": "100000 100000\n", "a/cpu.max": "300000 100000\n"}, 1),  # the least of both
        ("0::/not/here\n", {"cpu.max": "400000 100000\n"}, 4),
        (
            "4:cpu,cpuacct:/\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "250000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
            3,
        ),
        ("4:cpu:/docker/x\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ("4:cpu:/x\n", {"cpu/x/cpu.cfs_quota_us": "50000\n", "cpu/x/cpu.cfs_period_us": "50000\n"}, 1),
        ("9:memory:/x\n", {"memory/x/cpu.max": "100000 100000\n"}, None),
        ("0::/\n", {"cpu.max": "0 0\n"}, None),
        ("0::/../..\n", {"cpu.max": "nonsense"}, None),
    ],
)
def test_a_quota_is_read(tmp_path, own, files, cores):
    assert onnx.quota(*groups(tmp_path, own, files)) == cores


def test_cores_stay_within_the_quota(monkeypatch):
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    for quota, cores in ((None, bound), (1, 1), (10_000, bound)):
        monkeypatch.setattr(onnx, "quota", lambda quota=quota: quota)
        assert onnx.cores() == cores
