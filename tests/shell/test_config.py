from __future__ import annotations

from pathlib import Path

import pytest

from tiltd.daemon.config import ConfigError, Settings

GOOD = """\
state_dir = "/srv/tiltd"
[[feed]]
name = "krios1"
path = "/data/krios1"
destination = "/tomograms/{project}/{session}/{series}"
labels = { microscope = "krios1" }
[[feed]]
name = "krios2"
path = "/data/krios2/"
import = "/shared/in"
import_bytes_per_second = "50MB"
destination = "/tomograms/{microscope}/{series}"
options = { thickness_nm = 200, binning = 4 }
scan_seconds = 30
[publish]
dir_mode = "0750"
[[local.node]]
name = "here"
cores = 4
memory = "16GB"
scratch = "/scratch/tiltd"
"""


def load(folder: Path, text: str) -> Settings:
    path = folder / "tiltd.toml"
    path.write_text(text)
    return Settings.load(path)


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return caught.value.sentences


def test_a_good_file_and_its_defaults(tmp_path: Path) -> None:
    settings = load(tmp_path, GOOD)
    assert settings.state_dir == Path("/srv/tiltd")
    assert settings.spool_dir == Path("/srv/tiltd/spool")
    assert settings.socket == Path("/srv/tiltd/tiltd.sock")
    assert (settings.listen.address, settings.listen.port) == ("127.0.0.1", 9178)
    assert settings.publish.dir_mode == 0o750
    assert settings.publish.file_mode == 0o644
    assert settings.local["node"][0]["memory"] == "16GB"
    second = settings.feed("krios2")
    assert second.path == second.path_on_nodes == Path("/data/krios2")
    assert second.import_dir == Path("/shared/in")
    assert second.import_bytes_per_second == 50_000_000
    assert second.scan_seconds == 30.0
    assert second.options == {"thickness_nm": 200, "binning": 4}
    assert settings.source == tmp_path / "tiltd.toml"
    with pytest.raises(KeyError):
        settings.feed("krios3")


def test_an_empty_file_is_a_daemon_without_feeds(tmp_path: Path) -> None:
    assert load(tmp_path, "").feeds == []


def test_all_faults_are_told_at_once_with_line_and_key(tmp_path: Path) -> None:
    text = GOOD.replace('"/srv/tiltd"', '"srv"').replace('name = "krios2"', 'name = "krios1"')
    text = text.replace("scan_seconds = 30", "scan_second = 30").replace('"0750"', '"rwx"')
    told = faults(tmp_path, text)
    assert [sentence.split(": ")[:2] for sentence in told] == [
        ["tiltd.toml:1", "state_dir"],
        ["tiltd.toml:8", "feed[2].name"],
        ["tiltd.toml:14", "feed[2].scan_second"],
        ["tiltd.toml:16", "publish.dir_mode"],
    ]
    assert 'did you mean "scan_seconds"?' in told[2]


@pytest.mark.parametrize(
    ("before", "after", "line", "words"),
    [
        ("state_dir", "state_dri", 1, 'did you mean "state_dir"'),
        ('name = "krios1"', 'name = "krios 1"', 3, "1 to 64 of the characters"),
        ('path = "/data/krios1"', 'path = "data/krios1"', 4, "absolute path"),
        ('path = "/data/krios1"', 'path = "/data/krios2/x"', 9, "overlaps the folder of feed krios1"),
        ('path = "/data/krios1"', 'path = "/tomograms/in"', 4, "lies inside the destination /tomograms"),
        ('"/tomograms/{microscope}/{series}"', '"/data/krios1/{series}"', 12, "lies inside feed krios1"),
        ('"/srv/tiltd"', '"/data/krios2/state"', 1, "lies inside feed krios2"),
        ('"/shared/in"', '"/data/krios2"', 10, "lies inside feed krios2"),
        ('"/scratch/tiltd"', '"/data/krios1/s"', 21, "lies inside feed krios1"),
        ("{microscope}/{series}", "{microscop}/{series}", 12, "unknown placeholder {microscop}"),
        ("{microscope}/{series}", "{microscope}", 12, "must contain {series}"),
        ("{microscope}/{series}", "{series!r}", 12, "plain names in braces"),
        ("{microscope}/{series}", "{series", 12, "unbalanced braces"),
        ("{microscope}/{series}", "../{series}", 12, "must not contain '..'"),
        ('"50MB"', '"50 parsec"', 11, "unknown unit"),
        ('"50MB"', "true", 11, "must be a size"),
        ("scan_seconds = 30", "scan_seconds = 0", 14, "at least 0.05"),
        ("scan_seconds = 30", 'scan_seconds = "30"', 14, "number without quotes"),
        ('"16GB"', '"lots"', 20, "amount of bytes"),
        ("cores = 4", "cores = 0", 19, "at least 1"),
        ("binning = 4", "binning = [4]", 13, "must be"),
        ('microscope = "krios1"', 'series = "x"', 6, "is set by tiltd itself"),
        ('name = "krios1"\n', "", 2, "is required and missing"),
        ("[publish]", "[publsh]", 15, 'did you mean "publish"'),
    ],
)
def test_each_fault_has_its_line_and_a_remedy(
    tmp_path: Path, before: str, after: str, line: int, words: str
) -> None:
    assert before in GOOD
    told = faults(tmp_path, GOOD.replace(before, after, 1))
    assert any(s.startswith(f"tiltd.toml:{line}: ") and words in s for s in told), told


