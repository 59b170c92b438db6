"""tiltd.toml -> Settings.  Every fault of the file is told at once, each with its line and key.

Values of size are bytes (``"200MB"`` in the file), spans are seconds, modes are octal strings.  Folders are
absolute.  A table that bears the name of a plugin in use is that plugin's own and is handed to it as it is.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from email.utils import parseaddr
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import pydantic
import tomli
from pydantic import BeforeValidator, ConfigDict, Field

from tiltd.daemon.config_checks import cross_checks
from tiltd.daemon.config_faults import Fault, sentences, syntax_sentence
from tiltd.daemon.core.model.options import dotted
from tiltd.daemon.core.units import parse_bytes

MAX_FILE_BYTES = 1_000_000

SHARED_TABLES = {"batchruntomo": ("imod",)}
"""Tables beside a plugin's own that it is handed too, below their names: what is true of a whole family of
programs stands in one place."""


class ConfigError(Exception):
    """A tiltd.toml that cannot be used.  ``sentences`` has one ``FILE:LINE: key: sentence`` per fault."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


def _folder(value: object) -> object:
    if isinstance(value, Path):
        value = str(value)
    if not isinstance(value, str):
        raise ValueError("must be a path in quotes")
    if "\0" in value or not value.startswith("/"):
        raise ValueError(f"must be an absolute path (it begins with '/'), not {value!r}")
    return Path(os.path.normpath(value))


def _optional_folder(value: object) -> object:
    return None if value in ("", None) else _folder(value)


def _mode(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"0?[0-7]{3}", value):
        return int(value, 8)
    raise ValueError('must be three octal digits in quotes, for example "0755"')


