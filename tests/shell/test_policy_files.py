"""The site's policy files: order, leftovers of editors, what cannot be read, and what counts as a change."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tiltd.daemon import policy_files
from tiltd.daemon.cli.dispatch import dispatch
from tiltd.daemon.config import Settings
from tiltd.daemon.plugged import Plugged
from tiltd.daemon.policy_files import PolicyRefused, files_of, read_policy, signature
from tiltd.daemon.questions.files import policy_of
from tiltd.plugins.api import Context


def settings(tmp_path: Path, more: str = "") -> Settings:
    folder = tmp_path / "policy.d"
    folder.mkdir(exist_ok=True)
    (tmp_path / "feed").mkdir(exist_ok=True)
    text = f"""
policy_file = "{tmp_path / "policy.toml"}"
policy_dir = "{folder}"
[[feed]]
name = "krios1"
path = "{tmp_path / "feed"}"
destination = "{tmp_path / "out"}/{{series}}"
{more}"""
    (tmp_path / "tiltd.toml").write_text(text, "utf-8")
    (tmp_path / "policy.toml").touch()
    return Settings.load(tmp_path / "tiltd.toml")


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / "policy.d" / name
    path.write_text(text, "utf-8")
    return path


def faults(site: Settings) -> list[str]:
    with pytest.raises(PolicyRefused) as refused:
        read_policy(site)
    return [str(fault) for fault in refused.value.faults]


def test_files_are_laid_over_each_other_in_the_order_of_their_names(tmp_path: Path) -> None:
    site = settings(tmp_path)
    (tmp_path / "policy.toml").write_text("[limits]\nrunning_max = 1\nqueued_max = 1\nper_node_max = 1\n")
    write(tmp_path, "20-b.toml", "[limits]\nrunning_max = 20\nqueued_max = 20\n")
    write(tmp_path, "10-a.toml", "[limits]\nrunning_max = 10\n")
    for leftover in (".10-a.toml.swp", ".hidden.toml", "10-a.toml~", "README"):
        write(tmp_path, leftover, "no policy at all")
    limits = read_policy(site).limits
    assert (limits.running_max, limits.queued_max, limits.per_node_max) == (20, 20, 1)
    assert [path.name for path in files_of(site)] == ["policy.toml", "10-a.toml", "20-b.toml"]


def test_all_faults_of_all_files_with_their_path(tmp_path: Path) -> None:
    site = settings(tmp_path)
    first = write(tmp_path, "10-a.toml", "[limits]\nrunning = 1\n")
    second = tmp_path / "policy.d" / "20-b.toml"
    second.write_bytes(b"# ok\n# \xff\n")
    third = write(tmp_path, "30-c.toml", "[resources]\nnodes = 0\n")
    (tmp_path / "policy.d" / "40-d.toml").symlink_to(tmp_path / "nowhere")
    told = faults(site)
    assert any(each.startswith(f"{first}:2: limits.running: unknown key") for each in told)
    assert f"{second}:2: is no UTF-8 text; save it as UTF-8" in told
    assert any(each.startswith(f"{third}:2: resources.nodes: 0 is too small") for each in told)
    assert any("40-d.toml:1: cannot be read: No such file" in each for each in told)


def test_rules_may_name_only_zones_pipelines_and_folders_that_there_are(tmp_path: Path) -> None:
    site = settings(tmp_path)
    rule = "[[rule]]\nname = 'r'\nset = {{ {sets} }}\n[rule.when]\nhours = '8-18'\nzone = '{zone}'\n"
    write(tmp_path, "a.toml", rule.format(sets="pipeline = 'wbp'", zone="Europe/Berlin"))
    assert read_policy(site).rules[0].name == "r"
    write(tmp_path, "a.toml", rule.format(sets="pipeline = 'wpb'", zone="Europe/Berlyn"))
    wrong_zone, wrong_pipeline = sorted(faults(site), key=lambda each: "pipeline" in each)
    assert ":6: rule[1].when.zone: " in wrong_zone and 'did you mean "Europe/Berlin"?' in wrong_zone
    assert ":3: rule[1].set.pipeline: " in wrong_pipeline and 'did you mean "wbp"?' in wrong_pipeline
    inside = f"destination = '{tmp_path}/feed/x/{{{{series}}}}'".replace("{{", "{").replace("}}", "}")
    write(tmp_path, "a.toml", rule.format(sets=inside, zone="UTC"))
    assert "lies inside the feed" in faults(site)[0]


def test_a_folder_that_is_not_there_and_a_file_that_is_no_text(tmp_path: Path) -> None:
    site = settings(tmp_path)
    (tmp_path / "policy.d").rmdir()
    assert "is no folder; make it, or mend policy_dir" in faults(site)[0]
    (tmp_path / "policy.d").mkdir()
    write(tmp_path, "big.toml", "#" * (policy_files.FILE_BYTES_MAX + 1))
    assert "so it is no policy" in faults(site)[0]


def test_what_counts_as_a_change(tmp_path: Path) -> None:
    site = settings(tmp_path)
    seen = [signature(site)]
    write(tmp_path, "a.toml", "")
    seen.append(signature(site))
    write(tmp_path, "a.toml", "# x")
    seen.append(signature(site))
    write(tmp_path, "b.toml~", "")
    assert signature(site) == seen[-1]
    (tmp_path / "policy.d" / "a.toml").unlink()
    assert len(set(seen)) == 3 and signature(site) == seen[0]


# -- what stands in the settings -----------------------------------------------------------------------------

R = '[[rule]]\nname = "r"\n'


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (
            R + "set = { options = { binnning = 4 } }\n",
            3,
            "unknown option 'binnning'; did you mean 'binning'?",
        ),
        (R + "[rule.set.options]\nbinning = 4\nmood = 'x'\n", 5, "rule.r.set.options.mood"),
        (R + "set = { options = { binning = 'four' } }\n", 3, "must be a whole number"),
        (R + "set = { pipeline = 'command', options = { binning = 4 } }\n", 3, "pipeline command: unknown"),
        (
            R + "when = { pipeline = 'wbp' }\nset = { options = { walltime = 4 } }\n",
            4,
            "pipeline wbp: unknown",
        ),
        (R + "when = { feed = 'krois1' }\nset = { cores = 8 }\n", 3, 'did you mean "krios1"?'),
        (R + "when = { feed = ['krios1', 'k9'] }\nset = { cores = 8 }\n", 3, '"k9" is no feed'),
    ],
)
def test_options_no_pipeline_knows_and_feeds_that_are_not_there(
    tmp_path: Path, text: str, line: int, words: str
) -> None:
    site = settings(tmp_path)
    path = write(tmp_path, "10-a.toml", text)
    (told,) = faults(site)
    assert told.startswith(f"{path}:{line}: rule.r.") and words in told


@pytest.mark.parametrize(
    "text",
    [
        R + "set = { options = { binning = 4 } }\n",
        R + "set = { pipeline = 'command', options = { memory = 5e9, command = 'x {input}' } }\n",
        # One rule chooses the pipeline, another its options.
        R + "set = { pipeline = 'command' }\n[[rule]]\nname = 's'\nset = { options = { memory = 5e9 } }\n",
        R + "when = { feed = ['krios?', 'later*'] }\nset = { cores = 8 }\n",
    ],
)
def test_what_may_be_meant_is_taken(tmp_path: Path, text: str) -> None:
    site = settings(tmp_path)
    write(tmp_path, "10-a.toml", text)
    assert read_policy(site).rules


def test_check_of_a_file_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings(tmp_path)
    path = tmp_path / "new.toml"
    path.write_text(R + "when = { feed = 'krois1' }\nset = { options = { binnning = 4 } }\n")
    assert dispatch(["policy", "check", "--config", str(tmp_path / "tiltd.toml"), str(path)]) == 1
    told = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1] for line in told] == ["3", "4"]
    assert "krios1" in told[0] and "binning" in told[1]


def test_rules_may_choose_a_pipeline_that_no_feed_has(tmp_path: Path) -> None:
    site = settings(tmp_path)
    context = Context(state_folder=str(tmp_path), spool_folder=str(tmp_path), journal_id="j", owner="o")
    assert set(Plugged.of(site, context).pipelines) >= {"wbp", "command"}


def test_a_pipe_among_the_files_is_refused_and_nobody_waits_for_it(tmp_path: Path) -> None:
    site = settings(tmp_path)
    os.mkfifo(tmp_path / "policy.d" / "30-pipe.toml")
    told = within_seconds(5.0, lambda: faults(site))
    assert told == [f"{tmp_path / 'policy.d' / '30-pipe.toml'}:1: is no plain file"]


def within_seconds(limit: float, work: Callable[[], Any]) -> Any:
    """In a thread that may hang without the tests hanging with it."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(limit)
    assert found, "it waits"
    return found[0]


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = settings(tmp_path)
    write(tmp_path, "10-a.toml", "[limits]\nrunning_max = 10\n")
    real = os.scandir

    def refusing(path: Any = ".") -> Any:
        if Path(path) == tmp_path / "policy.d":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", refusing)  # whoever runs the tests as root is refused nothing
    assert faults(site) == [f"{tmp_path / 'policy.d'}:1: cannot be listed: Permission denied"]
    with pytest.raises(PolicyRefused):
        policy_of([tmp_path / "policy.d"])


def test_the_mark_that_some_editors_begin_a_file_with_is_no_fault(tmp_path: Path) -> None:
    site = settings(tmp_path)
    (tmp_path / "policy.d" / "a.toml").write_bytes(b"\xef\xbb\xbf[limits]\r\nrunning_max = 3\r\n")
    assert read_policy(site).limits.running_max == 3
