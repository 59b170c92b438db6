"""Directive templates: further words for the resource manager, filled in with what a dataset is.

A template is one line of text from the policy; the values come from folder names, so they are cleaned to
``[A-Za-z0-9._-]`` before they meet it.  What becomes of a directive is the resource manager plugin's matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

PLACEHOLDERS = (
    "feed",
    "microscope",
    "project",
    "session",
    "pipeline",
    "account",
    "queue",
    "priority",
    "nodes",
    "cores",
    "threads",
)
_FIELD = re.compile(r"\{([a-z_][a-z0-9_]*)\}")


def fields_of(template: str) -> set[str] | None:
    """Names of the placeholders; ``None`` where a brace is none.

    >>> sorted(fields_of("-W group_list={project} {feed}")), fields_of("{a!r}"), fields_of("{{a}}")
    (['feed', 'project'], None, None)
    """
    rest = _FIELD.sub("", template)
    return None if "{" in rest or "}" in rest else set(_FIELD.findall(template))


def filled(templates: Iterable[str], values: Mapping[str, object]) -> tuple[str, ...]:
    """The directives of one job; one whose placeholder has no value (no project, say) is left out.

    >>> filled(["-W group_list={project}", "-l {queue}"], {"project": "a b$(x)", "queue": ""})
    ('-W group_list=a_b_x_',)
    """
    made = []
    for template in templates:
        names = _FIELD.findall(template)
        clean = {name: re.sub(r"[^A-Za-z0-9._-]+", "_", str(values.get(name, ""))) for name in names}
        if all(clean.values()):
            made.append(_FIELD.sub(lambda match, clean=clean: clean[match.group(1)], template))  # type: ignore[misc]
    return tuple(made)
