#!/usr/bin/env python3
"""A stand-in for batchruntomo that replays a recorded run (tests/golden/batchruntomo): no IMOD is needed.

It takes the real program's arguments, moves the stack as the real one does, prints the recorded lines in
their time with its own names in them, takes and gives back disk space as recorded (in proportion to the stack
that it is given), keeps a child at work in each step, leaves files of the recorded sizes and logs, and ends
with the recorded status.  ``$IMOD_DIR/standin.json`` says what to replay:

    {"case": "/path/of/full_S_2cpu",     the recording
     "speed": 100,                       times as fast as recorded; 0: as fast as it can
     "hold": "tilt",                     stay in this step until a signal or the check file ends it
                                         ("validate": in the look at the directives)
     "deaf": true,                       take no notice of the check file (as in s_quitfile_lost)
     "patches": "/path/of/another"}      the recording where the directives track patches

Signals are left as the system has them, which is as recorded: TERM ends it at once and leaves its child
behind; INT is obeyed with a message, or ignored where it was ignored at the start.  A Q in the check file
ends it with status 0.
"""

from __future__ import annotations

import array
import contextlib
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

VALUED = ("directive", "root", "current", "deliver", "cpus", "gpus", "nice", "remote", "check", "email")
VALUED += ("validation", "start", "end")
FLAGS = ("one", "single", "exit")
SHORT = {"ro": "root", "di": "directive", "cu": "current", "de": "deliver", "ch": "check", "v": "validation"}
STEP = re.compile(r"\(running (?:\S+_fixed\.[a-z]+\.)?([A-Za-z0-9_-]+)\.com|^Running ([A-Za-z0-9_-]+)\.com$")
LARGE_BYTES = 100_000  # smaller files do not grow with the stack


class Case:
    """A recording.  ``root`` is the name of its data set, ``stack_bytes`` the size of its stack."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        command = self.text("command")
        found = re.search(r"-ro (?:'([^']*)'|(\S+))", command)
        self.root = (found.group(1) or found.group(2)) if found else "TS_S"
        self.exit_code = int(self.text("exit_code") or 0)
        self.files = [
            (int(size), name)
            for size, name in re.findall(r"^\s*(\d+) (\S.*)$", self.text("files"), re.MULTILINE)
        ]
        sizes = {os.path.basename(name): size for size, name in self.files}
        self.stack_bytes = sizes.get(f"{self.root}.st", 0) or 8_397_824
        rows = re.findall(r"^\s*([\d.]+) start=(\d+) max=(\d+)", self.text("disk-use"), re.MULTILINE)
        self.disk = [(float(at), int(start), int(most)) for at, start, most in rows]
        self.lines = [
            (float(at), line)
            for at, line in re.findall(r"^ *([\d.]+) (.*)$", self.text("stdout.timed"), re.MULTILINE)
        ]

    def text(self, name: str) -> str:
        path = self.folder / name
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def logs(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if path.suffix in (".log", ".out"))

    def delivered(self, name: str) -> bool:
        """Was this file in the data set's folder at the end?"""
        return any(path.endswith(f"{self.root}/{name}") for _, path in self.files)


