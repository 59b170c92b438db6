"""A command's own end of the socket: ``python -I -S client.py NAME SOCKET ARGUMENT...``.

It is started once for each command, so it imports next to nothing.  What goes through the socket: a line with
the number of words, their lengths, and those of standard input; then the words (name, folder, environment as
NAME=VALUE, an empty one, arguments) and the input.  Back come a line with the exit code and two lengths, then
standard output and standard error.
"""

from __future__ import annotations

import _socket
import os
import sys

PIECE_BYTES = 1 << 16
HOST = "torque-head"
DOWN_RC = dict.fromkeys(("qsub", "qstat", "qdel", "qhold", "qrls", "qrerun"), 111)
DOWN_RC["pbsnodes"] = 1
NO_DAEMON_RC = dict.fromkeys(DOWN_RC, 33)
KEPT = ("HOME", "LOGNAME", "USER", "PATH", "MAIL", "SHELL", "LANG", "TILTD_STANDIN_USER")


def down_words(name: str) -> str:
    """What a command says when nobody listens."""
    once = (
        f"\nUnable to communicate with {HOST}(10.77.0.1)\nCannot connect to specified server host '{HOST}'.\n"
    )
    if name == "pbsnodes":
        return once + f"pbsnodes: cannot connect to server {HOST}, error=111 (Connection refused)\n"
    last = f"{name}: cannot connect to server {HOST} (errno=111) Connection refused\n"
    if name == "qstat":
        return once * 3 + last + "qstat: Error (111 - Connection refused) \n"
    return once + last


def no_daemon_words(name: str) -> str:
    """What a command says when trqauthd does not answer."""
    once = "socket_connect_unix failed: 15137\n"
    last = f"{name}: cannot connect to server (null) (errno=15137) could not connect to trqauthd\n"
    if name == "qstat":
        return once * 3 + last + "qstat: Error (15137 - could not connect to trqauthd) \n"
    return once + last


def _read_all(connection: _socket.socket) -> bytes:
    parts: list[bytes] = []
    while True:
        part = connection.recv(PIECE_BYTES)
        if not part:
            return b"".join(parts)
        parts.append(part)


def _is_file(path: str) -> bool:
    try:
        return (os.stat(path).st_mode & 0o170000) == 0o100000  # noqa: PTH116
    except OSError:
        return False


def _input(name: str, arguments: list[str]) -> bytes:
    """The script of a qsub that was given no file."""
    if name != "qsub" or (arguments and not arguments[-1].startswith("-") and _is_file(arguments[-1])):
        return b""
    return b"" if os.isatty(0) else sys.stdin.buffer.read()


def main(name: str, path: str, arguments: list[str]) -> int:
    """Ask, print, and return the exit code."""
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        connection.connect(path)
    except OSError:
        sys.stderr.write(down_words(name))
        return DOWN_RC.get(name, 1)
    kept = [f"{key}={os.environ[key]}" for key in KEPT if key in os.environ]
    if "-V" in arguments or "-v" in arguments:
        kept = [f"{key}={value}" for key, value in os.environ.items()]
    words = [os.fsencode(word) for word in [name, os.getcwd(), *kept, "", *arguments]]
    given = _input(name, arguments)
    head = " ".join(str(len(word)) for word in words)
    connection.sendall(b"%s|%d\n" % (head.encode(), len(given)) + b"".join(words) + given)
    line, _, rest = _read_all(connection).partition(b"\n")
    if not line:
        sys.stderr.write(down_words(name))
        return DOWN_RC.get(name, 1)
    rc, out_bytes, _ = (int(field) for field in line.split())
    sys.stdout.buffer.write(rest[:out_bytes])
    sys.stderr.buffer.write(rest[out_bytes:])
    return rc


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
