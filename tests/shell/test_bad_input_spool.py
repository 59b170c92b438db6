"""Hands in the spool and at the destination: nothing is overwritten, nothing is believed that is not so."""

from __future__ import annotations

from pathlib import Path

from shell.daemon_process import Site, running


def test_another_s_result_is_never_overwritten_and_is_told(tmp_path: Path) -> None:
    site = Site(tmp_path, step_seconds=0)
    taken = site.results / "krios1/p/s/taken"
    taken.mkdir(parents=True)
    (taken / "precious.txt").write_text("mine")
    with running(site) as daemon:
        site.feed("taken.mrc")
        site.feed("other.mrc")
        daemon.delivered("other")
        daemon.wait(lambda: daemon.held("taken") == ["destination"])
        assert "exists and has no manifest.json of tiltd; it is left alone" in daemon.why("taken")
        assert (taken / "precious.txt").read_text() == "mine"
        assert len(list(taken.iterdir())) == 1
        taken.rename(tmp_path / "elsewhere")
        assert daemon.act("release", datasets=["taken"])[0]["ok"]
        daemon.delivered("taken", "other")
        daemon.settled()
    assert len(site.runs()) == 2


def test_garbage_in_the_spool_is_passed_over(tmp_path: Path) -> None:
    site = Site(tmp_path, step_seconds=0)
    attempts = site.spool / "attempts"
    (attempts / "bad name\n.1.1.a1").mkdir(parents=True)
    (attempts / "empty.1.1.a1").mkdir()
    (attempts / "lost+found").mkdir()
    (attempts / "a_file.1.1.a1").write_text("no folder")
    (attempts / "torn.1.1.a1").mkdir()
    (attempts / "torn.1.1.a1" / "claimed.7").write_text('{"format": 1, "story"')
    with running(site) as daemon:
        site.feed("one.mrc")
        daemon.delivered("one")
        daemon.settled()
        assert set(daemon.states()) == {"one"}
    assert "Traceback" not in site.log_text()
