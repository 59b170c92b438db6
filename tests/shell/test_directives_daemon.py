"""The real daemon merges templates, feed and rules; what it shows is what the run was given."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from plugins.replaying import THICKNESS_PX, make_imod
from shell.daemon_process import POLICY, Site, running
from tiltd.daemon.cli.dispatch import dispatch
from tiltd.daemon.microscope import SCENARIOS, Optics, Session

OPTICS = Optics(width_px=64, height_px=64, noise_counts=2.0, max_shift_px=1.0)
FILES = {
    "ScopeTemplate/krios1.adoc": "setupset.copyarg.Cs=2.7\nsetupset.copyarg.voltage=120\n",
    "SystemTemplate/cryo.adoc": "runtime.Fiducials.any.trackingMethod=0\n"
    "runtime.Fiducials.any.seedingMethod=1\ncomparam.tilt.tilt.THICKNESS=500\nsetupset.copyarg.gold=10\n"
    "comparam.align.tiltalign.ResidualReportCriterion=3\n",
    "day.adoc": "setupset.scopeTemplate=krios1.adoc\nsetupset.systemTemplate=cryo.adoc\n"
    "comparam.autofidseed.autofidseed.TargetNumberOfBeads=20\n",
}
RULES = f"""
[[rule]]
name = "thin"
[rule.set.options]
comparam.tilt.tilt.THICKNESS = {THICKNESS_PX}
[[rule]]
name = "wrong"
when = {{ name = "TS_bad*" }}
[rule.set.options]
runtime.Trimvol.any.sizeInX = 4000
"""


def make_site(folder: Path) -> Site:
    imod = make_imod(folder / "imod", "full_2cpu")
    (imod / "com").mkdir()
    table = Path(__file__).parents[1] / "golden" / "batchruntomo" / "directives.csv"
    (imod / "com" / "directives.csv").write_text(table.read_text())
    for name, text in FILES.items():
        path = folder / "templates" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "incoming").mkdir()
    more = f"""
[[feed]]
name = "krios1"
path = "{folder}/incoming"
pipeline = "batchruntomo"
destination = "{folder}/results/{{series}}"
scan_seconds = 0.2
[feed.options]
directive_file = "day.adoc"
runtime.Trimvol.any.reorient = 1
[imod]
dir = "{imod}"
templates = "{folder}/templates"
"""
    return Site(folder, feeds=(), more=more, policy=POLICY + RULES)


def shoot(site: Site, name: str) -> None:
    session = Session(folder=site.folder / "incoming", name=name, optics=OPTICS, tilt_count=41)
    for _, action in SCENARIOS["dose-symmetric"](session):
        action()


def test_what_is_shown_is_what_the_run_was_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = make_site(tmp_path)
    with running(site) as daemon:
        shoot(site, "TS_01")
        daemon.delivered("TS_01", seconds=60)
        rows = {row["key"]: row for row in site.client.get("datasets", "TS_01", "directives")["directives"]}
        assert dispatch(["directives", "show", "TS_01", "--socket", str(site.socket)]) == 0
        shown = capsys.readouterr().out
        shoot(site, "TS_bad")
        daemon.wait(lambda: daemon.rows().get("TS_bad", {}).get("state") == "failed", 30)
        why = daemon.why("TS_bad")
        facts = site.client.get("datasets", "TS_bad", "facts")["facts"]
        assert dispatch(["directives", "show", "TS_bad", "--socket", str(site.socket)]) == 1
        refused = capsys.readouterr().out
    expected = {
        "setupset.copyarg.Cs": ("2.7", "scope template"),
        "setupset.copyarg.gold": ("10", "system template"),
        "comparam.autofidseed.autofidseed.TargetNumberOfBeads": ("20", "directive file"),
        "setupset.copyarg.voltage": ("300", "dataset"),
        "setupset.copyarg.userawtlt": ("1", "dataset"),
        "runtime.Trimvol.any.reorient": ("1", "feed"),
        "comparam.tilt.tilt.THICKNESS": (str(THICKNESS_PX), "policy"),
        "setupset.copyarg.name": ("stack", "tiltd"),
    }
    assert {key: (rows[key]["value"], rows[key]["layer"]) for key in expected} == expected
    assert f"policy rule thin ({site.policy}:" in shown
    assert rows["comparam.tilt.tilt.THICKNESS"]["overruled"][0].startswith("500 (system template ")

    (result,) = site.published()
    (attempt,) = json.loads((result / "manifest.json").read_text())["attempts"]
    given = attempt["texts"]
    directives = dict(
        (part.strip() for part in line.split("=", 1))
        for text in given.values()
        for line in text.splitlines()
        if "=" in line and not line.startswith("#")
    )
    assert {key: directives.get(key) for key in rows} == {key: row["value"] for key, row in rows.items()}
    assert any("ResidualReportCriterion" in text for name, text in given.items() if name != "batch.adoc")

    assert "runtime.Trimvol.any.sizeInX is 4000" in why
    assert not any(fact.get("attempt_id") for fact in facts), "nothing was submitted"
    assert f"policy rule wrong ({site.policy}:" in refused and "sizeInX is 4000" in refused


def test_a_rule_with_a_directive_that_is_none_is_refused(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    with running(site):
        site.policy.write_text(site.policy.read_text() + "comparam.tilt.tilt.THICKNES = 3\n")
        refused = site.client.post("policy/reload", {})
    (fault,) = refused["faults"]
    assert (
        fault.startswith(f"{site.policy}:") and "rule.wrong.set.options.comparam.tilt.tilt.THICKNES" in fault
    )
    assert "did you mean comparam.tilt.tilt.THICKNESS" in fault
    assert "seedingMethod" not in fault, "what is wrong without it is not its fault"


def test_templates_are_read_again_with_the_policy_and_refused_with_a_fault(tmp_path: Path) -> None:
    site = make_site(tmp_path)
    template = tmp_path / "templates" / "SystemTemplate" / "cryo.adoc"
    with running(site) as daemon:
        shoot(site, "TS_01")
        daemon.wait(lambda: daemon.rows().get("TS_01", {}).get("state") == "delivered", 60)

        def gold() -> str:
            rows = site.client.get("datasets", "TS_01", "directives")["directives"]
            return next(str(row["value"]) for row in rows if row["key"] == "setupset.copyarg.gold")

        text = template.read_text()
        template.write_text(text.replace("gold=10", "gold=12"))
        assert gold() == "10", "until it is asked for"
        assert site.client.post("policy/reload", {})["ok"] and gold() == "12"
        template.write_text(text.replace("gold=10", "gold=ten"))
        refused = site.client.post("policy/reload", {})
        assert not refused["ok"] and "cryo.adoc:4: setupset.copyarg.gold is 'ten'" in refused["faults"][0]
        assert gold() == "12"
        (tmp_path / "templates" / "day.adoc").write_bytes(b"#" * 1_000_001)
        template.write_text(text)
        assert "day.adoc: is larger than" in site.client.post("policy/reload", {})["faults"][0]
        assert gold() == "12"
    assert "the templates were refused" in site.log_text()
