"""The site's directives, as one object: what a run of a series is given, and what can be said of it.  Pure.

    templates, directive file --+
    what the series says -------+--merge--> effective directives --check, traps--> faults, or the run's files
    options (feed, policy, ...)-+

The files were read when it was made (:mod:`.shelf`); from then on the same question has the same answer.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from msgspec.structs import replace

from tiltd.daemon.core.model import Options, Record, TiltSeries
from tiltd.daemon.text import shown
from tiltd.plugins.api import DirectiveFault, DirectiveRow, Permanent

from .csv_table import Entry, Table, read_table
from .dataset import DATASET_DIRECTORY, OF_SERIES, for_run, header_scan, of_series
from .demand import Demand, demand_of
from .directives import TEMPLATE_KEYS, Directive, Origin, Parsed, from_options, parse, render
from .known import KNOWN
from .merge import LAYERS, TEMPLATES, Effective, merge, said, without
from .settings import FILE_OPTIONS, ImodSettings, read_settings
from .shelf import Shelf, read_shelf
from .steps import ROOT, TEMPLATE_FILE
from .traps import FIDUCIALLESS, Given, traps
from .validate import validate

ERRORS_TOLD = 20
"""Errors in the one sentence of a rejection, which is kept in the dataset's story."""


class Ready(Record):
    """All that a run of one series is given.  ``batch_text`` is its directive file, ``template_text`` has the
    few directives that may stand in a template only ("": there are none).  ``one_core``: batchruntomo gets
    no ``-cpus``, however many cores its job has."""

    effective: Effective
    demand: Demand
    faults: tuple[DirectiveFault, ...]
    batch_text: str
    template_text: str
    one_core: bool = False