def test_text_that_is_no_toml_names_the_line(tmp_path: Path) -> None:
    assert faults(tmp_path, 'state_dir = "/x"\nport == 4\n')[0].startswith("tiltd.toml:2: is no TOML")


def test_bytes_that_are_no_utf8_name_the_line(tmp_path: Path) -> None:
    (tmp_path / "tiltd.toml").write_bytes(b'\nstate_dir = "/\xff"\n')
    with pytest.raises(ConfigError, match=r"tiltd.toml:2: is not UTF-8"):
        Settings.load(tmp_path / "tiltd.toml")


def test_a_missing_file_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot be read: No such file"):
        Settings.load(tmp_path / "none.toml")


def test_a_plugins_own_table_is_handed_over_as_it_is(tmp_path: Path) -> None:
    settings = load(tmp_path, 'resource_manager = "torque"\n[torque]\nqueue = "em"\n')
    assert settings.table("torque") == {"queue": "em"}
    assert settings.table("slurm") == {}
    assert "torque" in faults(tmp_path, "[torque]\n")[0]
    assert "must be a table" in faults(tmp_path, 'resource_manager = "torque"\ntorque = 1\n')[0]


@pytest.mark.parametrize("key", ["tables", "source", "spool_path"])
def test_inner_names_are_no_keys(tmp_path: Path, key: str) -> None:
    assert "unknown key" in faults(tmp_path, f'{key} = "/x"\n')[0]


NOTICES = """\
[notices]
page_url = "https://em.example.org/tiltd"
[notices.email]
host = "mail.example.org"
from = "tiltd <tiltd@example.org>"
user = "tiltd"
password_file = "/etc/tiltd/mail"
[[notices.webhook]]
name = "team-chat"
url_file = "/etc/tiltd/chat"
style = "slack"
"""
EMAIL = '[notices.email]\nhost = "m"\nfrom = "a@b.c"\n'
HOOK = '[[notices.webhook]]\nname = "a"\n'
TWICE = '[[notices.webhook]]\nname = "team-chat"\nurl = "http://x"\n'


def test_how_people_are_reached(tmp_path: Path) -> None:
    notices = load(tmp_path, NOTICES).notices
    assert notices.email is not None and notices.names == ["team-chat"]
    assert (notices.email.tls, notices.email.port, notices.email.timeout_seconds) == ("starttls", 0, 30.0)
    assert load(tmp_path, "").notices.email is None
    settings = load(tmp_path, '[notices]\nplugins = ["sms"]\n[sms]\nnumber = "1"\n')
    assert settings.notices.names == ["sms"] and settings.table("sms") == {"number": "1"}


@pytest.mark.parametrize(
    ("text", "key", "sentence"),
    [
        ('[notices.email]\nhost = "m"\n', "notices.email.from", "required"),
        ('[notices.email]\nhost = "m"\nfrom = "tiltd"\n', "notices.email.from", "an e-mail address"),
        ('[notices.email]\nhost = "m"\nfrom = "a@b\\nBcc: c@d"\n', "notices.email.from", "an e-mail address"),
        ('[notices.email]\nhost = "m y"\nfrom = "a@b.c"\n', "notices.email.host", "address of a host"),
        ('[notices.email]\nhots = "m"\n', "notices.email.hots", 'did you mean "host"?'),
        (EMAIL + 'user = "x"\n', "notices.email.user", "password_file"),
        (EMAIL + 'password = "x"\n', "notices.email.password", "of its own"),
        (NOTICES.replace("[[", 'tls = "none"\n[[', 1), "notices.email.tls", "in the clear"),
        (HOOK, "notices.webhook[1].url", "give it a url, or a url_file"),
        (HOOK + 'url = "x/secret"\n', "notices.webhook[1].url", "https://"),
        ('[[notices.webhook]]\nname = "email"\nurl = "http://x"\n', "notices.webhook[1].name", "another"),
        (HOOK + 'ulr = "x"\n', "notices.webhook[1].ulr", 'did you mean "url"?'),
        (HOOK + 'url = "http://x"\nstyle = "irc"\n', "notices.webhook[1].style", "slack"),
        (NOTICES + TWICE, "notices.webhook[2].name", "unique"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_channel_is_told(tmp_path: Path, text: str, key: str, sentence: str) -> None:
    told = faults(tmp_path, text)
    assert any(f": {key}: " in each and sentence in each for each in told), told
    assert not any("secret" in each for each in told)
