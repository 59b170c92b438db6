"""The page of a real daemon, through its unix socket: what happens is shown and heard; what is asked is done,
and stands in the journal with who asked it."""

from __future__ import annotations

import getpass
import http.client
import re
import socket
import threading
from pathlib import Path
from urllib.parse import urlencode

from shell.daemon_process import Site, running, wait_until
from tiltd.daemon.journal import connect


class Browser:
    """HTTP over the socket, as `ssh -L` would bring it to a browser."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ask(self, method: str, target: str, fields: dict[str, str] | None = None) -> tuple[int, str]:
        connection = http.client.HTTPConnection("localhost", timeout=20)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.settimeout(20)
        connection.sock.connect(str(self.path))
        headers = {"Accept": "text/html", "Content-Type": "application/x-www-form-urlencoded"}
        connection.request(method, target, body=urlencode(fields) if fields else None, headers=headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, text

    def page(self, target: str) -> str:
        status, text = self.ask("GET", target)
        assert status == 200, text
        return text

    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.page("/datasets"))
        assert found
        return found[1]


class Listener(threading.Thread):
    """Reads the events until the daemon ends them."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.heard = b""
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(60)
        self.socket.connect(str(path))
        self.socket.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")

    def run(self) -> None:
        while more := self.socket.recv(65536):
            self.heard += more


def test_what_the_daemon_does_is_shown_and_heard_and_can_be_steered(tmp_path: Path) -> None:
    site = Site(tmp_path, step_seconds=0)
    me = getpass.getuser()
    with running(site) as daemon:
        browser = Browser(site.socket)
        listener = Listener(site.socket)
        listener.start()
        wait_until(lambda: b": hello" in listener.heard, 10)
        site.feed("one.mrc")
        daemon.delivered("one")
        page = browser.page("/")
        assert ">one</a>" in page or "<b>one</b>" in page
        story = browser.page("/datasets/one")
        for word in ("Found", "Complete", "Placed", "Computed", "Delivered"):
            assert f"<b>{word}</b>" in story
        wait_until(lambda: b'"delivered"' in listener.heard, 10)
        status, text = browser.ask("POST", "/datasets/one/act", {"action": "rerun", "csrf": "x"})
        assert status == 403 and "not tiltd&#39;s own" in text
        asked = {"action": "rerun", "csrf": browser.csrf(), "reason": "again & again"}
        assert browser.ask("POST", "/datasets/one/act", asked)[0] == 303
        wait_until(lambda: "run 2" in browser.page("/datasets"), 20)
        acts = browser.page("/acts")
        assert "again &amp; again" in acts and f"<b>{me}</b>" in acts and "rerun" in acts
        assert "Asked by an operator" in browser.page("/datasets?text=one") or "again" in browser.page(
            "/acts"
        )
        candidate = {"csrf": browser.csrf(), "candidate": "[resources]\nmemory_factor = 4\n", "mode": "over"}
        status, text = browser.ask("POST", "/policy", candidate)
        assert status == 200 and "resources.memory_factor" in text and "Good:" in text
        daemon.wait(lambda: len(site.client.get("datasets", state="delivered")["datasets"]) == 2)
        assert browser.ask("POST", "/policy/reload", {"csrf": browser.csrf()})[0] == 303
        removed = site.client.post("prune", {"what": ["results"], "datasets": ["one"], "dry_run": False})
        assert [each["done"] for each in removed["found"]] == [True]
        acts = browser.page("/acts")
        assert "reload policy" in acts and "to be removed: 1 result (of one)" in acts
        assert daemon.stop() == 0
        listener.join(10)
        assert not listener.is_alive(), "a page that listens does not keep the daemon from stopping"
    rows = connect(tmp_path / "state" / "journal.sqlite", read_only=True).execute(
        "SELECT json_extract(body, '$.by'), json_extract(body, '$.via'), json_extract(body, '$.action'), "
        "json_extract(body, '$.reason') FROM facts WHERE kind = 'OperatorActed' ORDER BY seq"
    )
    assert [tuple(part or "" for part in row) for row in rows.fetchall()] == [
        (me, "socket", "rerun", "again & again"),
        (me, "socket", "reload_policy", ""),
        (me, "socket", "prune", ""),
    ]
