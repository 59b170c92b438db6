"""The files that the site keeps for batchruntomo, read once when the plugin is made.

The only room here that reads files: templates and directive files below ``[imod] templates``, those where
batchruntomo itself looks for them, and the table ``directives.csv``.  Everything after works on the texts, so
that the same question always has the same answer.  A changed template counts once they are read again.
"""

from __future__ import annotations

import os
from pathlib import Path

from tiltd.daemon.core.model import Record

from .directives import MAX_FILE_BYTES, TEMPLATE_KEYS, parse
from .settings import ImodSettings

MAX_FILES = 1000
SUFFIX = ".adoc"


class Shelf(Record):
    """``texts`` is path -> content of a file, ``troubles`` path -> why it could not be read.  ``places`` is
    layer -> folders in which a bare name is looked up, in order.  ``table`` is the text of directives.csv
    ("": there is none), from ``table_path``."""

    texts: dict[str, str] = {}
    troubles: dict[str, str] = {}
    places: dict[str, tuple[str, ...]] = {}
    table: str = ""
    table_path: str = ""


def read_shelf(settings: ImodSettings, environment: dict[str, str] | None = None) -> Shelf:
    """Reads some tens of small files.  Never raises: what cannot be read is told when it is asked for."""
    environment = dict(os.environ) if environment is None else environment
    places = _places(settings, environment)
    texts: dict[str, str] = {}
    troubles: dict[str, str] = {}
    if settings.templates and not Path(settings.templates).is_dir():
        troubles[settings.templates] = "is no folder; make it, or mend [imod] templates"
    for folder in dict.fromkeys(folder for folders in places.values() for folder in folders):
        for path in _files_in(Path(folder), troubles):
            _read(path, texts, troubles)
    for name in sorted(_named_elsewhere(texts)):
        _read(Path(name), texts, troubles)
    table_path = settings.directives_csv or _table_below(settings.dir or environment.get("IMOD_DIR", ""))
    table = _text(Path(table_path), troubles) if table_path else ""
    return Shelf(texts=texts, troubles=troubles, places=places, table=table, table_path=table_path)


def _places(settings: ImodSettings, environment: dict[str, str]) -> dict[str, tuple[str, ...]]:
    """Where a bare name of a template is looked up: first the site's own folder, then as batchruntomo does
    (its messages name IMOD_CALIB_DIR/ScopeTemplate, IMOD_CALIB_DIR/SystemTemplate, IMOD_DIR/SystemTemplate
    and ~/.etomotemplate)."""
    imod = settings.dir or environment.get("IMOD_DIR", "")
    calib = settings.calib_dir or environment.get("IMOD_CALIB_DIR", "")
    home = environment.get("HOME", "")
    own = (settings.templates,)
    wanted = {
        "scope template": (*own, _below(own[0], "ScopeTemplate"), _below(calib, "ScopeTemplate")),
        "system template": (
            *own,
            _below(own[0], "SystemTemplate"),
            _below(calib, "SystemTemplate"),
            _below(imod, "SystemTemplate"),
        ),
        "user template": (*own, _below(own[0], "UserTemplate"), _below(home, ".etomotemplate")),
        "directive file": own,
    }
    return {layer: tuple(folder for folder in folders if folder) for layer, folders in wanted.items()}


def _named_elsewhere(texts: dict[str, str]) -> set[str]:
    """Absolute paths of templates that directive files name, of which we have none yet."""
    named = {parse(text, name).last(key) for name, text in texts.items() for key in TEMPLATE_KEYS}
    return {name for name in named if name.startswith("/") and name not in texts}


def _below(folder: str, name: str) -> str:
    return os.path.join(folder, name) if folder else ""


def _table_below(imod: str) -> str:
    path = Path(imod, "com", "directives.csv")
    return str(path) if imod and path.is_file() else ""


def _files_in(folder: Path, troubles: dict[str, str]) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except FileNotFoundError:
        return []
    except OSError as error:
        troubles[str(folder)] = f"cannot be read: {error.strerror}"
        return []
    return [folder / name for name in names if name.endswith(SUFFIX)][:MAX_FILES]


def _read(path: Path, texts: dict[str, str], troubles: dict[str, str]) -> None:
    text = _text(path, troubles)
    if str(path) not in troubles:
        texts[str(path)] = text


def _text(path: Path, troubles: dict[str, str]) -> str:
    if path.is_fifo() or path.is_char_device():  # would never end
        troubles[str(path)] = "is no ordinary file"
        return ""
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        troubles[str(path)] = f"cannot be read: {error.strerror}"
        return ""
    if len(content) > MAX_FILE_BYTES:
        troubles[str(path)] = f"is larger than {MAX_FILE_BYTES} bytes, so it is no file of directives"
        return ""
    return content.decode("utf-8", "surrogateescape")
