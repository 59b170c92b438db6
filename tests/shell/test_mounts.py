"""The journal is not put on another machine's disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from tiltd.daemon.journal import Journal, JournalError
from tiltd.daemon.mounts import mount_of, network_mount

ROOT = "27 1 254:0 / / rw,relatime - ext4 /dev/vda1 rw"


def table(*lines: str) -> str:
    """A table as in /proc/self/mountinfo, of `TYPE SOURCE POINT`."""
    rows = [ROOT]
    for number, line in enumerate(lines, 40):
        kind, source, point = line.split(" ")
        rows.append(
            f"{number} 27 0:{number} / {point} rw,noatime shared:{number} master:1 - {kind} {source} rw"
        )
    return "\n".join(rows) + "\n"


@pytest.mark.parametrize(
    "kind",
    [
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "lustre",
        "gpfs",
        "beegfs",
        "ceph",
        "glusterfs",
        "fuse.sshfs",
        "fuse.mfs",
    ],
)
def test_a_network_file_system_is_told(kind: str) -> None:
    found = network_mount(Path("/var/lib/tiltd/journal.sqlite"), table(f"{kind} files:/state /var/lib"))
    assert found == ("/var/lib", kind, "files:/state")


@pytest.mark.parametrize(
    "kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay", "fuseblk", "fuse.mergerfs"]
)
def test_a_disk_of_this_machine_is_fine(kind: str) -> None:
    assert network_mount(Path("/var/lib/tiltd/journal.sqlite"), table(f"{kind} x /var/lib")) is None


@pytest.mark.parametrize(
    ("path", "point"),
    [
        ("/cluster/tiltd/journal.sqlite", "/cluster"),
        ("/cluster/fast/journal.sqlite", "/cluster/fast"),
        ("/clusters/journal.sqlite", "/"),
        ("/cluster", "/cluster"),
        ("/with blank/journal.sqlite", "/with blank"),
    ],
)
def test_the_deepest_mount_counts(path: str, point: str) -> None:
    mounts = table("nfs4 s:/c /cluster", "xfs /dev/sdb /cluster/fast", r"nfs s:/a\040b /with\040blank")
    found = mount_of(Path(path), mounts)
    assert found is not None and found.point == point


def test_of_two_that_lie_over_one_another_the_last_counts() -> None:
    mounts = table("autofs /etc/auto.master /data", "nfs4 s:/data /data")
    assert network_mount(Path("/data/x"), mounts) == ("/data", "nfs4", "s:/data")


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "state").symlink_to("/cluster/state")
    assert network_mount(tmp_path / "state" / "journal.sqlite", table("nfs s:/c /cluster")) is not None


def test_a_table_that_says_nothing_stops_nobody() -> None:
    assert mount_of(Path("/x"), "") is None and mount_of(Path("/x"), "no table\n1 2 3 - x\n") is None


def test_the_kernels_own_table_is_read(tmp_path: Path) -> None:
    assert mount_of(tmp_path) is not None and network_mount(tmp_path) is None


def test_the_journal_refuses_it_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "state" / "journal.sqlite"
    with pytest.raises(JournalError) as refused:
        Journal.open(path, table(f"nfs4 files:/home {tmp_path}"))
    assert str(refused.value) == (
        f"the journal {path} would lie on a network file system (files:/home, nfs4, on {tmp_path}), where "
        "SQLite cannot keep it whole; let state_dir name a folder on a disk of this machine (the spool may "
        "stay where it is: spool_dir)"
    )
    assert not path.parent.exists()
