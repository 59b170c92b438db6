"""What the code knows by name, some page explains; what a page tells to type, there is."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, get_args

import pytest

from docs.codes import problem_codes
from docs.pages import pages
from tiltd.daemon.cli.commands import COMMANDS
from tiltd.daemon.cli.dispatch import parser_of
from tiltd.daemon.config import known_keys
from tiltd.daemon.core.model import HoldCause, State
from tiltd.plugins import batchruntomo, command, frames, wbp
from tiltd.plugins.imod import bundle
from tiltd.plugins.options import Option


def operators_text(project: Path) -> str:
    return "\n".join(text for name, text in pages(project).items() if name.startswith("docs/"))


def metadata(project: Path) -> dict[str, Any]:
    loaded = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    project_table: dict[str, Any] = loaded["project"]
    return project_table


def test_every_state_is_named(project: Path) -> None:
    text = pages(project)["docs/architecture.md"]
    assert [state.name for state in State if f"`{state.name}`" not in text] == []


def test_every_hold_cause_is_explained(project: Path) -> None:
    text = pages(project)["docs/troubleshooting.md"]
    assert [cause for cause in get_args(HoldCause) if f"| `{cause}` |" not in text] == []


def test_every_setting_is_explained(project: Path) -> None:
    text = pages(project)["docs/settings.md"]
    sections = {"" if head == "Top level" else head.strip("`[]"): body for head, body in by_heading(text)}
    missing = [
        f"[{section}] {key}"
        for section, keys in known_keys().items()
        for key in keys
        if key not in sections and f"| `{key}` |" not in sections.get(section, "")
    ]
    assert missing == []


@pytest.mark.parametrize(
    ("page", "heading", "options"),
    [
        ("pipelines", "`wbp`", wbp.OPTIONS),
        ("pipelines", "`command`", command.OPTIONS),
        ("batchruntomo", "Directives", batchruntomo.OPTIONS),
    ],
)
def test_every_option_of_a_pipeline_is_explained(
    project: Path, page: str, heading: str, options: tuple[Option, ...]
) -> None:
    body = dict(by_heading(pages(project)[f"docs/{page}.md"]))[heading]
    cells = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", body, re.MULTILINE))
    assert {name for name in cells if name in {option.name for option in options}} == {
        o.name for o in options
    }
    wrong = [o.name for o in options if o.default not in (None, "") and cells[o.name] not in spelt(o.default)]
    assert wrong == []


def spelt(default: str | int | float | bool | None) -> set[str]:
    """Ways to write a default in a table."""
    if isinstance(default, float):
        return {f"{default:g}", f"{default:.0e}".replace("e+0", "e"), str(default)}
    return {str(default).lower() if isinstance(default, bool) else str(default)}


def test_every_problem_of_a_result_is_explained(project: Path) -> None:
    for page, heading, file, known in (
        ("pipelines", "`wbp`", "plugins/wbp.py", "no_figures"),
        ("batchruntomo", "Good, doubtful, bad", "plugins/imod/log_quality.py", "few_points"),
    ):
        body = dict(by_heading(pages(project)[f"docs/{page}.md"]))[heading]
        codes = problem_codes(project, file)
        assert known in codes
        assert [code for code in sorted(codes) if f"| `{code}` |" not in body] == []


def test_every_group_that_can_be_kept_is_explained(project: Path) -> None:
    body = dict(by_heading(pages(project)["docs/batchruntomo.md"]))["The result"]
    assert [group for group in bundle.GROUPS if f"| `{group}` |" not in body] == []
    keep = bundle.OPTIONS[0].meaning
    assert [group for group in bundle.GROUPS if group not in keep] == []


def test_every_field_of_the_program_for_frames_is_explained(project: Path) -> None:
    body = dict(by_heading(pages(project)["docs/batchruntomo.md"]))["Series of frames"]
    told = re.search(r"values = \{(.*?)\n    \}", (project / "plugins/frames.py").read_text(), re.DOTALL)
    assert told is not None
    fields = [*re.findall(r'^        "(\w+)":', told[1], re.MULTILINE), *frames.RUNNER_FIELDS]
    assert "frames_list" in fields and [field for field in fields if f"`{{{field}}}`" not in body] == []


def by_heading(text: str) -> list[tuple[str, str]]:
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_has_its_page(project: Path) -> None:
    text = operators_text(project)
    assert [name for name in COMMANDS if f"`tiltd {name}" not in text] == []


def test_every_option_of_every_command_is_named(project: Path) -> None:
    text = pages(project)["docs/commands.md"]
    missing = [
        f"{name} {option}"
        for name in COMMANDS
        for option in options_of(name)
        if option not in ("--help",) and not re.search(rf"{option}(?![\w-])", text)
    ]
    assert missing == []


def options_of(command: str) -> list[str]:
    """Long options of a command's parser; none for a command that is not installed."""
    try:
        parser = parser_of(COMMANDS[command])
    except ImportError:
        return []
    return [option for action in parser._actions for option in action.option_strings if "--" in option]


def test_every_command_that_a_page_tells_is_there(project: Path) -> None:
    told = {
        (name, command)
        for name, text in pages(project).items()
        for command in re.findall(r"(?:`|bin/)tiltd ([a-z]+)\b", text)
    }
    assert [(name, command) for name, command in sorted(told) if command not in COMMANDS] == []


def test_every_make_command_that_a_page_tells_is_there(project: Path) -> None:
    makefile = (project / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    told = {
        (name, target)
        for name, text in pages(project).items()
        for target in re.findall(r"(?:^|`)(?:sudo )?make ([a-z]+)", text, re.MULTILINE)
    }
    assert ("README.md", "demo") in told and ("README.md", "test") in told
    assert [(name, target) for name, target in sorted(told) if target not in targets] == []


def test_ci_runs_what_the_readme_tells(project: Path) -> None:
    lines = (project / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert {"make check", "make demo", "make test"} <= set(lines)
    assert lines[-1] == "make test", "the closing lines must be the summary of the tests"


def test_every_benchmark_is_named(project: Path) -> None:
    text = pages(project)["docs/benchmarks.md"]
    names = [path.name for path in (project / "tests" / "benchmarks").glob("bench_*.py")]
    assert names and [name for name in names if f"| `{name}` |" not in text] == []


def test_every_plugin_is_named(project: Path) -> None:
    text = operators_text(project)
    points = metadata(project)["entry-points"]
    assert [name for group in points.values() for name in group if f"`{name}`" not in text] == []


def test_the_changelog_knows_this_version(project: Path) -> None:
    version = metadata(project)["version"]
    assert f"\n## [{version}]" in (project / "CHANGELOG.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", ["docs/install.md", "docs/troubleshooting.md", "docs/plugins.md"])
def test_a_page_begins_with_its_title(project: Path, page: str) -> None:
    assert pages(project)[page].startswith("# ")
