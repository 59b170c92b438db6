"""What qsub is told: its options, the ``#PBS`` lines of the script, and the resources in ``-l``."""

from __future__ import annotations

import dataclasses
import getopt
import re
from collections.abc import Iterator
from pathlib import Path

from .records import HOST, Call, NodeAsk, Refused, said, seconds, size_bytes

OPTIONS = "a:A:b:c:C:d:D:e:fF:hIj:k:K:l:L:m:M:n:N:o:p:P:q:r:S:t:T:u:v:VW:xXz"
USAGE = "\n\nusage: qsub [-a date_time] [-A account_string] [-l resource_list] [-N name] ... [script]\n"
KNOWN_RESOURCES = {"nodes", "walltime", "mem", "vmem", "pmem", "pvmem", "file", "cput", "ncpus", "nice"}
SIZES = {"mem", "vmem", "pmem", "pvmem", "file"}
TIMES = {"walltime", "cput"}
NAME = re.compile(r"[!-~]*")
SYNTAX = Refused(27, "Command syntax invalid MSG=Invalid Syntax")


@dataclasses.dataclass
class Asked:
    """A submission before the server has had its say.  ``options`` holds what has no field of its own."""

    script: str
    name: str
    submit_args: str
    folder: str
    queue: str = ""
    resources: dict[str, str] = dataclasses.field(default_factory=dict)
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    hold: bool = False
    quiet: bool = False


class Usage(Exception):
    """qsub itself will not have it: its exit code and its words."""

    def __init__(self, rc: int, words: str) -> None:
        super().__init__(words)
        self.rc, self.words = rc, words


def read_qsub(call: Call) -> Asked:
    """Raises Usage, and Refused for what only the server would say."""
    pairs, rest = _pairs(list(call.argv))
    name, script = _script(call, rest)
    directives, _ = _pairs([word for line in _directives(script) for word in line.split()])
    asked = Asked(script, name, " ".join(call.argv), call.folder)
    for option, value in (*directives, *pairs):  # what stands on the command line wins
        _take(asked, option[1:], value, call)
    return asked


def _pairs(argv: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    try:
        return getopt.getopt(argv, OPTIONS)
    except getopt.GetoptError as error:
        raise Usage(2, f"qsub: invalid option -- '{error.opt}'\n[exiting]{USAGE}") from None


def _script(call: Call, rest: list[str]) -> tuple[str, str]:
    if not rest:
        return "STDIN", call.stdin.decode("utf-8", "surrogateescape")
    path = Path(call.folder, rest[0])
    try:
        text = path.read_bytes()
    except OSError as error:
        words = f"qsub: script file '{rest[0]}' cannot be loaded - {error.strerror}\n"
        raise Usage(1, words) from None
    if b"\r\n" in text:
        raise Usage(1, "qsub:  script is written in DOS/Windows text format\n")
    return path.name, text.decode("utf-8", "surrogateescape")


def _directives(script: str) -> Iterator[str]:
    """The ``#PBS`` lines before the first command."""
    for line in script.split("\n"):
        if line.startswith("#PBS"):
            yield line[4:]
        elif line.strip() and not line.startswith("#"):
            return


def _take(asked: Asked, letter: str, value: str, call: Call) -> None:
    if letter == "N":
        if not NAME.fullmatch(value):
            raise Usage(2, f"[qsub: illegal -N value]{USAGE}")
        asked.name = value or "none"
    elif letter == "q":
        asked.queue = value
    elif letter == "l":
        asked.resources.update(_resources(value))
    elif letter == "v":
        asked.variables.update(_variables(value, call))
    elif letter == "V":
        asked.variables.update(call.environment)
    elif letter == "h":
        asked.hold = True
    elif letter == "z":
        asked.quiet = True
    elif letter == "W":
        _attributes(asked, value)
    else:
        asked.options[letter] = _checked(letter, value, call)


def _checked(letter: str, value: str, call: Call) -> str:
    if letter == "p" and not (value.lstrip("+-").isdigit() and -1024 <= int(value) <= 1023):
        raise Usage(2, f"[qsub: illegal -p value]{USAGE}")
    if letter == "d" and not Path(call.folder, value).is_dir():
        raise Usage(2, f"[qsub: illegal -d value]{USAGE}")
    if letter == "r" and value not in ("y", "n"):
        raise Usage(2, f"[qsub: illegal -r value]{USAGE}")
    return value


def _attributes(asked: Asked, value: str) -> None:
    """``-W``: only dependencies and mail masks matter here."""
    key, _, what = value.partition("=")
    if key == "umask" and not re.fullmatch("[0-7]{1,4}", what):
        raise Usage(2, f"[qsub: Invalid umask value, too many digits: {what}]{USAGE}")
    if key == "depend":
        asked.depends_on = tuple(what.partition(":")[2].split(":"))
    else:
        asked.options[f"W{key}"] = what


def _variables(value: str, call: Call) -> dict[str, str]:
    """Commas part, and a newline comes out as one; a bare name is taken from the environment."""
    found = {}
    for item in value.split(","):
        name, equals, text = item.replace("\n", ",").partition("=")
        found[name] = text if equals else call.environment.get(name, "")
    return found


def _resources(value: str) -> dict[str, str]:
    found = {}
    for item in value.split(","):
        name, equals, text = item.partition("=")
        if not equals or not text or text.endswith("="):
            raise SYNTAX
        found[name] = text
    return found


# -- what the server makes of it -----------------------------------------------------------------------------


def check_resources(resources: dict[str, str]) -> None:
    """Raises Refused for a name or a value that the server does not know."""
    for name, value in resources.items():
        if name not in KNOWN_RESOURCES:
            raise Refused(189, f"Unknown resource type  Resource_List.{name}")
        try:
            if name in SIZES:
                size_bytes(value)
            elif name in TIMES:
                seconds(value)
        except ValueError:
            raise Refused(168, f"Illegal attribute or resource value for Resource_List.{name}") from None


def node_asks(nodes: str) -> tuple[NodeAsk, ...]:
    """``1:tomography:ppn=4``, ``core-014:ppn=4+core-012:ppn=4``.  Raises Refused."""
    return tuple(_node_ask(part) for part in nodes.split("+"))


def _node_ask(part: str) -> NodeAsk:
    first, *rest = part.split(":")
    ppn, properties = 1, []
    for word in rest:
        if word.startswith("ppn="):
            if not word[4:].isdigit() or not int(word[4:]):
                raise SYNTAX
            ppn = int(word[4:])
        else:
            properties.append(word)
    if not first:
        raise SYNTAX
    if first.isdigit():
        return NodeAsk(int(first), ppn, tuple(properties))
    return NodeAsk(1, ppn, tuple(properties), host=first)


def standard_path(value: str, folder: str) -> str:
    """Where output goes, as ``host:path``; ``value`` may have a host or none, be relative, or a folder."""
    host, colon, path = value.partition(":")
    if not colon:
        host, path = HOST, value
    return f"{host}:{path if path.startswith('/') else f'{folder}/{path}'}"


def words_of(error: Usage | Refused) -> bytes:
    """As qsub says it."""
    if isinstance(error, Usage):
        return said(error.words)
    return said(f"qsub: submit error ({error.words})\n")
