"""Plugin name -> factory, by entry points; the built-in plugins come through the same door as strangers'."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal, cast

from tiltd.daemon.text import shown
from tiltd.plugins.api import Context, Factory

Kind = Literal["resource_manager", "pipeline", "detector", "notifier"]

GROUPS: dict[Kind, str] = {
    "resource_manager": "tiltd.resource_managers",
    "pipeline": "tiltd.pipelines",
    "detector": "tiltd.detectors",
    "notifier": "tiltd.notifiers",
}


class RegistryError(Exception):
    """A plugin that is not known or cannot be made; the message is one sentence for a person."""


def names(kind: Kind) -> list[str]:
    """Names of all installed plugins of a kind, sorted."""
    return sorted({point.name for point in entry_points(group=GROUPS[kind])})


def factory(kind: Kind, name: str) -> Factory:
    """What the entry point names.  Raises RegistryError (unknown, ambiguous, or failing to import)."""
    point = _point(kind, name)
    try:
        made = point.load()
    except Exception as error:  # a stranger's module may raise anything while it is imported
        raise RegistryError(
            f"{_words(kind)} {name!r} ({point.value}) cannot be imported: {_reason(error)}"
        ) from error
    if not callable(made):
        raise RegistryError(f"{_words(kind)} {name!r} ({point.value}) is no factory: it cannot be called")
    return cast(Factory, made)


def make(kind: Kind, name: str, settings: Mapping[str, Any], context: Context) -> Any:
    """The plugin itself, from its own table of tiltd.toml.  Raises RegistryError."""
    made = factory(kind, name)
    try:
        return made(settings, context)
    except Exception as error:  # the table is the operator's, the code perhaps a stranger's
        raise RegistryError(f"{_words(kind)} {name!r} cannot be made: {_reason(error)}") from error


def _point(kind: Kind, name: str) -> EntryPoint:
    points = {point.value: point for point in entry_points(group=GROUPS[kind], name=name)}
    if len(points) == 1:
        return next(iter(points.values()))
    if points:
        raise RegistryError(
            f"{_words(kind)} {name!r} is given by more than one package ({', '.join(sorted(points))}); "
            "uninstall all but one"
        )
    known = names(kind)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise RegistryError(
        f"there is no {_words(kind)} {shown(name)!r}; {hint}installed are: {', '.join(known) or 'none'}"
    )


def _words(kind: Kind) -> str:
    return kind.replace("_", " ")


def _reason(error: Exception) -> str:
    return f"{type(error).__name__}: {shown(str(error))}"
