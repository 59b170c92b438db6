"""What must hold between the values of a tiltd.toml.  Works on the raw tables, so that these faults are
told together with those of single values; what has the wrong type is passed over here."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tiltd.daemon.config_faults import Fault, Location
from tiltd.daemon.core.units import parse_bytes

_LABEL = re.compile(r"[a-z][a-z0-9_]{0,31}")
_ALWAYS_KNOWN = ("project", "session", "series", "microscope", "feed")


class _Folder(NamedTuple):
    location: Location
    path: str


def cross_checks(raw: Mapping[str, Any]) -> list[Fault]:
    """Cost grows with feeds squared (tens of feeds)."""
    feeds = _tables(raw, "feed")
    faults = list(_repeated(feeds, ("feed",)))
    for index, feed in feeds:
        faults += _templates(("feed", index), feed)
        faults += _labels(("feed", index), feed)
    faults += _overlaps(raw, feeds)
    faults += _local_nodes(raw)
    faults += _notices(raw)
    return faults


def _notices(raw: Mapping[str, Any]) -> Iterator[Fault]:
    notices = raw.get("notices")
    if not isinstance(notices, dict):
        return
    email = notices.get("email")
    if isinstance(email, dict):
        yield from _email(email)
    webhooks = _tables(notices, "webhook")
    yield from _repeated(webhooks, ("notices", "webhook"))
    for index, webhook in webhooks:
        where: Location = ("notices", "webhook", index)
        if webhook.get("name") in ("log", "email"):
            yield Fault((*where, "name"), "is the name of another channel; choose another one")
        if bool(webhook.get("url")) == bool(webhook.get("url_file")):
            yield Fault((*where, "url"), "give it a url, or a url_file that contains it, and not both")


def _email(email: Mapping[str, Any]) -> Iterator[Fault]:
    where: Location = ("notices", "email")
    if email.get("user") and not email.get("password_file"):
        yield Fault((*where, "user"), "needs a password_file beside it: a file with the password alone")
    if email.get("password_file") and not email.get("user"):
        yield Fault((*where, "password_file"), "needs the user beside it whose password that is")
    if email.get("user") and email.get("tls") == "none":
        yield Fault((*where, "tls"), 'would send the password in the clear: take "starttls" or "tls"')
    if "password" in email:
        yield Fault((*where, "password"), "put it into a file of its own, and name that: password_file")


def _tables(raw: Mapping[str, Any], name: str) -> list[tuple[int, Mapping[str, Any]]]:
    listed = raw.get(name)
    return [
        (i, table)
        for i, table in enumerate(listed if isinstance(listed, list) else [])
        if isinstance(table, dict)
    ]


def _repeated(tables: list[tuple[int, Mapping[str, Any]]], where: Location) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for index, table in tables:
        name = table.get("name")
        if not isinstance(name, str):
            continue
        if name in first:
            label = where[-1]
            yield Fault(
                (*where, index, "name"), f"{label} {first[name] + 1} has this name too; names are unique"
            )
        first.setdefault(name, index)


def _templates(where: Location, feed: Mapping[str, Any]) -> Iterator[Fault]:
    labels = feed.get("labels")
    known = set(_ALWAYS_KNOWN) | set(labels if isinstance(labels, dict) else ())
    pattern = feed.get("pattern", "")
    if isinstance(pattern, str):
        fields, trouble = _placeholders(pattern)
        known |= fields
        if trouble:
            yield Fault((*where, "pattern"), trouble)
        for name in sorted(field for field in fields if not _LABEL.fullmatch(field)):
            yield Fault((*where, "pattern"), f"{{{name}}} is no label name (a-z, then a-z 0-9 _)")
        if pattern.startswith("/") or ".." in pattern.split("/"):
            yield Fault((*where, "pattern"), "describes folders below the feed: no leading '/', no '..'")
    destination = feed.get("destination")
    if isinstance(destination, str):
        yield from _destination((*where, "destination"), destination, known)


def _destination(where: Location, template: str, known: set[str]) -> Iterator[Fault]:
    fields, trouble = _placeholders(template)
    if trouble:
        yield Fault(where, trouble)
        return
    if not template.startswith("/") or "\0" in template:
        yield Fault(where, "must be an absolute path (it begins with '/')")
    if ".." in template.split("/"):
        yield Fault(where, "must not contain '..'")
    for name in sorted(fields - known):
        yield Fault(where, f"unknown placeholder {{{name}}}; known: {', '.join(sorted(known))}")
    if "series" not in fields:
        yield Fault(where, "must contain {series}, so that each series has a folder of its own")


def _placeholders(template: str) -> tuple[set[str], str]:
    """Names in braces, and what is wrong with the template ("" if nothing)."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        return set(), f"has unbalanced braces ({error})"
    fields = {field for _, field, _, _ in parts if field is not None}
    if any("{" in literal or "}" in literal for literal, _, _, _ in parts):
        return fields, "has doubled braces; braces stand around placeholders only"
    if any(spec or conversion for _, _, spec, conversion in parts):
        return fields, "placeholders are plain names in braces, without ':' or '!'"
    return fields, ""


