"""The pages in a real Chromium: drawn, read aloud, steered by keys, live, acted on; no name is ever run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from msgspec.structs import replace
from playwright.sync_api import Browser, expect

from shell.browsing import Reader, chromium
from shell.serving import Serving
from shell.web_scene import NOW, SECRET, facility
from tiltd.daemon.core.model import State

MANY = 10_000
INTERACTIVE_MS = 1000.0
PAGES = {
    "overview": "/",
    "datasets": "/datasets",
    "running": "/datasets/TS_04",
    "failed": "/datasets/TS_06",
    "delivered": "/datasets/TS_11",
    "arriving": "/datasets/TS_01",
    "hostile": "/datasets/x-00000009.1.1",
    "nodes": "/nodes",
    "policy": "/policy",
    "errors": "/errors",
    "actions": "/acts",
}
LOOKS: dict[str, dict[str, Any]] = {
    "desk, light": {"viewport": {"width": 1440, "height": 900}, "color_scheme": "light"},
    "phone, dark": {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark", "has_touch": True},
}
RULES: dict[str, list[str]] = {
    "desk, light": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "phone, dark": ["color-contrast", "target-size", "scrollable-region-focusable"],
}
"""What another size and other colours can change is looked at there; axe takes a second a page."""
Visit = Callable[..., Reader]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with Serving(facility(tmp_path_factory.mktemp("pages"))) as serving:
        for buckets in (serving.room.guard._reads, serving.room.guard._acts):
            buckets.burst = buckets.per_second = 1e9
        yield serving
        assert serving.errors() == []


@pytest.fixture(scope="module")
def cookies(browser: Browser, served: Serving) -> Any:
    """Of one who signed in."""
    reader = Reader(browser, served.base).sign_in(served.token)
    state = reader.context.storage_state()
    reader.close()
    assert reader.said == []
    return state


@pytest.fixture
def visit(browser: Browser, served: Serving, cookies: Any) -> Iterator[Visit]:
    """A visitor, signed in unless told otherwise; nothing on the console when the test is over."""
    readers: list[Reader] = []
    served.daemon.asked.clear()

    def begin(token: str | None = None, **context: Any) -> Reader:
        if token is None:
            context["storage_state"] = cookies
        reader = Reader(browser, served.base, **context)
        readers.append(reader)
        return reader.sign_in(token) if token else reader

    yield begin
    for reader in readers:
        reader.close()
    assert [line for reader in readers for line in reader.said] == []


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_is_sound(visit: Visit, look: str) -> None:
    """By axe's rules for WCAG 2.2 AA; nothing sticks out to the side; nothing on the console."""
    reader, faults = visit(**LOOKS[look]), []
    for name, path in {**PAGES, "sign in": "/login"}.items():
        page = reader.go(path)
        page.wait_for_selector("html[data-ready]")
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), f"{name} is too wide"
        found = Axe().run(page, options={"runOnly": RULES[look]})
        faults += [
            f"{name}: {violation['id']}: {violation['nodes'][0]['html'][:160]} {violation['help']}"
            for violation in found.response["violations"]
        ]
    assert faults == []


def test_no_name_log_or_reason_is_ever_run(visit: Visit) -> None:
    reader = visit()
    for path in PAGES.values():
        page = reader.go(path)
        page.wait_for_selector("html[data-ready]")
        assert page.title() != "owned", path
        assert page.locator("main img[onerror], main script").count() == 0


def test_the_browser_runs_no_inline_script(visit: Visit) -> None:
    reader = visit("")
    page = reader.go("/")
    page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', '<img src=\"data:,x\" onerror=\"document.title=1\">')"
    )
    page.evaluate(
        "const s = document.createElement('script'); s.text = 'document.title = 2'; document.body.append(s)"
    )
    page.wait_for_timeout(100)
    assert page.title() == "Overview – tiltd"
    assert len(reader.said) >= 2 and all("Content Security Policy" in line for line in reader.said)
    reader.said.clear()


def test_pictures_and_progress_are_drawn(visit: Visit) -> None:
    page = visit().go("/")
    gallery = page.locator(".gallery img").first
    gallery.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('.gallery img').naturalWidth === 64")
    expect(page.get_by_role("img", name="41 %").first).to_be_visible()
    page = visit().go("/nodes")
    expect(page.get_by_role("img", name="2 of 8 cores are tiltd's, 1 others', 5 free")).to_be_visible()
    expect(page.locator("#nodes")).to_contain_text("30GB leaked")
    expect(page.locator("#nodes")).to_contain_text("cannot be swept: n1 is down")


def test_a_report_is_drawn_and_runs_nothing(visit: Visit) -> None:
    reader = visit()
    page = reader.go("/datasets/TS_11")
    page.get_by_role("link", name="Its report").click()
    expect(page.get_by_role("heading", name="The report on TS_11")).to_be_visible()
    assert page.title() != "owned"
    assert reader.said, "the browser tells what it did not run"
    reader.said.clear()


