"""A stand-in for the daemon that the demo talks to: it "delivers" what has been quiet for half a second."""

from __future__ import annotations

import hashlib
import json
import signal
import socketserver
import struct
import sys
import time
import tomllib
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote

METRICS = """tiltd_datasets_ended_total{feed="krios1",state="delivered"} 4.0
tiltd_last_tilt_to_tomogram_seconds_count{feed="krios1"} 4.0
tiltd_datasets_held{cause="partial"} 1.0
tiltd_sightings_ignored_total{reason="montage"} 1.0
tiltd_node_scratch_reserved_bytes{node="alpha"} 0.0
tiltd_policy_last_reload_successful 1.0
"""


class Site:
    def __init__(self, config: dict[str, Any], spoil: str) -> None:
        self.feed = Path(config["feed"][0]["path"])
        self.template = config["feed"][0]["destination"]
        self.spoil = spoil
        self.delivered: dict[str, dict[str, Any]] = {}

    def rows(self) -> list[dict[str, Any]]:
        found = []
        for stack in sorted(self.feed.rglob("*.mrc")):
            quiet = time.time() - stack.stat().st_mtime > 0.5
            if stack.stem.endswith(("LMM", "view")) or "_tgt_" in stack.stem:
                continue
            partial = stack.stem == "TS_03"
            if quiet and not partial:
                self.deliver(stack.stem)
            done = stack.stem in self.delivered
            found.append(
                {
                    "dataset_id": f"{stack.stem}.1.1",
                    "name": stack.stem,
                    "state": "delivered" if done else "arriving",
                    "held": ["partial"] if partial and quiet else [],
                    "why": "",
                    "nodes": ["alpha"] if done else [],
                    "since_at": self.delivered[stack.stem]["at"] if done else time.time(),
                }
            )
        return found

    def deliver(self, name: str) -> None:
        if name in self.delivered:
            return
        folder = Path(self.template.format(project="demo", session="grid1", series=name))
        folder.mkdir(parents=True)
        header = bytearray(1024)
        struct.pack_into("<10i", header, 0, 8, 8, 4, 2, 0, 0, 0, 8, 8, 4)
        pixel = 13.4 * 256 / 32
        struct.pack_into("<3f", header, 40, 8 * pixel, 8 * pixel, 4 * pixel)
        header[208:212] = b"MAP "
        content = bytes(header) + bytes(1024)
        (folder / "tomogram.mrc").write_bytes(content if self.spoil != "tomogram" else content + b"x")
        entry = {"name": "tomogram.mrc", "sha256": hashlib.sha256(content).hexdigest()}
        manifest = {"tilt_series_name": name, "input": {"tilt_count": 9}, "files": [entry]}
        (folder / "manifest.json").write_text(json.dumps(manifest))
        (folder / "report.html").write_text("<!DOCTYPE html>")
        self.delivered[name] = {"at": time.time(), "path": str(folder)}

    def dataset(self, name: str) -> dict[str, Any]:
        if name == "TS_03":
            return {"state": "arriving", "holds": [{"cause": "partial", "detail": "3 of 9 tilts"}]}
        return {
            "state": "delivered",
            "result_path": self.delivered[name]["path"],
            "verdict": "good",
            "quality": {"residual_mean_px": 0.1},
            "attempts": [{"placement": {"cores": 1}}],
        }

    def answer(self, path: str) -> Any:
        parts = [unquote(part) for part in path.removeprefix("/api/v1/").split("/")]
        match parts:
            case ["datasets"]:
                return {"datasets": self.rows()}
            case ["datasets", name]:
                return {"dataset": self.dataset(name.removesuffix(".1.1"))}
            case ["ignored"]:
                there = (self.feed / "demo/grid1/GRID_LMM.mrc").exists() and self.spoil != "ignored"
                entry = {"series_key": "demo/grid1/GRID_LMM.mrc", "reason": "montage"}
                return {"ignored": [entry] if there else []}
            case ["why", _]:
                return {"lines": ["a map"]}
            case ["nodes"]:
                return {"nodes": [{"name": "alpha", "attempts": []}]}
        return None


def main() -> None:
    config = Path(sys.argv[sys.argv.index("--config") + 1])
    site = Site(tomllib.loads(config.read_text()), spoil=sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3 if site.spoil == "exit" else 0))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            value = METRICS if self.path == "/metrics" else json.dumps(site.answer(self.path))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(value.encode())

        def log_message(self, format: str, *args: Any) -> None: ...

    tables = tomllib.loads(config.read_text())
    with socketserver.UnixStreamServer(tables["listen"]["socket"], Handler) as server:
        server.serve_forever()


main()
