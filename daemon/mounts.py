"""On what kind of file system a folder lies, from the kernel's table of mounts (proc(5), mountinfo)."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

NETWORK_TYPES = re.compile(
    "nfs|nfs4|cifs|smb3|smbfs|ncpfs|afs|coda|ceph|lustre|gpfs|beegfs|fhgfs|glusterfs|pvfs2|orangefs|panfs|davfs"
)
NETWORK_FUSE = re.compile(
    r"fuse\.(sshfs|s3fs|s3ql|goofys|ceph|ceph-fuse|glusterfs|mfs|moosefs|lizardfs|rclone|davfs|davfs2|gcsfuse|"
    r"smbnetfs|juicefs|quobyte|hdfs|fuse_dfs|curlftpfs)"
)
"""Of user-space file systems those that reach for another machine; the others are this machine's own."""


class Mount(NamedTuple):
    point: str
    type: str
    source: str


def mount_of(path: Path, mountinfo: str | None = None) -> Mount | None:
    """The mount on which ``path`` lies, or will lie once it is made; ``None`` if that cannot be told.

    ``mountinfo`` is the table's text, this process's own if it is not given.  Cost grows with the mounts.
    """
    real = os.path.realpath(path)
    if mountinfo is None:
        _touch(real)
        try:
            mountinfo = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None
    found = None
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        here, told = fields.split(" "), rest.split(" ")
        if len(here) < 5 or len(told) < 2:
            continue
        mount = Mount(_plain(here[4]), told[0], _plain(told[1]))
        # The deepest one counts, and of those that lie over one another the last.
        if _inside(real, mount.point) and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def network_mount(path: Path, mountinfo: str | None = None) -> Mount | None:
    """The mount, if it is another machine's disk."""
    mount = mount_of(path, mountinfo)
    if mount is None or not (NETWORK_TYPES.fullmatch(mount.type) or NETWORK_FUSE.fullmatch(mount.type)):
        return None
    return mount


def _touch(path: str) -> None:
    """Lets autofs mount what is mounted when somebody looks at it."""
    while not Path(path).exists() and path != "/":
        path = os.path.dirname(path)


def _plain(field: str) -> str:
    """Blanks and the like are written as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")
