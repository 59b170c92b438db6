"""An attempt made ready to be submitted: runner and job file durable in the spool, and its specification."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from tiltd.plugins.api import Papered, Pipeline, ResourceManager, Temporary

from . import jobfile
from .config import Settings
from .core.core import Core
from .core.destination import staging_folder
from .core.model import Attempt, Dataset, ExpectedResult, JobSpec, JobSteps, NodeInfo, Placement
from .durable import Durably
from .spool import Spool


class Preparing:
    """Blocks on the spool: to be called in a worker thread."""

    def __init__(
        self,
        core: Core,
        settings: Settings,
        pipelines: Mapping[str, Pipeline],
        spool: Spool,
        manager: ResourceManager,
    ) -> None:
        self._core = core
        self._settings = settings
        self._pipelines = pipelines
        self._spool = spool
        self._papers = manager.papers if isinstance(manager, Papered) else lambda spec: {}

    def spec(self, dataset: Dataset, attempt: Attempt, final: str) -> Durably[JobSpec]:
        """Make the intent durable: the runner and the job file in the spool, before anything is asked."""
        feed, placement = self._settings.feed(dataset.feed), attempt.placement
        node = self._core.nodes.get(placement.nodes[0])
        if node is None:
            raise Temporary(f"the node {placement.nodes[0]} is not known at the moment")
        document = jobfile.job_document(
            dataset,
            attempt,
            self._steps(dataset, attempt),
            feed_root=dataset.imported_path or str(feed.path_on_nodes),
            scratch_path=node.scratch_path,
            staging=staging_folder(final, attempt.attempt_id),
            dir_mode=f"{self._settings.publish.dir_mode:04o}",
            file_mode=f"{self._settings.publish.file_mode:04o}",
            group=self._settings.publish.group,
            nonce=f"{attempt.attempt_id}@{attempt.placed_at:.6f}",
            scratch_paths=self._other_paths(placement, node),
            tickets=self._tickets(),
        )
        if dataset.imported_path:
            for file in document["input"]["files"]:
                file["source"] = file["name"]
        runner_path = self._spool.install_runner()
        spec = JobSpec(
            attempt_id=attempt.attempt_id,
            job_name=attempt.attempt_id,
            runner_path=runner_path,
            attempt_folder=self._spool.place(attempt.attempt_id),
            nodes=placement.nodes,
            cores=placement.cores,
            threads=placement.threads,
            memory_bytes=placement.memory_bytes,
            scratch_bytes=placement.scratch_bytes,
            walltime_seconds=placement.walltime_seconds,
            queue=placement.queue,
            account=placement.account,
            priority=placement.priority,
            directives=placement.directives,
            floating=placement.mode == "floating",
            properties=placement.properties,
            largest_file_bytes=largest_file_bytes(dataset, attempt),
        )
        laid = yield from self._spool.preparing(attempt.attempt_id, document, self._papers(spec))
        return replace(spec, papers_laid=True) if laid else spec

    def _other_paths(self, placement: Placement, node: NodeInfo) -> dict[str, str]:
        """Scratch folders of the nodes that a floating job may start on, where they differ."""
        if placement.mode == "pinned":
            return {}
        return {
            name: other.scratch_path
            for name, other in self._core.nodes.items()
            if other.floating and other.scratch_path != node.scratch_path
        }

    def _tickets(self) -> tuple[int, str]:
        """Where the core decides what starts, it counts those that stage in itself."""
        count = self._core.policy.limits.stage_ins_max if self._core.desk.site.queues else 0
        return (count, self._spool.install_tickets()) if count else (0, "")

    def _steps(self, dataset: Dataset, attempt: Attempt) -> JobSteps:
        """What is to be run; a rescue runs nothing, and is held to what the rescued run promised."""
        assert dataset.series is not None
        if attempt.kind == "rescue":
            return JobSteps(steps=(), results=self._expected(attempt.rescues_attempt_id))
        return self._pipelines[dataset.pipeline].steps(dataset.series, dataset.options, attempt.placement)

    def _expected(self, attempt_id: str) -> tuple[ExpectedResult, ...]:
        document = self._spool.document(attempt_id) or {}
        return jobfile.expected_results(document)


def largest_file_bytes(dataset: Dataset, attempt: Attempt) -> int:
    """No single file of the job is expected to be larger: the result, or the stack turned into float32."""
    files = dataset.series.fingerprint.files if dataset.series is not None else ()
    stack = max((file.size_bytes for file in files), default=0)
    return max(attempt.request.result_bytes, 4 * stack)
