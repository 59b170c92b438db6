"""The report as a browser draws it: asks for nothing, says nothing, and stays on its page."""

from __future__ import annotations

from pathlib import Path

from shell.browsing import chromium
from shell.test_report import MARKUP, page_of

LONG = "x" * 3000
"""A line of a log without a blank, as failures quote them."""


def test_a_report_asks_for_nothing_and_nothing_sticks_out(tmp_path: Path) -> None:
    failure = {"failure_class": "program", "reason": "unknown", "detail": f"{MARKUP} {LONG}", "remedy": LONG}
    attempt = {"attempt_id": "a", "kind": "run", "nodes": ["n1"], "outcome": "failed", "failure": failure}
    told = page_of(tmp_path, attempts=[attempt | {"texts": {"batch.adoc": f"a.b = {LONG}"}}])
    path = tmp_path / "report.html"
    path.write_text(told, encoding="utf-8")
    with chromium() as browser:
        page, asked, said = browser.new_page(viewport={"width": 700, "height": 900}), [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert LONG in page.inner_text("ol"), "it is there"
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("document.scripts.length") == 0
    assert (asked, said) == ([path.as_uri()], [])
