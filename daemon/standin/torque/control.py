"""What tests and the demo do to the cluster, beside its commands: one JSON object in, one out."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from . import asking
from .commands import Commands
from .faults import Fault
from .records import BatchJob, Node, numbered

Fields = Mapping[str, Any]


class Control:
    """``do`` raises KeyError, TypeError or ValueError for what it does not understand."""

    def __init__(self, commands: Commands) -> None:
        self.commands = commands
        self.batch = commands.batch
        self._under_way: dict[str, int] = {}
        self._most_at_once: dict[str, int] = {}
        self._operations: dict[str, Callable[[Fields], Any]] = {
            "fault": lambda fields: commands.faults.add(Fault(**fields)),
            "clear": lambda fields: commands.faults.clear(),
            "node_lost": lambda fields: self.batch.node_lost(self._node(fields), bool(fields.get("dies"))),
            "node_back": lambda fields: self.batch.node_back(self._node(fields)),
            "offline": self._offline,
            "forget": lambda fields: self.batch.forget(self._job(fields)),
            "rerun": lambda fields: self.batch.rerun(self._job(fields)),
            "hold": lambda fields: self.batch.hold(self._job(fields), "s"),
            "delete": lambda fields: self.batch.delete(self._job(fields)),
            "release": lambda fields: self.batch.release(self._job(fields)),
            "again": lambda fields: self._again(self._job(fields)),
            "pace": self._pace,
            "queue": self._queue,
            "told": lambda fields: self.told(),
        }

    def do(self, operation: str, fields: Fields) -> Any:
        """Carry it out; the answer is JSON."""
        return self._operations[operation](fields)

    @contextlib.contextmanager
    def under_way(self, name: str) -> Iterator[None]:
        """Around every command that came through the socket."""
        now = self._under_way[name] = self._under_way.get(name, 0) + 1
        self._most_at_once[name] = max(self._most_at_once.get(name, 0), now)
        try:
            yield
        finally:
            self._under_way[name] -= 1

    def _node(self, fields: Fields) -> Node:
        return self.batch.nodes[fields["node"]]

    def _job(self, fields: Fields) -> BatchJob:
        """By id, or by name: then the newest of that name."""
        if "job_id" in fields:
            job = numbered(self.batch.jobs, fields["job_id"])
        else:
            named = [job for job in self.batch.jobs.values() if job.name == fields["name"]]
            job = named[-1] if named else None
        if job is None:
            raise KeyError(f"no such job: {dict(fields)}")
        return job

    def _offline(self, fields: Fields) -> None:
        node, note = self._node(fields), str(fields.get("note", ""))
        node.state, node.note = ("offline", note) if note else ("free", "")
        self.batch.cycle_soon()

    def _again(self, job: BatchJob) -> str:
        """A second job of the same name and script, as from a submission that was accepted late."""
        asked = asking.Asked(
            job.script, job.name, job.submit_args, job.work_folder, queue=job.queue,
            resources={name: value for name, value in job.resources.items() if name != "nodect"},
            options={"o": job.output_path, "e": job.error_path, "j": job.join, "r": "ny"[job.rerunable]},
        )  # fmt: skip
        second = self.batch.submit(asked, job.user)
        second.variables = dict(job.variables)
        return second.job_id

    def _pace(self, fields: Fields) -> None:
        self.batch.pace = dataclasses.replace(self.batch.pace, **fields)

    def _queue(self, fields: Fields) -> None:
        name = fields["name"]
        self.batch.queues[name] = dataclasses.replace(self.batch.queues[name], **fields)
        self.batch.cycle_soon()

    def told(self) -> dict[str, Any]:
        """What a witness wants to know: jobs, nodes, and how often the server was asked."""
        return {
            "jobs": [
                {
                    "job_id": job.job_id, "name": job.name, "state": job.state, "nodes": job.nodes(),
                    "start_count": job.start_count, "exit_status": job.exit_status,
                    "submitted_at": job.submitted_at, "started_at": job.started_at,
                    "ended_at": job.ended_at, "session_id": job.session_id,
                }
                for job in self.batch.jobs.values()
            ],
            "nodes": {
                node.name: {
                    "state": node.shown_state(), "taken": len(node.taken), "scratch": node.scratch,
                    "free_bytes": node.told_free_bytes, "most_used_bytes": node.most_used_bytes,
                }
                for node in self.batch.nodes.values()
            },
            "connections": self.commands.connections,
            "most_at_once": self._most_at_once,
            "faults": self.commands.faults.met,
            "submitted": self.batch.next_number,
            "started": self.batch.started_total,
        }  # fmt: skip
