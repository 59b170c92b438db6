"""Manifest, curves and pictures -> one HTML page.  Pure; every text in it is escaped in one place."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from tiltd.daemon.core.units import show_bytes, show_seconds
from tiltd.daemon.text import shown

from . import svg
from .gather import BELOW, Curve, Gathered
from .style import STYLE

MAX_FILES = 500
MAX_TEXT = 200_000
_HEAD = (
    '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">"
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
)
_LOOK = f"<style>{STYLE}</style></head>\n<body><main>"
# What nothing is done to (ASCII but & < > " ' and the backslash), and nearly all is such: that is seen
# sooner than done.
_PLAIN = re.compile(r"[ !#-%(-;=?-\[\]-~]*").fullmatch
_CAPTIONS = {
    "thumbnails/xy.png": "central slice, x to the right, y up",
    "thumbnails/zy.png": "z to the right, y up",
    "thumbnails/xz.png": "x to the right, z up",
}
_SAID = {"success": "made this result", "stranded": "made this result, and could not deliver it"}
_VERDICTS = {"good": "good", "doubtful": "doubtful", "bad": "bad"}


def page(record: Mapping[str, Any], gathered: Gathered) -> str:
    """The whole page of the result that ``record`` (a manifest) describes.

    It loads nothing and runs nothing: its policy of content forbids all but its own style and pictures.  Cost
    grows with the pictures' bytes and the manifest's files.
    """
    name = _text(record["tilt_series_name"])
    verdict = str(record["verdict"])
    every = (
        _header(record, name, verdict),
        _problems(record["problems"], verdict),
        _pictures(gathered),
        _section("Alignment and tilts", _curves(record, gathered)),
        _section("Time by step", _steps(record)),
        _section("Quality", _table(_quality(record))),
        _section("How it was run", _table(_run(record))),
        _section("Input", _table(_input(record))),
        _section("Attempts", _attempts(record.get("attempts", ()))),
        _files(record),
    )
    sections = "\n".join([section for section in every if section])
    return (
        f"{_HEAD}<title>{name}: {_text(verdict)}</title>{_LOOK}{sections}"
        f"</main><footer>tiltd {_text(record['versions']['tiltd'])}, "
        f"published {instant(record['published_at'])}. manifest.json beside this page tells the same to "
        "programs.</footer></body></html>\n"
    )


def instant(at: float | None) -> str:
    """UTC, to the second; "-" for none."""
    if not at:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at))


def _text(value: Any) -> str:
    """Whatever it is, as text that shows itself and does nothing else."""
    text = str(value)
    return text if _PLAIN(text) else escape(shown(text))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _header(record: Mapping[str, Any], name: str, verdict: str) -> str:
    labels = [
        f"{_text(key)} <b>{_text(value)}</b>" for key, value in sorted(record["labels"].items()) if value
    ]
    labels.append(f"feed <b>{_text(record['feed'])}</b>")
    partial = ' <span class="badge doubtful">partial series</span>' if record.get("partial") else ""
    return (
        f'<header><h1>{name} <span class="badge {_VERDICTS.get(verdict, "other")}">{_text(verdict)}</span>'
        f"{partial}</h1><p>{' &middot; '.join(labels)}</p>"
        f"<p><code>{_text(record['dataset_id'])}</code></p></header>"
    )


def _problems(problems: Iterable[Mapping[str, Any]], verdict: str) -> str:
    items = "".join(
        f"<li>{_text(problem['detail'])} <code>{_text(problem['code'])}</code></li>" for problem in problems
    )
    return f'<ul class="problems {_VERDICTS.get(verdict, "other")}">{items}</ul>' if items else ""


def _pictures(gathered: Gathered) -> str:
    """As in a slicer: x and y, z and y to the right of it, x and z below."""
    figures = "".join(
        ('<div class="row"></div>' if picture.name == BELOW else "")
        + f'<figure><img alt="{_text(picture.name)}" src="data:image/png;base64,{picture.base64}">'
        f"<figcaption>{_text(_CAPTIONS.get(picture.name, picture.name))}</figcaption></figure>"
        for picture in gathered.pictures
    )
    return f'<section class="pictures">{figures}</section>' if figures else ""


def _curves(record: Mapping[str, Any], gathered: Gathered) -> str:
    angles = record["input"].get("tilt_angles_deg", ())
    curves = list(gathered.curves)
    if angles:
        points = tuple((float(number), float(angle)) for number, angle in enumerate(angles, 1))
        of = "tilt, as acquired" if record["input"].get("kind") == "frames" else "section of the stack"
        curves.append(Curve(title="Tilt angles", x=of, y="tilt, degrees", points=points))
    drawn = "".join(
        [
            f"<figure><figcaption>{_text(each.title)}</figcaption>"
            f"{svg.curve(each.points, shown(each.x), shown(each.y), shown(each.title))}</figure>"
            for each in curves
        ]
    )
    return f'<div class="curves">{drawn}</div>' if drawn else ""


def _steps(record: Mapping[str, Any]) -> str:
    """Copying in, each step, copying out.  The runner tells a step's parts before the step itself; here they
    stand below it, and the step that has parts is drawn faintly."""
    measured, names = record["attempt"]["measured"], set(record["attempt"].get("step_names", ()))
    bars = [_bar("copy to the node", measured["stage_in_seconds"])]
    parts: list[svg.Bar] = []
    for name, seconds in measured["step_seconds"].items():
        if name in names:
            bars += [_bar(shown(name), seconds, faint=bool(parts)), *parts]
            parts = []
        else:
            parts.append(_bar(shown(name), seconds))
    bars += [*parts, _bar("copy to the destination", measured["stage_out_seconds"])]
    drawn = [bar for bar in bars if bar.value > 0]
    return svg.bars(drawn, "Time by step") if drawn else ""


def _bar(name: str, seconds: float, faint: bool = False) -> svg.Bar:
    return svg.Bar(name=name, value=max(0.0, float(seconds)), words=_seconds(seconds), faint=faint)


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else show_seconds(round(seconds))


def _table(rows: Sequence[tuple[str, str]]) -> str:
    """Of names that are markup already and values that are text; of those that have a value."""
    if not _PLAIN("".join([value for _, value in rows])):
        rows = [(name, _text(value)) for name, value in rows]
    cells = "".join([f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in rows if value])
    return f"<table>{cells}</table>" if cells else ""


def _quality(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        (_text(name).replace("_", " "), f"{value:.5g}") for name, value in sorted(record["quality"].items())
    ]


def _run(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    attempt, placement = record["attempt"], record["attempt"]["placement"]
    measured, decided = attempt["measured"], record["policy"].get("decided") or {}
    predicted = decided.get("predicted") or {}
    rules = ", ".join(decided.get("rules", ())) or record["policy"]["rule"]

    def of(key: str) -> str:
        return f" (expected at most {show_bytes(predicted[key])})" if predicted.get(key) else ""

    options = ", ".join([f"{name} = {value}" for name, value in sorted(record["options"].items())])
    return [
        ("node", ", ".join(attempt["nodes"])),
        ("policy", f"rule {rules}, version {record['policy']['version']}"),
        ("pipeline", record["pipeline"]),
        ("options", options),
        ("cores, threads", f"{int(placement['cores'])}, {int(placement['threads'])}"),
        ("job", attempt["job_id"]),
        ("started", instant(attempt["started_at"])),
        ("ended", instant(attempt["ended_at"])),
        ("run time", _seconds(measured["run_seconds"])),
        ("processor time", _seconds(measured["cpu_seconds"])),
        ("peak memory", show_bytes(measured["peak_memory_bytes"]) + of("memory_bytes_p99")),
        ("peak scratch", show_bytes(measured["peak_scratch_bytes"]) + of("scratch_bytes_p99")),
    ]


def _input(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = record["input"]
    angles = found.get("tilt_angles_deg") or ()
    reach = f", {min(angles):g} to {max(angles):g} degrees" if angles else ""
    return [
        ("series", record["series_key"]),
        ("tilts", f"{int(found['tilt_count'])}{reach}"),
        ("image size", _with_unit(" x ".join(map(str, found.get("image_size") or ())), "px")),
        ("pixel size", _with_unit(found.get("pixel_spacing_angstrom"), "angstrom")),
        ("tilt axis", _with_unit(found.get("tilt_axis_deg"), "degrees")),
        ("voltage", _with_unit(found.get("voltage_kv"), "kV")),
        ("size", show_bytes(sum([file["size_bytes"] for file in found["files"]]))),
        ("last change", instant(found["last_change_at"])),
    ]


def _with_unit(value: Any, unit: str) -> str:
    return f"{value} {unit}" if value else ""


def _attempts(attempts: Iterable[Mapping[str, Any]]) -> str:
    parts = []
    for attempt in attempts:
        failure = attempt.get("failure")
        said = _SAID.get(attempt.get("outcome", ""), "")
        if attempt["kind"] == "rescue" and not failure:
            said = "brought the result from its node"
        if failure:
            said = f"<b>{_text(failure['failure_class'])}: {_text(failure['reason'])}</b>. "
            said += f"{_text(failure['detail'])} {_text(failure['remedy'])}"
        parts.append(
            f"<li><code>{_text(attempt['attempt_id'])}</code> on {_text(', '.join(attempt['nodes']))}: {said}"
            + "".join(_kept(name, text) for name, text in attempt.get("texts", {}).items())
            + "</li>"
        )
    return f"<ol>{''.join(parts)}</ol>" if parts else ""


def _kept(name: str, text: str) -> str:
    """A kept text keeps its lines; they are shown one by one, so that nothing else in it can matter."""
    lines = "\n".join([_text(line) for line in text[:MAX_TEXT].split("\n")])
    return f"<details><summary>{_text(name)}</summary><pre>{lines}</pre></details>"


def _files(record: Mapping[str, Any]) -> str:
    files = record["files"]
    rows = "".join(
        [
            f'<tr><td>{_text(file["name"])}</td><td class="number">{show_bytes(file["size_bytes"])}</td>'
            f"<td><code>{_text(file['sha256'][:16])}</code></td></tr>"
            for file in files[:MAX_FILES]
        ]
    )
    more = f"<p>and {len(files) - MAX_FILES} more</p>" if len(files) > MAX_FILES else ""
    total = show_bytes(record["result_bytes"])
    return (
        f"<section><h2>Files</h2><details><summary>{len(files)} files, {total}</summary>"
        f"<table>{rows}</table>{more}</details></section>"
        if files
        else ""
    )