def _bytes(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise ValueError('must be a size such as "200MB"')
    return parse_bytes(value)


def _feed_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", value):
        raise ValueError("must be 1 to 64 of the characters A-Z a-z 0-9 _ -")
    return value


def _address(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("must be an IP address, for example 127.0.0.1") from None
    return value


Folder = Annotated[Path, BeforeValidator(_folder)]
OptionalFolder = Annotated[Path | None, BeforeValidator(_optional_folder)]
Mode = Annotated[int, BeforeValidator(_mode)]
Bytes = Annotated[int, BeforeValidator(_bytes)]
Seconds = Annotated[float, Field(ge=0.05, le=86400.0, allow_inf_nan=False)]


class _Section(pydantic.BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=False)


class ListenSettings(_Section):
    """``address`` and ``port`` serve whom ``[access]`` lets in; ``socket`` (default ``state_dir/tiltd.sock``)
    everything to everyone who may open it.  Port 0 opens no TCP port."""

    address: Annotated[str, pydantic.AfterValidator(_address)] = "127.0.0.1"
    port: int = Field(default=9178, ge=0, le=65535)
    socket: OptionalFolder = None


class FeedSettings(_Section):
    """One incoming folder.  ``node_path`` is where nodes see it (``path`` when not given); ``import_dir``
    (``import`` in the file) is a folder that nodes see, to which completed series are copied first."""

    name: Annotated[str, pydantic.AfterValidator(_feed_name)]
    path: Folder
    detector: str = "serialem"
    pipeline: str = "wbp"
    destination: str
    labels: dict[str, str] = {}
    pattern: str = "{project}/{session}"
    node_path: OptionalFolder = None
    import_dir: OptionalFolder = Field(default=None, alias="import")
    import_bytes_per_second: Bytes = 200_000_000
    options: Annotated[dict[str, str | int | float | bool], BeforeValidator(dotted)] = {}
    scan_seconds: Seconds = 15.0
    inotify: bool = True

    @property
    def path_on_nodes(self) -> Path:
        return self.node_path or self.path


class PublishSettings(_Section):
    """Modes and group of published results; ``group`` empty leaves the group as it is."""

    dir_mode: Mode = 0o755
    file_mode: Mode = 0o644
    group: str = ""
    verify: Literal["full", "sizes"] = "full"


def _addresses(values: list[str]) -> list[str]:
    for value in values:
        try:
            ipaddress.ip_network(value)
        except ValueError:
            raise ValueError(f"must be IP addresses or networks such as 10.0.0.0/24, not {value!r}") from None
    return values


def _header(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", value):
        raise ValueError("must be the name of an HTTP header, such as X-Forwarded-User")
    return value


Header = Annotated[str, pydantic.AfterValidator(_header)]


class GroupSettings(_Section):
    """Members of a group of the single sign-on: what they may, and in which projects (``*``: all)."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    rights: Literal["read", "act"] = "read"
    projects: list[str] = ["*"]


class AccessSettings(_Section):
    """Who may read and act over TCP (the unix socket may everything).  ``open``: who reads without saying who
    they are.  ``hosts``: further names under which the page is asked for.  A request from ``proxy_from`` is
    whom its headers say; with ``proxy_secret_file`` it must bring that file's first line as well."""

    open: Literal["loopback", "everyone", "nobody"] = "loopback"
    tokens_path: OptionalFolder = Field(default=None, alias="tokens_file")
    hosts: list[str] = []
    proxy_from: Annotated[list[str], pydantic.AfterValidator(_addresses)] = []
    proxy_user_header: Header = "X-Forwarded-User"
    proxy_groups_header: Header = "X-Forwarded-Groups"
    proxy_secret_file: OptionalFolder = None
    groups: list[GroupSettings] = Field(default=[], alias="group")


class PollSettings(_Section):
    """How often the world is looked at, in seconds.  ``jobs_seconds`` is for this machine's own jobs; a
    resource manager with a queue is asked every ``queue_seconds`` while something is close or moves, and at
    most so seldom as ``queue_seconds_max``."""

    jobs_seconds: Seconds = 2.0
    queue_seconds: Seconds = 5.0
    queue_seconds_max: Seconds = 60.0
    nodes_seconds: Seconds = 15.0
    spool_seconds: Seconds = 0.5


def _sender(value: str) -> str:
    address = parseaddr(value)[1]
    fine = value.isprintable() and "@" in address and address.isascii() and " " not in address
    if not fine or address not in value:
        raise ValueError('must be an e-mail address, such as "tiltd@example.org"')
    return value


def _web_address(value: str) -> str:
    """The sentence does not repeat it: who has it may post."""
    try:
        parts = urlsplit(value)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine or not value.isprintable() or " " in value:
        raise ValueError("must be an address that begins with https:// or http://")
    return value


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,253}", value):
        raise ValueError("must be the name or the address of a host, such as mail.example.org")
    return value


WebAddress = Annotated[str, pydantic.AfterValidator(_web_address)]


class EmailSettings(_Section):
    """The mail server.  ``port`` 0 is the usual one of ``tls``; the password stands in a file of its own, and
    ``ca_file`` is for a server whose certificate the system's authorities do not know."""

    host: Annotated[str, pydantic.AfterValidator(_host)]
    port: int = Field(default=0, ge=0, le=65535)
    tls: Literal["starttls", "tls", "none"] = "starttls"
    user: str = ""
    password_file: OptionalFolder = None
    ca_file: OptionalFolder = None
    sender: Annotated[str, pydantic.AfterValidator(_sender)] = Field(alias="from")
    timeout_seconds: Seconds = 30.0


class WebhookSettings(_Section):
    """One address that is posted to.  ``url_file`` keeps a secret address out of this file."""

    name: Annotated[str, pydantic.AfterValidator(_feed_name)]
    url: WebAddress | None = None
    url_file: OptionalFolder = None
    style: Literal["json", "slack", "mattermost"] = "json"
    timeout_seconds: Seconds = 30.0


class NoticeSettings(_Section):
    """How people are reached; whom, and of what, is said by the policy's ``[[notice]]`` rules.  ``page_url``
    is where they find the operators' page, for links; ``plugins`` are further notifiers, by their names."""

    page_url: WebAddress | None = None
    email: EmailSettings | None = None
    webhooks: list[WebhookSettings] = Field(default=[], alias="webhook")
    plugins: list[Annotated[str, pydantic.AfterValidator(_feed_name)]] = []

    @property
    def names(self) -> list[str]:
        """What a rule may name beside e-mail addresses."""
        return [*(webhook.name for webhook in self.webhooks), *self.plugins]


class LogSettings(_Section):
    format: Literal["console", "json"] = "console"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(_Section):
    """The whole of tiltd.toml, validated.  ``tables`` are the plugins' own tables by plugin name."""

    state_dir: Folder = Path("/var/lib/tiltd")
    spool_path: OptionalFolder = Field(default=None, alias="spool_dir")
    resource_manager: str = "local"
    policy_file: OptionalFolder = None
    policy_dir: OptionalFolder = None
    listen: ListenSettings = ListenSettings()
    access: AccessSettings = AccessSettings()
    feeds: list[FeedSettings] = Field(default=[], alias="feed")
    publish: PublishSettings = PublishSettings()
    poll: PollSettings = PollSettings()
    log: LogSettings = LogSettings()
    notices: NoticeSettings = NoticeSettings()
    tables: dict[str, dict[str, Any]] = {}
    source: OptionalFolder = None

    @property
    def spool_dir(self) -> Path:
        return self.spool_path or self.state_dir / "spool"

    @property
    def socket(self) -> Path:
        return self.listen.socket or self.state_dir / "tiltd.sock"

    @property
    def tokens_file(self) -> Path:
        return self.access.tokens_path or self.state_dir / "tokens.json"

    @property
    def journal(self) -> Path:
        return self.state_dir / "journal.sqlite"

    @property
    def local(self) -> dict[str, Any]:
        """The ``[local]`` table, for the resource manager ``local``."""
        return self.table("local")

    def table(self, plugin: str) -> dict[str, Any]:
        """The plugin's own table as written, or an empty one, with those that it shares below their names."""
        shared = {name: self.tables[name] for name in SHARED_TABLES.get(plugin, ()) if name in self.tables}
        return self.tables.get(plugin, {}) | shared

    def feed(self, name: str) -> FeedSettings:
        """Raises KeyError for a feed that is not configured (any more)."""
        return next((feed for feed in self.feeds if feed.name == name), None) or _no_feed(name)

    @classmethod
    def load(cls, path: str | Path) -> Settings:
        """Read and check a tiltd.toml.  Raises ConfigError with all its faults."""
        path = Path(path)
        text = _text(path)
        try:
            raw = tomli.loads(text)
        except tomli.TOMLDecodeError as error:
            raise ConfigError([syntax_sentence(path.name, error)]) from None
        faults, settings = _judged(raw, path)
        if faults or settings is None:
            raise ConfigError(sentences(path.name, text, faults, known_keys()))
        return settings


def _no_feed(name: str) -> FeedSettings:
    raise KeyError(name)


def _text(path: Path) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError([f"{path}: is larger than {MAX_FILE_BYTES} bytes, so it is no tiltd.toml"])
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{path.name}:{line}: is not UTF-8 text; save it as UTF-8"]) from None


def _judged(raw: Mapping[str, Any], path: Path) -> tuple[list[Fault], Settings | None]:
    own = {name: table for name, table in raw.items() if name in _plugin_names(raw)}
    rest = {name: value for name, value in raw.items() if name not in own}
    faults = [
        Fault((name,), "is a plugin's own and must be a table")
        for name in own
        if not isinstance(own[name], dict)
    ]
    faults += [Fault((name,), "unknown key") for name in ("tables", "source") if name in rest]
    try:
        own = {name: table for name, table in own.items() if isinstance(table, dict)}
        source = path.absolute()
        settings = Settings.model_validate(rest | {"tables": own, "source": source})
    except pydantic.ValidationError as error:
        settings = None
        faults += [Fault.from_pydantic(detail) for detail in error.errors()]
    return faults + cross_checks(raw), settings


def section_models() -> dict[str, type[pydantic.BaseModel]]:
    """The model of each section, by its name in the file ("" is the top level)."""
    sections: dict[str, type[pydantic.BaseModel]] = {"": Settings, "feed": FeedSettings}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, _Section):
            sections[name] = field.annotation
    return sections | {"notices.email": EmailSettings, "notices.webhook": WebhookSettings}


def known_keys() -> dict[str, list[str]]:
    """The keys of each section, by its name."""
    found = {
        section: [field.alias or name for name, field in model.model_fields.items()]
        for section, model in section_models().items()
    }
    found[""] = [key for key in found[""] if key not in ("tables", "source")] + ["local"]
    return found


def _plugin_names(raw: Mapping[str, Any]) -> set[str]:
    """Names of top-level tables that belong to plugins: those in use, ``local``, and shared ones."""
    reserved = {field.alias or name for name, field in Settings.model_fields.items()}
    named = {
        "local",
        raw.get("resource_manager"),
        *(name for each in SHARED_TABLES.values() for name in each),
    }
    notices = raw.get("notices")
    plugins = notices.get("plugins") if isinstance(notices, dict) else None
    named |= {name for name in plugins if isinstance(name, str)} if isinstance(plugins, list) else set()
    feeds = raw.get("feed")
    for feed in feeds if isinstance(feeds, list) else []:
        if isinstance(feed, dict):
            named |= {value for key in ("detector", "pipeline") if isinstance(value := feed.get(key), str)}
    return {name for name in named if isinstance(name, str)} - reserved