class Book:
    """Made of the tables of tiltd.toml: :meth:`of`.  ``table`` is the installation's, or what tiltd knows."""

    def __init__(self, settings: ImodSettings, shelf: Shelf) -> None:
        self.settings = settings
        self._take(shelf)

    def _take(self, shelf: Shelf) -> None:
        self.table, self.table_trouble = _table(shelf)
        self._shelf = shelf
        self._parsed = {
            (layer, path): parse(text, path, layer)
            for path, text in shelf.texts.items()
            for layer in (*TEMPLATES, "directive file")
        }

    @classmethod
    def of(cls, table: Mapping[str, Any]) -> Book:
        """From the table ``[imod]``: reads the site's files.  Raises Permanent for a wrong key."""
        settings = read_settings(table)
        return cls(settings, read_shelf(settings))

    def ready(
        self,
        series: TiltSeries,
        options: Options,
        *,
        root: str = ROOT,
        cores: int = 1,
        template_path: str = TEMPLATE_FILE,
        origins: Mapping[str, str] | None = None,
    ) -> Ready:
        """What a run of ``series`` on ``cores`` cores is given, whether or not it is right.

        ``root`` is the safe name on scratch, ``template_path`` what the directive file calls the template if
        one is needed (absolute, or a name below ``$HOME/.etomotemplate``).  Raises Permanent for a file that
        is not there and for a series without a size.  Cost: the directives, some 0.2 ms for 70 of them.
        """
        files = self._files(options)
        own = from_options(options, _origins(origins or {}))
        base, spoken = [file.directives for file in files], of_series(series)
        first = merge((*base, spoken, own))
        merged = merge((*base, (*spoken, *header_scan(first)), own, for_run(first, root)))
        merged = without(merged, (DATASET_DIRECTORY,), "a run works on node-local scratch")
        merged = without(merged, TEMPLATE_KEYS, "templates are merged by tiltd")
        found = validate(merged.directives.values(), self.table)
        wrong = {fault.key for fault in found if fault.severity == "error"}
        late = traps(Given(effective=merged, series=series, cores=cores))
        faults = (
            *(fault for file in files for fault in file.faults),
            *found,
            *(fault for fault in late if fault.key not in wrong),
        )
        return Ready(
            effective=merged,
            demand=demand_of(series, merged, 1 if merged.flag(FIDUCIALLESS) else cores),
            faults=faults,
            one_core=merged.flag(FIDUCIALLESS),
            **self._texts(merged, template_path),
        )

    def checked_ready(self, series: TiltSeries, options: Options, **how: Any) -> Ready:
        """As :meth:`ready`, but raises Permanent with the first errors that there are."""
        ready = self.ready(series, options, **how)
        if errors := [told(fault) for fault in ready.faults if fault.severity == "error"]:
            rest = len(errors) - ERRORS_TOLD
            more = (f"{rest} more, see tiltd directives show",) if rest > 0 else ()
            raise Permanent("the directives are wrong: " + "; ".join((*errors[:ERRORS_TOLD], *more)))
        return ready

    # -- DirectiveBook ---------------------------------------------------------------------------------------

    def shown_for(
        self, series: TiltSeries, options: Options, origins: Mapping[str, str], cores: int = 1
    ) -> tuple[tuple[DirectiveRow, ...], tuple[DirectiveFault, ...]]:
        """Rows sorted by key, and what is wrong.  Raises Permanent as :meth:`ready`."""
        ready = self.ready(series, options, cores=cores, origins=origins)
        return ready.effective.rows(), ready.faults

    def explained(self, key: str) -> tuple[str, ...]:
        """Lines about one directive.  Raises Permanent with the nearest ones."""
        entry = self.table.find(key)
        if entry is None:
            alike = [other for other in self.table.entries if other.lower().endswith(f".{key}".lower())]
            ends = [other for other in alike if other.endswith(f".{key}")]
            if len(ends := ends or alike) != 1:
                raise Permanent(_not_one(key, ends, self.table))
            entry = self.table.entries[ends[0]]
        return tuple(explanation(entry, self.table))

    def checked(self, text: str, name: str, template: bool) -> tuple[DirectiveFault, ...]:
        """What is wrong with the text of a file.  A directive file is looked at with the templates that it
        names too: what would fail late is a warning, because a feed's options may mend it."""
        parsed = parse(text, name, TEMPLATES[0] if template else "directive file")
        last = {each.key: each for each in parsed.directives}
        found = (*parsed.faults, *validate(last.values(), self.table))
        if not template:
            known = {fault.key for fault in found}
            found = (*found, *(fault for fault in self._doubts(parsed) if fault.key not in known))
        return tuple(sorted(found, key=lambda fault: fault.line))

    def _doubts(self, parsed: Parsed) -> Iterator[DirectiveFault]:
        """Templates that it names and that are not there; traps.  What it leaves unset is told only where it
        names templates, because a feed's options may name them too."""
        files, missing = [], False
        for key, layer in TEMPLATE_KEYS.items():
            if named := parsed.last(key):
                try:
                    files.append(self._file(named, layer, key))
                except Permanent as error:
                    missing = True
                    line = next(each.origin.line for each in parsed.directives if each.key == key)
                    yield DirectiveFault(sentence=str(error), file=parsed.name, line=line, severity="warning")
        merged = merge((*(file.directives for file in files), parsed.directives))
        for fault in () if missing else traps(Given(effective=merged)):
            if fault.key not in OF_SERIES and (files or fault.key in merged.directives):
                yield replace(fault, file=fault.file or parsed.name, severity="warning")

    def sources(self) -> tuple[str, tuple[str, ...]]:
        """Table and files, and what is wrong with them.  That a directive file names a template which is not
        there is told where that file is used: options may name another one."""
        found = f"{len(self.table.entries)} directives in {shown(self.table.source)}"
        places = {folder.rstrip("/") for folders in self._shelf.places.values() for folder in folders}
        troubles = [
            f"{shown(path)} {trouble}"
            for path, trouble in sorted(self._shelf.troubles.items())
            if self._is_own(path) or {path, path.rpartition("/")[0]} & places
        ]
        troubles += [told(fault) for fault in self.own_faults() if fault.file not in self._shelf.troubles]
        if self.table_trouble:
            troubles.append(self.table_trouble)
        return f"{found}, {len(self._shelf.texts)} templates and directive files", tuple(troubles)

    def read_again(self) -> Callable[[], None] | tuple[str, ...]:
        """A template with a fault would have every waiting series rejected: then nothing changes."""
        shelf = read_shelf(self.settings)
        faults = tuple(told(fault) for fault in Book(self.settings, shelf).own_faults())
        return faults or partial(self._take, shelf)

    def own_faults(self) -> Iterator[DirectiveFault]:
        """The errors of the site's own files.  In the folder itself lie templates and directive files alike,
        so each is judged as what it fits best."""
        own = f"{self.settings.templates.rstrip('/')}/"
        for path, trouble in sorted(self._shelf.troubles.items()):
            if self._is_own(path):
                yield DirectiveFault(sentence=trouble, file=path)
        for path, text in sorted(self._shelf.texts.items()):
            if self._is_own(path):
                kinds = (True,) if "/" in path.removeprefix(own) else (True, False)
                found = [[f for f in self.checked(text, path, k) if f.severity == "error"] for k in kinds]
                yield from min(found, key=len)

    def _is_own(self, path: str) -> bool:
        """The folder of templates that the settings name, or below it?"""
        own = f"{self.settings.templates.rstrip('/')}/"
        return bool(self.settings.templates) and f"{path}/".startswith(own)

    # -- files -----------------------------------------------------------------------------------------------

    def _files(self, options: Options) -> list[Parsed]:
        """Those of one dataset, low to high.  A directive file may name templates; options win over it."""
        names = {key: str(value) for key, value in self.settings.files.items() if value}
        names |= {o.name: str(options[o.name]) for o in FILE_OPTIONS if o.name in options}
        found: list[Parsed] = []
        batch = None
        if named := names.get("directive_file"):
            batch = self._file(named, "directive file", "directive_file")
        for key, layer in TEMPLATE_KEYS.items():
            option = layer.replace(" ", "_")
            if named := names.get(option, "") or (batch.last(key) if batch else ""):
                found.append(self._file(named, layer, option if names.get(option) else key))
        return [*found, batch] if batch else found

    def _file(self, name: str, layer: str, asked_by: str) -> Parsed:
        shelf = self._shelf
        if name.startswith("/"):
            paths = [name]
        elif "/" in name:
            raise Permanent(f"{asked_by} is {name!a}; it has to be a file name or an absolute path")
        else:
            paths = [f"{folder.rstrip('/')}/{name}" for folder in shelf.places.get(layer, ())]
        for path in paths:
            if path in shelf.texts:
                return self._parsed[layer, path]
            if path in shelf.troubles:
                raise Permanent(f"{asked_by}: {shown(path)} {shelf.troubles[path]}")
        raise Permanent(_no_file(name, layer, asked_by, shelf))

    def _texts(self, merged: Effective, template_path: str) -> dict[str, str]:
        """``batch_text`` and ``template_text``.  What may stand in a template only needs one of its own; what
        no table knows stays in the kind of file that it was found in."""
        batch: list[Directive] = []
        template: list[Directive] = []
        for each in sorted(merged.directives.values(), key=_place):
            entry = self.table.find(each.key)
            own_place = each.origin.layer not in TEMPLATES if entry is None else entry.batch
            (batch if own_place else template).append(each)
        if template:
            batch.append(
                said("setupset.userTemplate", template_path, "tiltd", "what only templates may have")
            )
        return {
            "batch_text": _rendered(batch, "directives of one run, merged by tiltd"),
            "template_text": _rendered(template, "what only a template may have") if template else "",
        }


