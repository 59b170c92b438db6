"""What a proved end leads to: stopped as asked, stranded, or failed with the retry rule's decision."""

from __future__ import annotations

from msgspec.structs import replace

from tiltd.policy import breaker, retry

from . import facts as f
from .deciding import Deciding
from .desk import Desk
from .model import Attempt, Dataset, Failure, FailureClass, Job, NoticeEvent, Outcome, RunEnd
from .state import failure_scopes

RESCUE_PAUSE_SECONDS = 60.0


class Ending:
    """Each method ends one attempt; costs the dataset's own attempts."""

    def __init__(self, desk: Desk, deciding: Deciding) -> None:
        self._desk = desk
        self._deciding = deciding

    def revoked(self, dataset: Dataset, attempt: Attempt) -> None:
        """No runner can claim it any more: what was asked for can happen."""
        intent = dataset.stop_requested or "replace"
        self._desk.record(
            f.AttemptStopped(
                at=self._desk.now,
                dataset_id=dataset.dataset_id,
                attempt_id=attempt.attempt_id,
                intent=intent,
            )
        )

    def never_claimed(self, dataset: Dataset, attempt: Attempt, exit_status: int) -> None:
        """Its job ran, and its runner could not even claim: no interpreter there, or no spool."""
        nodes = ", ".join(attempt.nodes or attempt.placement.nodes)
        failure = _failure(
            "environment",
            "never_claimed",
            f"its job ended with exit status {exit_status} on {nodes} before its runner could claim it",
            exit_status,
        )
        remedy = "see the job's output in its spool folder: is the interpreter there, and the spool?"
        self.failed(dataset, attempt, replace(failure, remedy=remedy))

    def vanished(self, dataset: Dataset, attempt: Attempt) -> None:
        """Its job is gone from the list, and was never shown at work nor completed: a server that lost it, or
        one that forgets what has ended.  Nobody's fault that is known, so only the pauses grow."""
        failure = _failure("transient", "vanished", "its job vanished from the list before it claimed")
        remedy = "see that the server keeps completed jobs listed (keep_completed), and who deletes jobs"
        self.failed(dataset, attempt, replace(failure, remedy=remedy, spent=False))

    def finish(self, dataset: Dataset, attempt: Attempt, end: RunEnd | None, job: Job | None) -> None:
        """The end is proved, and it is no success."""
        desk = self._desk
        withdrawn = dataset.stop_requested in ("cancel", "superseded")
        if end is not None and end.outcome == "stranded" and not withdrawn:
            desk.record(
                f.ResultStranded(
                    at=desk.now,
                    dataset_id=dataset.dataset_id,
                    attempt_id=attempt.attempt_id,
                    end=end,
                    retry_at=desk.now + RESCUE_PAUSE_SECONDS,
                )
            )
            self._open_breakers(dataset, attempt, _failure("destination", "stranded", end.reason))
            return
        if withdrawn:
            self.revoked(dataset, attempt)
            return
        self.failed(dataset, attempt, self._failure(dataset, attempt, end, job), end)

    def _failure(self, dataset: Dataset, attempt: Attempt, end: RunEnd | None, job: Job | None) -> Failure:
        if dataset.stop_requested == "deadline":
            return _failure("walltime", "deadline", "it ran far beyond its walltime and was ended")
        if end is None:
            return _no_word(job)
        match end.outcome:
            case "scratch_short":
                return replace(_failure("scratch", "scratch_short", end.detail or end.reason), spent=False)
            case "input_changed":
                return replace(_failure("transient", "input_changed", end.detail or end.reason), spent=False)
            case "fenced":
                return _failure("lost", "fenced", "it was fenced because its node was out of reach")
            case "terminated":
                return _failure(
                    "killed", end.reason or "terminated", end.detail or "the job was ended", end.exit_status
                )
        return self._judged(dataset, attempt, end)

    def _judged(self, dataset: Dataset, attempt: Attempt, end: RunEnd) -> Failure:
        pipeline = self._desk.pipelines.get(dataset.pipeline)
        if pipeline is not None and attempt.kind == "run":
            try:
                verdict = pipeline.judge(Outcome(end=end, options=dataset.options, series=dataset.series))
            except Exception as bug:  # a plugin's; it costs this attempt, not the daemon
                detail = f"{end.detail or end.reason}; the pipeline could not judge it: {bug!r}"
                return _failure("program", end.reason or "failed", detail, end.exit_status)
            if verdict.failure is not None:
                return verdict.failure
        return _failure("program", end.reason or "failed", end.detail or end.reason, end.exit_status)

    def failed(self, dataset: Dataset, attempt: Attempt, failure: Failure, end: RunEnd | None = None) -> None:
        """Record the failure with the retry rule's decision, and open breakers it speaks for."""
        desk = self._desk
        nodes = attempt.nodes or attempt.placement.nodes
        scopes = failure_scopes(dataset, attempt.attempt_id)
        known_cause = breaker.is_known_cause(desk.state.breakers, scopes, failure.failure_class)
        if known_cause:
            # The breaker's own cause struck again: no fault of this series, no attempt spent.
            failure = replace(failure, spent=False)
        unspent = sum(1 for a in dataset.attempts if a.failure is not None and not a.failure.spent)
        decision = retry.after(
            dataset.attempts_spent + int(failure.spent),
            failure,
            desk.policy,
            desk.now,
            nodes=nodes,
            changes=dataset.changes,
            attempts_unspent=unspent + int(not failure.spent),
            rule=self._deciding.decide(dataset).retry,
        )
        again = decision if isinstance(decision, retry.RetryAt) else None
        if again is not None and failure.failure_class == "scratch" and attempt.placement.mode == "floating":
            again = replace(again, change={**again.change, "mode": "pinned"})
        if attempt.kind == "rescue" and again is None:
            again = retry.RetryAt(at=desk.now + desk.policy.retry.delay_seconds_max)
        desk.record(
            f.AttemptFailed(
                at=desk.now,
                dataset_id=dataset.dataset_id,
                attempt_id=attempt.attempt_id,
                failure=failure,
                retry_at=again.at if again is not None else None,
                excluded_nodes=again.exclude_nodes if again is not None else (),
                changes=again.change if again is not None else {},
                end=end,
            )
        )
        what = decision.reason if isinstance(decision, retry.GiveUp) and again is None else ""
        if what:
            self._tell("failed", f"failed: {what}", dataset, attempt, failure, known_cause)
        if again is not None and again.hold and (now := desk.dataset(dataset.dataset_id)) is not None:
            desk.hold(now, "failure", again.hold, origin="policy")
            self._tell("held", f"is held: {again.hold}", dataset, attempt, failure, known_cause)
        self._open_breakers(dataset, attempt, failure)
        if failure.reason == "input_changed" and (now := desk.dataset(dataset.dataset_id)) is not None:
            desk.hold(now, "input_changing", "its files changed while they were being staged in")
            if again is not None:
                desk.wake(again.at, "dataset", dataset.dataset_id)

    def _tell(
        self,
        event: NoticeEvent,
        what: str,
        dataset: Dataset,
        attempt: Attempt,
        failure: Failure,
        known_cause: bool,
    ) -> None:
        self._desk.notice(
            event,
            f"{dataset.dataset_id} {what}",
            attempt.attempt_id,
            dataset,
            cause=f"{failure.failure_class}:{failure.reason}",
            remedy=failure.remedy,
            known_cause=known_cause,
        )

    def _open_breakers(self, dataset: Dataset, attempt: Attempt, failure: Failure) -> None:
        desk = self._desk
        scopes = failure_scopes(dataset, attempt.attempt_id)
        for scope in breaker.to_open(desk.state.breakers, scopes, failure.failure_class, desk.policy.breaker):
            detail = f"{failure.failure_class} on several series, last {dataset.dataset_id}: {failure.detail}"
            desk.record(
                f.BreakerOpened(at=desk.now, scope=scope, failure_class=failure.failure_class, detail=detail)
            )
            desk.wake(desk.now + desk.policy.breaker.probe_seconds, "breaker")
            kind, _, name = scope.partition(":")
            desk.notice(
                "breaker",
                f"nothing new starts for {scope}: {detail}",
                f"{scope}@{desk.now:.0f}",
                cause=scope,
                feed=name if kind == "feed" else "",
            )


def _no_word(job: Job | None) -> Failure:
    """The resource manager's own word on the end of a job whose runner said nothing."""
    status = job.exit_status if job is not None else None
    ending = job.ending if job is not None else ""
    said = ending or ("not known" if status is None else f"exit status {status}")
    detail = f"the job ended ({said}) without a word from its runner"
    if ending in ("walltime", "memory"):
        return _failure(ending, ending, detail, status)  # type: ignore[arg-type]
    return _failure("lost", "no_word", detail, status)


def _failure(
    failure_class: FailureClass, reason: str, detail: str, exit_status: int | None = None
) -> Failure:
    return Failure(
        failure_class=failure_class, reason=reason, detail=detail or reason, exit_status=exit_status
    )
