"""Policies from files: the shipped one with others laid over it, as the daemon lays them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path

from tiltd.daemon.core.model import Policy
from tiltd.policy.policy import DEFAULT_NAME, PolicyError, load

MAX_FILE_BYTES = 1_000_000


class Refused(Exception):
    """No policy can be made of the files; ``faults`` has all of them, each with file and line where it is
    one of a file's text."""

    def __init__(self, faults: Sequence[PolicyError]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)


def policy_of(paths: Iterable[Path], *, tested: bool = True) -> Policy:
    """The shipped policy with these files over it; of a folder all ``*.toml`` in the order of their names.

    Raises Refused.
    """
    texts, faults = [shipped()], []
    for path in files_of(paths):
        try:
            texts.append((str(path), _text(path)))
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            faults.append(PolicyError(file=str(path), line=1, key="", message=f"cannot be read: {reason}"))
    if faults:
        raise Refused(faults)
    found = load(texts, tested=tested)
    if isinstance(found, Policy):
        return found
    raise Refused(found)


def shipped() -> tuple[str, str]:
    text = resources.files("tiltd.policy").joinpath(DEFAULT_NAME).read_text(encoding="utf-8")
    return DEFAULT_NAME, text


def files_of(paths: Iterable[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        found += sorted(path.glob("*.toml")) if path.is_dir() else [path]
    return found


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"it is larger than {MAX_FILE_BYTES} bytes, so it is no policy")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text; save it as UTF-8") from None