def told(fault: DirectiveFault) -> str:
    """A fault as one line: where, key, sentence."""
    where = (
        f"{shown(fault.file)}:{fault.line}: "
        if fault.line
        else f"{shown(fault.file)}: "
        if fault.file
        else ""
    )
    return f"{where}{shown(fault.key)} {fault.sentence}" if fault.key else f"{where}{fault.sentence}"


def explanation(entry: Entry, table: Table) -> Iterator[str]:
    """An entry for people, line by line."""
    yield entry.key
    yield f"  {entry.definition or '(no definition)'}"
    yield f"  type     {entry.type}: {TYPE_WORDS[entry.type]}"
    places = [word for word, may in (("directive file", entry.batch), ("template", entry.template)) if may]
    yield f"  place    {' or '.join(places) or 'nowhere'}"
    for value, meaning in entry.choices:
        yield f"  choice   {value}: {meaning}"
    if entry.notes:
        yield f"  note     {entry.notes}"
    if entry.ours:
        yield f"  tiltd    {entry.ours}"
    yield f"  source   {shown(table.source)}"


TYPE_WORDS = {
    "Bool": "0 or 1",
    "Int": "a whole number",
    "Float": "a number",
    "2 Int": "two whole numbers",
    "2 Float": "two numbers",
    "List": "numbers and ranges, such as 1,4-6",
    "File": "a file that the nodes can read",
    "String": "text",
}


def _table(shelf: Shelf) -> tuple[Table, str]:
    """The installation's table, or what tiltd knows and why."""
    if not shelf.table:
        trouble = shelf.troubles.get(shelf.table_path, "")
        return KNOWN, f"{shelf.table_path} {trouble}" if trouble else ""
    try:
        return read_table(shelf.table, shelf.table_path, KNOWN), ""
    except ValueError as error:
        return KNOWN, str(error)


def _origins(origins: Mapping[str, str]) -> dict[str, Origin]:
    """``feed NAME`` -> Origin(layer="feed", source="NAME")."""
    found = {}
    for key, words in origins.items():
        layer, _, source = words.partition(" ")
        found[key] = Origin(layer=layer, source=source)
    return found


def _place(directive: Directive) -> tuple[int, str, str]:
    """In the order of the layers, so that files tell who set what."""
    origin = directive.origin
    return LAYERS.index(origin.layer), origin.source, directive.key


def _rendered(directives: list[Directive], heading: str) -> str:
    return render(
        (each for each in directives if each.key.isprintable() and each.value.isprintable()), heading
    )


def _no_file(name: str, layer: str, asked_by: str, shelf: Shelf) -> str:
    folders = shelf.places.get(layer, ())
    known = sorted({path.rsplit("/", 1)[-1] for path in shelf.texts})
    near = difflib.get_close_matches(name.rsplit("/", 1)[-1], known, n=1)
    hint = f"; did you mean {shown(near[0])!r}?" if near else ""
    where = (
        f"none of {', '.join(folders)} has it"
        if folders
        else "no folder of templates is set: [imod] templates"
    )
    if name.startswith("/"):
        where = "it was not there when tiltd started; put it into the folder [imod] templates"
    return f"{asked_by} is {shown(name)!r}, but {where}{hint}"


def _not_one(key: str, ends: list[str], table: Table) -> str:
    if ends:
        return f"{shown(key)!r} may be {', '.join(ends[:10])}; give more of it"
    near = table.near(key, 3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{shown(key)!r} is not in {shown(table.source)}{hint}"
