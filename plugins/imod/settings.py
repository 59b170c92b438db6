"""The table ``[imod]`` of tiltd.toml: where IMOD is and where the site's templates are.  Pure.

```toml
[imod]
dir = "/opt/imod"              # IMOD_DIR on the nodes
setup = ""                     # or a script that sets IMOD up, sourced by bash
module = ""                    # or a module to load
calib_dir = ""                 # IMOD_CALIB_DIR, on the nodes
templates = "/etc/tiltd/templates"    # *.adoc, read where tiltd runs
directives_csv = ""            # where tiltd runs; "": com/directives.csv below dir, if it is there
scope_template = ""            # names of files in templates; options of a feed win
system_template = ""
user_template = ""
directive_file = ""
```
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from tiltd.daemon.core.model import Options, Record
from tiltd.plugins.api import Permanent
from tiltd.plugins.options import Option

FILE_OPTIONS = (
    Option(
        name="scope_template", default="", meaning="template of the microscope, a file of [imod] templates"
    ),
    Option(name="system_template", default="", meaning="template of the computers and the kind of sample"),
    Option(name="user_template", default="", meaning="template of the user"),
    Option(name="directive_file", default="", meaning="directives over the templates"),
)
"""Options that name files; directives themselves are options too (``comparam.tilt.tilt.THICKNESS = 800``)."""

_FOLDERS = ("dir", "calib_dir", "templates", "directives_csv", "setup")


class ImodSettings(Record):
    """Paths are absolute or "".  At most one of ``setup`` and ``module`` is set; both win over ``dir``."""

    dir: str = ""
    setup: str = ""
    module: str = ""
    calib_dir: str = ""
    templates: str = ""
    directives_csv: str = ""
    scope_template: str = ""
    system_template: str = ""
    user_template: str = ""
    directive_file: str = ""

    @property
    def files(self) -> Options:
        """The files of all feeds, as options: laid below those of the feed."""
        return {option.name: getattr(self, option.name) for option in FILE_OPTIONS}


def read_settings(table: Mapping[str, Any]) -> ImodSettings:
    """The table ``[imod]`` as written.  Raises Permanent that names the key."""
    known = ImodSettings.__struct_fields__
    for key, value in table.items():
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(known)}"
            raise Permanent(f"[imod]: unknown key {key!a}; {hint}")
        if not isinstance(value, str) or not value.isprintable():
            raise Permanent(f"[imod]: {key} must be text on one line, not {value!a}")
        if key in _FOLDERS and value and not value.startswith("/"):
            raise Permanent(f"[imod]: {key} is {value!a}; it must be an absolute path")
    if table.get("setup") and table.get("module"):
        raise Permanent("[imod]: setup and module exclude each other; say in one of them how IMOD is set up")
    return ImodSettings(**table)
