"""``tiltd policy check | test | reload``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from tiltd.daemon.client import config_file
from tiltd.daemon.config import ConfigError, Settings
from tiltd.daemon.core.model import Policy
from tiltd.daemon.policy_files import files_of, site_faults
from tiltd.daemon.questions.files import PolicyRefused, files_in, policy_of, with_site
from tiltd.daemon.text import one_line
from tiltd.policy.policy import PolicyError, run_tests

from .asking import add_connection, client_of, print_json
from .exits import FAILED, OK, USAGE


def add_check(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        type=file_name,
        metavar="FILE",
        help="laid over the shipped policy (default: the site's own)",
    )
    add_site(parser)
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def check(args: argparse.Namespace) -> int:
    """Exit code 1 if there is a fault; the files' own tests are run too."""
    try:
        settings = settings_of(args.config)
        files = named_files(args.files, args, settings) or site_files(args.config)
        policy = policy_of(files, settings)
    except PolicyRefused as refused:
        return told_faults(refused.faults, args.json)
    except ConfigError as error:
        return _bad_config(error)
    judged = [str(file) for file in files_in(files)]
    if args.json:
        told = {"policy_version": policy.version, "files": judged, **_counts(policy)}
        print_json({"ok": True, "faults": [], **told})
    else:
        counted = _counts(policy)
        print(f"good: version {policy.version}, {counted['rules']} rules, {counted['tests']} tests passed")
        if not judged:
            print("that is the policy as shipped: there is no *.toml to lay over it")
    return OK


def add_test(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="*",
        type=file_name,
        metavar="FILE",
        help="laid over the shipped policy (default: the site's own)",
    )
    add_site(parser)
    add_config(parser)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")


def test(args: argparse.Namespace) -> int:
    """Exit code 1 if a test fails or the files are refused."""
    try:
        settings = settings_of(args.config)
        files = named_files(args.files, args, settings) or site_files(args.config)
        policy = policy_of(files, settings, tested=False)
    except PolicyRefused as refused:
        return told_faults(refused.faults, args.json)
    except ConfigError as error:
        return _bad_config(error)
    results: list[dict[str, Any]] = []
    for each in policy.tests:
        failed = run_tests(_only(policy, each.name))
        results.append({"name": each.name, "ok": not failed, "faults": [_fault(f) for f in failed]})
    failures = sum(not result["ok"] for result in results)
    if args.json:
        print_json({"ok": not failures, "policy_version": policy.version, "tests": results})
        return FAILED if failures else OK
    for result in results:
        print(f"{'ok  ' if result['ok'] else 'FAIL'}  {one_line(str(result['name']))}")
        for fault in result["faults"]:
            print(f"      {fault['text']}")
    print(f"{failures} of {len(results)} tests failed" if failures else f"all {len(results)} tests passed")
    return FAILED if failures else OK


def add_reload(parser: argparse.ArgumentParser) -> None:
    add_connection(parser)


def reload(args: argparse.Namespace) -> int:
    """Exit code 1 if the policy was refused; the one in force stays then."""
    answer = client_of(args).post("policy/reload", {})
    if args.json:
        print_json(answer)
    elif answer["ok"]:
        print(f"the policy was read; version {answer['policy_version']} is in force")
    else:
        for sentence in answer["faults"]:
            print(one_line(sentence), file=sys.stderr)
        print(f"refused; version {answer['policy_version']} stays in force", file=sys.stderr)
    return OK if answer["ok"] else FAILED


# -- shared by the questions -------------------------------------------------------------------------------


def file_name(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty text is no name of a file or folder")
    return text


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", metavar="FILE", help="tiltd.toml (default: $TILTD_CONFIG, ./, /etc/tiltd/)"
    )


def settings_of(config: str | None) -> Settings | None:
    """The site's settings, if there are any.  Raises ConfigError."""
    path = config_file(config)
    return Settings.load(path) if path is not None else None


def add_site(parser: argparse._ActionsContainer) -> None:
    parser.add_argument(
        "--site", action="store_true", help="lay the files over the site's own policy, not the shipped one"
    )


def named_files(names: Iterable[str], args: argparse.Namespace, settings: Settings | None) -> list[Path]:
    """As named; with ``--site`` the site's own before them.  Raises ConfigError, PolicyRefused."""
    paths = list(map(Path, names))
    if not (args.site and paths):
        return paths
    if settings is None:
        raise ConfigError(["--site needs the site's tiltd.toml: name it by --config"])
    return with_site(paths, _own(settings), settings.policy_dir)


def site_files(config: str | None) -> list[Path]:
    """The policy files that the site's settings name.  Raises ConfigError, PolicyRefused."""
    settings = settings_of(config)
    return _own(settings) if settings is not None else []


def _own(settings: Settings) -> list[Path]:
    if faults := site_faults(settings):
        raise PolicyRefused(faults)
    return files_of(settings)


def _only(policy: Policy, name: str) -> Policy:
    return replace(policy, tests=tuple(test for test in policy.tests if test.name == name))


def told_faults(faults: Sequence[PolicyError], as_json: bool) -> int:
    """Every question answers so to files that are refused.  Gives the exit code."""
    if as_json:
        print_json({"ok": False, "faults": [_fault(fault) for fault in faults]})
    else:
        for fault in faults:
            print(one_line(str(fault)), file=sys.stderr)
    return FAILED


def _bad_config(error: ConfigError) -> int:
    for sentence in error.sentences:
        print(f"tiltd policy: {one_line(sentence)}", file=sys.stderr)
    return USAGE


def _fault(fault: PolicyError) -> dict[str, Any]:
    return {
        "file": fault.file, "line": fault.line, "key": fault.key, "message": fault.message,
        "text": one_line(str(fault)),
    }  # fmt: skip


def _counts(policy: Policy) -> dict[str, int]:
    return {"rules": len(policy.rules), "tests": len(policy.tests)}