class Replay:
    """One run of the recording, in folders of its own."""

    def __init__(self, case: Case, wishes: dict[str, object], options: dict[str, str]) -> None:
        self.case = case
        self.speed = float(str(wishes.get("speed", 0)))
        self.hold = str(wishes.get("hold", ""))
        self.deaf = bool(wishes.get("deaf")) or case.name == "s_quitfile_lost"
        self.root = options.get("root", "TS_S")
        self.current = Path(options.get("current", "."))
        self.folder = Path(options.get("deliver", "."), self.root)
        self.directives = Path(options.get("directive", "batch.adoc"))
        self.check = Path(options.get("check", f"batchruntomo.{os.getpid()}.input"))
        self.filler = self.folder / f"{self.root}.growing"
        self.child: subprocess.Popen[bytes] | None = None
        self.log: list[str] = []
        self.scale = 1.0

    def run(self) -> int:
        started, disk = time.monotonic(), [*self.case.disk]
        for at, line in self.case.lines:
            while disk and disk[0][0] <= at:
                self.take_space(disk.pop(0))
            self.wait(started, at)
            self.act(line)
        self.stop_child()
        self.leave_files()
        sys.stderr.write(self.own_words(self.case.text("stderr")))
        if self.case.exit_code in (143, -signal.SIGTERM):
            self.work()  # batchruntomo alone was ended: what it had started goes on
            sys.stdout.flush()
            os.kill(os.getpid(), signal.SIGTERM)
        return self.case.exit_code

    def act(self, line: str) -> None:
        """Print a line; do what the real program does at this point."""
        if line.startswith("Starting data set ") and self.case.delivered(f"{self.case.root}.st"):
            self.move_stack()
        if line.startswith("Created dataset directory "):
            self.folder.mkdir()
        self.say(self.own_words(line))
        found = STEP.search(line)
        if found or line.startswith("Starting data set "):
            self.work()
            step = (found.group(1) or found.group(2)) if found else "setup"
            while step == self.hold:
                self.look_for_quit()
                time.sleep(0.02)

    def say(self, line: str) -> None:
        self.log.append(line)
        print(line, flush=True)

    def own_words(self, text: str) -> str:
        """The recorded names replaced by those of this run."""
        text = re.sub(r"place a Q in the file: .*", f"place a Q in the file: {self.check}", text)
        text = re.sub(r"/scratch/(?:tomo|small)/out\b", str(self.folder.parent), text)
        text = re.sub(r"/scratch/(?:tomo|small)/in\b", str(self.current), text)
        return re.sub(rf"\b{re.escape(self.case.root)}(?=\b|_|fid|local)", self.root, text)

    def wait(self, started: float, at: float) -> None:
        self.look_for_quit()
        while self.speed and time.monotonic() - started < at / self.speed:
            time.sleep(min(0.02, at / self.speed))
            self.look_for_quit()

    def look_for_quit(self) -> None:
        if self.deaf or not self.check.exists() or not self.check.read_text().startswith("Q"):
            return
        self.stop_child()
        self.say("RECEIVED SIGNAL TO QUIT, JUST EXITING")
        sys.exit(0)

    def work(self) -> None:
        """A child, as each step has one under processchunks."""
        self.stop_child()
        self.child = subprocess.Popen(["sleep", "3600"])

    def stop_child(self) -> None:
        if self.child is not None:
            self.child.kill()
            self.child.wait()
            self.child = None

    def move_stack(self) -> None:
        """Renamed, never copied: both folders must be on one file system."""
        self.folder.mkdir(exist_ok=True)
        source = next(
            (p for p in (self.current / f"{self.root}{s}" for s in (".st", ".mrc")) if p.exists()), None
        )
        if source is None:
            self.say(
                f"ABORT SET: Stack file {self.root} does not exist in {self.current} with either extension"
            )
            sys.exit(1)
        self.scale = source.stat().st_size / self.case.stack_bytes
        source.rename(self.folder / f"{self.root}.st")
        for suffix, name in ((f"{source.suffix}.mdoc", ".st.mdoc"), (".rawtlt", ".rawtlt")):
            beside = self.current / f"{self.root}{suffix}"
            if beside.exists():
                beside.rename(self.folder / f"{self.root}{name}")

    def take_space(self, row: tuple[float, int, int]) -> None:
        """The most that was used from here on, beside what was there at the start."""
        if not self.folder.is_dir():
            return
        size = int(max(0, row[2] - self.case.disk[0][1]) * self.scale)
        with open(self.filler, "wb") as file:
            if size:
                os.posix_fallocate(file.fileno(), 0, size)

    def leave_files(self) -> None:
        """Files of the recorded sizes, the large ones in proportion; logs with what they said."""
        if not self.folder.is_dir():
            return
        with contextlib.suppress(FileNotFoundError):
            self.filler.unlink()
        prefix = f"/{self.case.root}/"
        for size, recorded in self.case.files:
            if prefix not in recorded:
                continue
            path = self.folder / self.own_words(recorded.split(prefix, 1)[1])
            if path.exists():
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.name == f"{self.root}.rec":
                self.write_tomogram(path)
            else:
                with open(path, "wb") as file:
                    file.truncate(int(size * self.scale) if size > LARGE_BYTES else size)
        for name in self.case.logs():
            (self.folder / name).write_text(self.own_words(self.case.text(name)))
        (self.folder / "batchruntomo.log").write_text("\n".join(self.log) + "\n")

    def write_tomogram(self, path: Path) -> None:
        """Of the size that the directives ask for, thickness as z; 16 bits a voxel."""
        with open(self.folder / f"{self.root}.st", "rb") as file:
            nx, ny = struct.unpack("<2i", file.read(8))
        told = self.directives.read_text()
        binning = int((re.search(r"AlignedStack\.any\.binByFactor\s*=\s*(\d+)", told) or [0, 1])[1])
        thickness = int((re.search(r"tilt\.tilt\.THICKNESS\s*=\s*(\d+)", told) or [0, 180])[1])
        nx, ny, nz = nx // binning, ny // binning, thickness // binning
        header = bytearray(1024)
        struct.pack_into("<4i", header, 0, nx, ny, nz, 1)
        struct.pack_into("<3i3f", header, 28, nx, ny, nz, nx, ny, nz)
        struct.pack_into("<3i3f", header, 64, 1, 2, 3, -1000.0, 1000.0, 0.0)
        header[208:216] = b"MAP \x44\x44\x00\x00"
        with open(path, "wb") as file:
            file.write(header)
            for z in range(nz):
                for y in range(ny):
                    shade = (7 * y + 13 * z) % 200
                    array.array("h", [(x * 11 + shade) % 2000 - 1000 for x in range(nx)]).tofile(file)