# -- the list ----------------------------------------------------------------------------------------------


def test_a_list_of_ten_thousand_is_there_at_once(browser: Browser, tmp_path: Path) -> None:
    with Serving(facility(tmp_path, more=MANY)) as serving:
        reader = Reader(browser, serving.base)
        took = []
        for _ in range(3):
            page = reader.go("/datasets")
            page.wait_for_selector("html[data-ready]")
            took.append(
                page.evaluate("performance.getEntriesByType('navigation')[0].domContentLoadedEventEnd")
            )
        print(f"interactive after {min(took):.0f} ms")
        assert min(took) < INTERACTIVE_MS, took
        assert "10,0" in page.locator("#total").inner_text()
        seen = set()
        for _ in range(3):
            names = page.locator("main a.to").all_inner_texts()
            assert len(names) == 100 and not seen & set(names)
            seen |= set(names)
            page.get_by_role("link", name="Further").click()
            page.wait_for_selector("html[data-ready]")
        page.goto(serving.base + "/datasets")
        page.get_by_label("Name or id").fill("l0999")
        expect(page.locator("main a.to")).to_have_count(10)
        page.get_by_label("Name or id").fill("L09990")
        expect(page.locator("main a.to")).to_have_text(["L09990"])
        assert page.url.endswith("?text=L09990")
        assert reader.said == []
        reader.close()


def test_the_list_is_narrowed_by_state_project_and_text(visit: Visit) -> None:
    page = visit().go("/datasets")
    page.get_by_role("link", name="Failed").click()
    expect(page.locator("main a.to")).to_have_count(2)
    page.get_by_label("Project").select_option("apoferritin")
    expect(page.locator("main a.to")).to_have_text(["TS_06"])
    page.get_by_role("link", name="Held").click()
    expect(page.locator("main a.to")).to_have_count(2)
    expect(page.get_by_role("link", name="TS_02")).to_be_visible()
    page.get_by_label("Name or id").fill("no such name")
    expect(page.get_by_text("No dataset is like that.")).to_be_visible()


def test_keys_lead_through_the_list(visit: Visit) -> None:
    page = visit().go("/datasets")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_label("Name or id")).to_be_focused()
    page.keyboard.type("TS_0")
    expect(page.locator("main a.to")).to_have_count(7)
    page.keyboard.press("Escape")
    expect(page.locator("main a.to")).not_to_have_count(7)  # the field is empty, and the whole list is back
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("k")
    expect(page.locator("main a.to").first).to_be_focused()
    page.keyboard.press("Enter")
    page.wait_for_url("**/datasets/*.1.1")


# -- live --------------------------------------------------------------------------------------------------


def test_a_page_follows_what_happens(visit: Visit, served: Serving) -> None:
    page = visit().go("/datasets/TS_03")
    expect(page.locator("#live[data-state=on]")).to_be_visible()
    expect(page.locator("#head .state")).to_have_text("waiting")
    datasets = served.daemon.core.state.datasets
    key = "TS_03-00000003.1.1"
    before = datasets[key]
    try:
        datasets[key] = replace(before, state=State.QUEUED, state_since_at=NOW)
        served.changed(datasets[key])
        expect(page.locator("#head .state")).to_have_text("queued")
    finally:
        datasets[key] = before


def test_what_is_being_typed_stays(visit: Visit, served: Serving) -> None:
    page = visit().go("/datasets/TS_03")
    expect(page.locator("#live[data-state=on]")).to_be_visible()
    page.get_by_label("Reason").first.fill("half a sen")
    datasets = served.daemon.core.state.datasets
    key = "TS_03-00000003.1.1"
    before = datasets[key]
    try:
        datasets[key] = replace(before, state=State.QUEUED)
        served.changed(datasets[key])
        expect(page.locator("#head .state")).to_have_text("queued")
        expect(page.get_by_label("Reason").first).to_have_value("half a sen")
    finally:
        datasets[key] = before


# -- acting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "button", "action"),
    [
        ("/datasets/TS_03", "Hold", "hold"),
        ("/datasets/TS_02", "Release", "release"),
        ("/datasets/TS_02", "Accept as it is", "accept"),
        ("/datasets/TS_06", "Try again", "retry"),
        ("/datasets/TS_04", "Cancel", "cancel"),
    ],
)
def test_acting_on_one(visit: Visit, served: Serving, path: str, button: str, action: str) -> None:
    page = visit().go(path)
    page.get_by_label("Reason").first.fill("because")
    page.get_by_role("button", name=button, exact=True).click()
    done = "done" if action != "accept" else "accept done"
    expect(page.locator(".told")).to_contain_text(done)
    asked = served.daemon.asked[-1]
    assert (asked.action, asked.reason, asked.by, asked.via) == (action, "because", "ada", "token")
    page.reload()
    expect(page.locator(".told")).to_have_count(0)