def _labels(where: Location, feed: Mapping[str, Any]) -> Iterator[Fault]:
    labels = feed.get("labels")
    for name in labels if isinstance(labels, dict) else ():
        if not _LABEL.fullmatch(name):
            yield Fault((*where, "labels", name), "is no label name (a-z, then a-z 0-9 _)")
        elif name in ("series", "feed"):
            yield Fault((*where, "labels", name), "is set by tiltd itself; take another name")


def _overlaps(raw: Mapping[str, Any], feeds: list[tuple[int, Mapping[str, Any]]]) -> Iterator[Fault]:
    """A feed is read-only ground: nothing that tiltd writes to may lie in it, nor it in a destination."""
    roots = [
        (str(feed.get("name", index + 1)), _Folder(("feed", index, "path"), path))
        for index, feed in feeds
        if (path := _absolute(feed.get("path")))
    ]
    for position, (name, root) in enumerate(roots):
        for other, earlier in roots[:position]:
            if _inside(root.path, earlier.path) or _inside(earlier.path, root.path):
                yield Fault(root.location, f"overlaps the folder of feed {other}; a file has one feed")
        for written in _written(raw, feeds):
            if _inside(written.path, root.path):
                yield Fault(
                    written.location, f"lies inside feed {name} ({root.path}); tiltd never writes there"
                )
            elif written.location[-1] == "destination" and _inside(root.path, written.path):
                yield Fault(
                    root.location, f"lies inside the destination {written.path}; results could meet it"
                )


def _written(raw: Mapping[str, Any], feeds: list[tuple[int, Mapping[str, Any]]]) -> Iterator[_Folder]:
    for key in ("state_dir", "spool_dir"):
        if path := _absolute(raw.get(key)):
            yield _Folder((key,), path)
    listen = raw.get("listen")
    if isinstance(listen, dict) and (path := _absolute(listen.get("socket"))):
        yield _Folder(("listen", "socket"), path)
    for index, feed in feeds:
        if path := _absolute(feed.get("import")):
            yield _Folder(("feed", index, "import"), path)
        destination = feed.get("destination")
        if isinstance(destination, str) and (path := _absolute(_fixed_part(destination))):
            yield _Folder(("feed", index, "destination"), path)
    for index, node in _local_tables(raw):
        if path := _absolute(node.get("scratch")):
            yield _Folder(("local", "node", index, "scratch"), path)


def _fixed_part(template: str) -> str:
    """The folder above the first placeholder: ``/data/tomo/{project}/x`` -> ``/data/tomo``."""
    return template.split("{", 1)[0].rpartition("/")[0] or "/" if "{" in template else template


def _absolute(value: object) -> str:
    return os.path.normpath(value) if isinstance(value, str) and value.startswith("/") else ""


def _inside(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _local_tables(raw: Mapping[str, Any]) -> list[tuple[int, Mapping[str, Any]]]:
    local = raw.get("local")
    return _tables(local, "node") if isinstance(local, dict) else []


def _local_nodes(raw: Mapping[str, Any]) -> Iterator[Fault]:
    """The table belongs to the plugin; these are its commonest mistakes, told early and with their lines."""
    nodes = _local_tables(raw)
    yield from _repeated(nodes, ("local", "node"))
    for index, node in nodes:
        where: Location = ("local", "node", index)
        if not isinstance(node.get("name"), str) or not node["name"]:
            yield Fault((*where, "name"), "is required and missing; add it")
        if "scratch" in node and not _absolute(node["scratch"]):
            yield Fault((*where, "scratch"), "must be an absolute path (it begins with '/')")
        for key in ("memory", "scratch_bytes"):
            if node.get(key, "") != "":
                yield from _size((*where, key), node[key])
        cores = node.get("cores", 1)
        if not isinstance(cores, int) or isinstance(cores, bool) or cores < 1:
            yield Fault((*where, "cores"), "must be a whole number, at least 1")


def _size(where: Location, value: object) -> Iterator[Fault]:
    try:
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise ValueError('must be a size such as "16GB"')
        parse_bytes(value)
    except ValueError as error:
        yield Fault(where, str(error))
