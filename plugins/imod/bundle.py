"""The result bundle of batchruntomo: which files are kept, and the step that gathers them.  Pure.

The step runs :mod:`.bundle_program` on the node; its text travels with the job, so that nothing has to be
installed there.  In the result stand the tomogram, ``thumbnails/``, ``curves.json`` and, below ``imod/``, the
kept files under their own names, flat as eTomo wants them.  All else goes with the scratch folder.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from tiltd.daemon.core.model import JobFile, Step
from tiltd.plugins.api import Permanent
from tiltd.plugins.options import Option

STEP = "bundle"
PROGRAM = "bundle.py"
SMALL_FILES_BYTES = 30_000_000
"""Alignment, logs and settings; 82 recorded runs left at most 0.4 MB of them (41 views)."""

OPTIONS = (
    Option(
        name="keep",
        default="alignment, logs, settings",
        meaning="what is kept beside the tomogram: alignment, logs, settings, aligned_stack, coarse_stack, "
        "fixed_stack, full_tomogram, everything",
    ),
)
"""An option of the pipeline, so that a feed or a rule of the policy can say what is kept."""

GROUPS: dict[str, tuple[str, ...]] = {
    "alignment": (
        *("*.xf", "*.tlt", "*.xtilt", "*.tltxf", "*.prexf", "*.prexg", "*.rawtlt", "*.zfac", "*.seed"),
        *("*.fid", "*fid.xyz", "*.3dmod", "*.resid", "*.resmod", "*_peak.mod", "tomopitch.mod", "*.mdoc"),
    ),
    "logs": ("*.log", "processchunks.out", "autofidseed.info"),
    "settings": ("*.com", "*.adoc", "*.edf", "*.defocus"),
    "aligned_stack": ("{root}.ali", "{root}_ali.mrc"),
    "coarse_stack": ("{root}.preali", "{root}_preali.mrc"),
    "fixed_stack": ("{root}.st", "{root}.mrc", "{root}_xray.st.gz", "{root}_xray.mrc.gz"),
    "full_tomogram": ("{root}_full.rec", "{root}_full_rec.mrc", "{root}_full.srec??", "{root}_full.vsr??"),
    "everything": ("*", "*/*"),
}
"""Group -> patterns of files in the dataset's folder; only one with a slash looks into folders below it."""

DIRECTIVES = ("batch*.adoc", "batchruntomo.log")
"""Kept in any case: without them nobody can say how the tomogram was made."""


def read_keep(pipeline: str, text: str) -> tuple[str, ...]:
    """Names of groups, parted by commas.  Raises Permanent with a suggestion for a misspelt one."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in GROUPS:
            close = difflib.get_close_matches(name, GROUPS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(GROUPS)}"
            raise Permanent(f"pipeline {pipeline}: option keep names {name!a}; {hint}")
    return names


def patterns_of(names: tuple[str, ...], root: str) -> tuple[str, ...]:
    """The patterns of all these groups for a dataset whose files begin with ``root`` (a safe name)."""
    asked = [pattern for name in names for pattern in GROUPS[name]]
    return tuple(dict.fromkeys(pattern.replace("{root}", root) for pattern in (*DIRECTIVES, *asked)))


def bundle_step(names: tuple[str, ...], root: str, folder: str, tomogram: str) -> Step:
    """The last step.  ``folder`` is the dataset's (``{scratch}/...``), ``root`` the safe name that its files
    begin with, ``tomogram`` the name of the result."""
    keeping = [f"--keep={pattern}" for pattern in patterns_of(names, root)]
    argv = (
        *("{python}", f"{{input}}/{PROGRAM}", f"--folder={folder}", f"--root={root}"),
        *("--output={output}", f"--tomogram={tomogram}", *keeping),
    )
    return Step(name=STEP, argv=argv)


def bundle_file() -> JobFile:
    """The program's text, to be laid into the job's input folder.  Reads one file of this package."""
    return JobFile(name=PROGRAM, text=_PROGRAM_TEXT)


def kept_bytes(names: tuple[str, ...], stack_bytes: int, aligned_bytes: int, full_bytes: int) -> int:
    """At most what the kept files take beside the tomogram.

    ``full_bytes`` is the volume before trimming, all that SIRT keeps included.
    """
    each = {
        "aligned_stack": aligned_bytes,
        "coarse_stack": stack_bytes,
        "fixed_stack": 2 * stack_bytes,
        "full_tomogram": full_bytes,
        "everything": 3 * stack_bytes + aligned_bytes + full_bytes,
    }
    if "everything" in names:
        return SMALL_FILES_BYTES + each["everything"]
    return SMALL_FILES_BYTES + sum(each.get(name, 0) for name in names)


_PROGRAM_TEXT = Path(__file__).with_name("bundle_program.py").read_text(encoding="utf-8")