def test_another_place_in_the_queue(visit: Visit, served: Serving) -> None:
    page = visit().go("/datasets/TS_03")
    page.get_by_label("Priority over the policy's").fill("20")
    page.get_by_role("button", name="Set").click()
    expect(page.locator(".told")).to_be_visible()
    assert (served.daemon.asked[-1].action, served.daemon.asked[-1].priority) == ("prioritize", 20)


def test_a_rerun_with_the_pipelines_own_options(visit: Visit, served: Serving) -> None:
    page = visit().go("/datasets/TS_11")
    page.get_by_text("Run it again with other options").click()
    form = page.locator("#rerun form")
    expect(form.get_by_text("pixels averaged; 0: longer side at most 1024")).to_be_visible()
    form.locator("[name='option.binning']").fill("8")
    form.get_by_label("Directives").fill("comparam.tilt.tilt.THICKNESS = 800\n\n")
    form.get_by_label("output_mode").select_option("int16")
    form.get_by_label("hot_pixel").select_option("false")
    form.get_by_role("button", name="Run it again").click()
    expect(page.locator(".told")).to_be_visible()
    assert served.daemon.asked[-1].options == {
        "binning": 8,
        "output_mode": "int16",
        "hot_pixel": False,
        "comparam.tilt.tilt.THICKNESS": "800",
    }


def test_acting_on_several(visit: Visit, served: Serving) -> None:
    page = visit().go("/datasets?project=apoferritin")
    expect(page.get_by_text("Tick series to act on them")).to_be_visible()
    page.get_by_role("checkbox", name="TS_03").check()
    page.get_by_role("checkbox", name="TS_04").check()
    expect(page.get_by_text("2 ticked")).to_be_visible()
    page.get_by_label("Action").select_option("hold")
    page.get_by_label("Reason").fill("beam is off")
    page.get_by_role("button", name="Do it").click()
    expect(page.locator(".told p")).to_have_count(2)
    assert page.url.endswith("/datasets?project=apoferritin")
    assert {each.dataset_id[:5] for each in served.daemon.asked} == {"TS_03", "TS_04"}


def test_a_breaker_is_closed(visit: Visit, served: Serving) -> None:
    page = visit().go("/")
    page.get_by_role("button", name="Close the breaker").click()
    expect(page.locator(".told")).to_be_visible()
    assert (served.daemon.asked[-1].action, served.daemon.asked[-1].reason) == ("close_breaker", "node:n2")


def test_a_candidate_policy(visit: Visit, served: Serving) -> None:
    page = visit().go("/policy")
    page.get_by_label("Policy in TOML").fill("[resources]\nmemory_factor = 3\n")
    page.get_by_role("button", name="Check and compare").click()
    expect(page.locator(".verdict")).to_contain_text("Good")
    expect(page.locator(".changes").first).to_contain_text("resources.memory_factor")
    page.get_by_label("Policy in TOML").fill("[resources]\nmemory_factr = 3\n")
    page.get_by_role("button", name="Check and compare").click()
    expect(page.locator(".verdict.bad")).to_contain_text("candidate.toml:2")
    page.get_by_role("button", name="Read the files again").click()
    expect(page.locator(".told.bad")).to_contain_text("no such thing")


# -- who ---------------------------------------------------------------------------------------------------


def test_who_only_reads_is_offered_nothing_to_do(visit: Visit, served: Serving) -> None:
    reader = visit(served.token_for("reader", "apoferritin"))
    for path in PAGES.values():
        if path == "/policy":
            continue
        page = reader.go(path)
        assert SECRET not in page.content().lower(), path
        assert page.locator("main button.do, main input[type=checkbox]").count() == 0
    assert page.get_by_role("link", name="Policy").count() == 0
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url("**/login")


def test_a_wrong_token_is_told(visit: Visit) -> None:
    reader = visit("")
    page = reader.go("/login")
    page.get_by_label("Token").fill("no such token")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not known or has expired")
    reader.said.clear()  # the browser tells of every 401


def test_light_and_dark_are_the_readers_choice(visit: Visit) -> None:
    page = visit("", color_scheme="light").go("/")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Light or dark").click()
    dark = page.evaluate(ground)
    page.reload()
    assert page.evaluate(ground) == dark != light


def test_everything_can_be_read_and_done_without_scripts(visit: Visit, served: Serving) -> None:
    reader = visit(java_script_enabled=False)
    for path, words in (
        ("/", "Needs a person"),
        ("/datasets", "TS_04"),
        ("/datasets/TS_04", "Evidence"),
        ("/nodes", "n2"),
        ("/policy", "large-series"),
        ("/errors", "walltime"),
        ("/acts", "ada"),
    ):
        expect(reader.go(path).locator("main")).to_contain_text(words)
    page = reader.go("/datasets/TS_03")
    page.get_by_role("button", name="Hold", exact=True).click()
    expect(page.locator(".told")).to_contain_text("hold done")
    page = reader.go("/datasets")
    page.get_by_label("Name or id").fill("TS_1")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("main a.to")).to_have_text(["TS_11", "TS_12"])
