"""Pictures of the page for the documentation, of a real daemon on the demo's site.

``.venv/bin/python docs/screenshots/take.py`` runs tiltd and the synthetic microscope, looks at the pages with
Chromium while series run and once they are done, and writes the PNGs beside this file.
"""

from __future__ import annotations

import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from tiltd.daemon.demo.command import scratch_bytes_for_one
from tiltd.daemon.demo.daemon import Daemon, running
from tiltd.daemon.demo.shooting import Microscope
from tiltd.daemon.demo.site import Site, lay_out
from tiltd.daemon.tokens import TokenFile

HERE = Path(__file__).parent
CHROMIUM = "/usr/bin/chromium"
SIZE_PX, TILTS, INTERVAL_SECONDS = 512, 41, 0.05
LIMIT_SECONDS = 240.0
DESK: dict[str, Any] = {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light"}
LOW: dict[str, Any] = {"viewport": {"width": 1440, "height": 330}, "color_scheme": "light"}
DARK: dict[str, Any] = DESK | {"color_scheme": "dark"}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "device_scale_factor": 2,
}  # fmt: skip
CANDIDATE = """[resources]
memory_factor = 1.5

[[rule]]
name = "large-series"
when = { size = { min = "4GB" } }
set = { cores = 8 }

[[test]]
name = "large-series-get-eight-cores"
dataset = { size = "9GB" }
expect = { cores = 8 }
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Camera:
    """Takes pictures as one who is signed in."""

    def __init__(self, browser: Browser, base: str, token: str) -> None:
        self.browser, self.base = browser, base
        page = browser.new_page()
        page.goto(f"{base}/login")
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{base}/")
        self.cookies = page.context.storage_state()
        page.context.close()

    def shoot(
        self,
        name: str,
        path: str,
        look: dict[str, Any],
        before: Callable[[Page], None] = lambda page: None,
        whole: bool = False,
    ) -> None:
        context = self.browser.new_context(storage_state=self.cookies, **look)
        page = context.new_page()
        page.goto(self.base + path)
        before(page)
        page.wait_for_selector("html[data-ready]")
        page.wait_for_timeout(600)
        page.screenshot(path=HERE / f"{name}.png", full_page=whole)
        print(f"{name}.png")
        context.close()


def rows(daemon: Daemon, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.client.get("datasets", state=state)["datasets"]
    return found


def wait(daemon: Daemon, what: str, there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not there():
        daemon.check_alive()
        if time.monotonic() > deadline:
            sys.exit(f"the demo did not come to this in {LIMIT_SECONDS:.0f} s: {what}")
        time.sleep(0.3)


def live_pictures(camera: Camera, daemon: Daemon) -> None:
    def busy() -> bool:
        return bool(rows(daemon, "running")) and len(rows(daemon, "delivered")) >= 2

    wait(daemon, "a series runs and two are delivered", busy)
    camera.shoot("overview", "/", DESK)
    camera.shoot("phone", "/", PHONE)
    if moving := rows(daemon, "running"):
        camera.shoot("running", f"/datasets/{moving[0]['dataset_id']}", DESK)
    camera.shoot("nodes", "/nodes", LOW)


def still_pictures(camera: Camera, daemon: Daemon) -> None:
    wait(daemon, "all four are delivered", lambda: len(rows(daemon, "delivered")) >= 4)
    first = rows(daemon, "delivered")[-1]["dataset_id"]
    daemon.client.post("actions", {"action": "hold", "datasets": ["TS_03"], "reason": "ask the microscopist"})
    rerun = {"action": "rerun", "datasets": [first], "options": {"binning": 4}, "reason": "a quick look"}
    daemon.client.post("actions", rerun)
    camera.shoot("overview-dark", "/", DARK)
    camera.shoot("datasets", "/datasets", DESK)
    camera.shoot("dataset", f"/datasets/{first}", DESK, whole=True)
    camera.shoot("actions", "/acts", LOW)

    def fill(page: Page) -> None:
        page.get_by_label("Policy in TOML").fill(CANDIDATE)
        page.get_by_role("button", name="Check and compare").click()
        page.wait_for_selector(".verdict")

    camera.shoot("policy", "/policy", DESK, fill)


def take(site: Site, port: int) -> None:
    token = TokenFile(site.state / "tokens.json").add("ada", "act", [], time.time())
    microscope = Microscope(site.incoming, SIZE_PX, TILTS, INTERVAL_SECONDS)
    with sync_playwright() as playwright, running(site) as daemon:
        daemon.wait_ready()
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        camera = Camera(browser, f"http://127.0.0.1:{port}", token)
        microscope.start()
        try:
            live_pictures(camera, daemon)
            still_pictures(camera, daemon)
        finally:
            microscope.stop()
        browser.close()


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="tiltd-pictures-") as folder:
        site = lay_out(Path(folder), TILTS, scratch_bytes_for_one(SIZE_PX, TILTS))
        port = free_port()
        text = site.config.read_text(encoding="utf-8")
        site.config.write_text(text.replace("port = 0 ", f"port = {port} "), encoding="utf-8")
        take(site, port)
    return 0


if __name__ == "__main__":
    sys.exit(main())