def read_arguments(words: list[str]) -> dict[str, str]:
    """Options by their full names; ends the program as the real one does for what it does not take."""
    options: dict[str, str] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("-"):
            options["directive"] = word
            continue
        name = SHORT.get(word[1:]) or next((n for n in (*VALUED, *FLAGS) if n.startswith(word[1:])), None)
        if name is None:
            refuse(f"Illegal option: {word[1:]}")
        elif name in FLAGS:
            options[name] = "1"
        else:
            options[name] = rest.pop(0)
    cpus = options.get("cpus", "")
    if cpus.isdigit() and not 2 <= int(cpus) <= 128:
        refuse("A number of cores entered with -cpus must be between 2 and 128")
    if any(each.endswith(("#0", "#1")) for each in cpus.split(",")):
        refuse(f"The value after # is less than 2 in {cpus}")
    return options


def refuse(why: str) -> None:
    print(f"ERROR: batchruntomo - {why}", flush=True)
    sys.exit(1)


def tracks_patches(path: Path) -> bool:
    told = path.read_text() if path.is_file() else ""
    return bool(re.search(r"^runtime\.Fiducials\.any\.trackingMethod\s*=\s*1\s*$", told, re.MULTILINE))


def validate(case: Case, options: dict[str, str], hold: str) -> int:
    """``-validation``: what the recorded run found wrong with its directives, or nothing."""
    path = Path(options.get("directive", ""))
    if not path.is_file():
        refuse(f"Directive file {path} does not exist")
    kind = "template" if options["validation"] == "2" else "directive"
    print(f"Beginning to process {kind} file {path}", flush=True)
    while hold == "validate":
        time.sleep(0.02)
    lines = [line for _, line in case.lines]
    if "ABORT SET: Bad directives" in lines and kind == "directive":
        print("\n".join(lines[lines.index("ERROR: Incorrect directive(s) as listed below:") :]), flush=True)
        return 1
    print("Directives all seem OK in that file", flush=True)
    return 0


def main() -> int:
    if "IMOD_DIR" not in os.environ:
        print("ERROR: batchruntomo -  IMOD_DIR is not defined!", flush=True)
        return 1
    wishes = json.loads(Path(os.environ["IMOD_DIR"], "standin.json").read_text())
    case = Case(Path(wishes["case"]))
    options = read_arguments(sys.argv[1:])
    if "patches" in wishes and tracks_patches(Path(options.get("directive", ""))):
        case = Case(Path(wishes["patches"]))
    if options.get("validation", "0") in ("1", "2"):
        return validate(case, options, str(wishes.get("hold", "")))
    try:
        return Replay(case, wishes, options).run()
    except KeyboardInterrupt:
        print("Detected keyboard interrupt, told processchunks to quit", flush=True)
        return 1


if __name__ == "__main__":
    sys.exit(main())
