"""What the answers of effects lead to.  A troubled answer leaves the effect outstanding, to be repeated."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tiltd.policy.filters import UP

from . import effects as e
from . import facts as f
from . import observations as o
from .desk import Desk
from .following import Following
from .model import Attempt, Dataset, Failure, Measured, Problem, State
from .performing import Performing
from .placing import Placing

LOOK_AGAIN_SECONDS = 60.0
"""Files that an import found changed, and the watcher finds as recorded, are imported again after that."""


class Answers:
    """One method per kind of answer; each costs one dataset."""

    def __init__(self, desk: Desk, following: Following, performing: Performing, placing: Placing) -> None:
        self._desk = desk
        self._following = following
        self._performing = performing
        self._placing = placing
        self.handlers: dict[type[o.Observation], Callable[[Any], None]] = {
            o.SubmitAnswered: self._submitted,
            o.RevokeAnswered: self._revoked,
            o.FenceAnswered: self._fenced,
            o.CancelAnswered: self._cancelled,
            o.CollectAnswered: self._collected,
            o.ImportAnswered: self._imported,
            o.ReleaseAnswered: self._released,
            o.NoticeAnswered: self._noticed,
        }

    def _of(self, attempt_id: str) -> tuple[Dataset | None, Attempt | None]:
        """The dataset, and this attempt if it is its newest."""
        dataset = self._desk.dataset(attempt_id.rpartition(".a")[0])
        attempt = dataset.attempt if dataset is not None else None
        return dataset, attempt if attempt is not None and attempt.attempt_id == attempt_id else None

    def _submitted(self, answer: o.SubmitAnswered) -> None:
        desk = self._desk
        dataset, attempt = self._of(answer.attempt_id)
        if dataset is None or attempt is None:
            return
        effect = e.SubmitJob(attempt_id=answer.attempt_id, dataset_id=dataset.dataset_id)
        self._performing.answered(dataset.dataset_id, effect, answer)
        if attempt.accepted_at is not None or attempt.ended_at is not None:
            return
        if answer.result_path and dataset.state is State.RESERVED:
            self._adopt_result(dataset, answer)
        elif answer.job_id:
            if dataset.state in (State.RESERVED, State.RUNNING, State.COLLECTING):
                desk.record(
                    f.JobAccepted(
                        at=desk.now,
                        dataset_id=dataset.dataset_id,
                        attempt_id=answer.attempt_id,
                        job_id=answer.job_id,
                    )
                )
                self._look(dataset.dataset_id)
        elif answer.absent and dataset.state is State.RESERVED:
            self._following.replace_attempt(dataset, "its job is not there long after it was submitted")
        elif answer.permanent and dataset.state is State.RESERVED:
            failure = answer.failure or Failure(
                failure_class="submit", reason="refused", detail=answer.trouble
            )
            self._following.ending.failed(dataset, attempt, failure)

    def _look(self, dataset_id: str) -> None:
        """The spool may have told more than the answer: draw it now."""
        now = self._desk.dataset(dataset_id)
        if now is not None:
            self._following.consider(now)

    def _adopt_result(self, dataset: Dataset, answer: o.SubmitAnswered) -> None:
        self._desk.record(
            f.ResultCollected(
                at=self._desk.now,
                dataset_id=dataset.dataset_id,
                attempt_id=answer.attempt_id,
                result_path=answer.result_path,
                result_bytes=answer.result_bytes,
                verdict="adopted",
                quality={},
                measured=Measured(),
                adopted=True,
            )
        )

    def _revoked(self, answer: o.RevokeAnswered) -> None:
        desk = self._desk
        dataset, attempt = self._of(answer.attempt_id)
        if dataset is None or attempt is None:
            return
        effect = e.RevokeAttempt(attempt_id=answer.attempt_id, dataset_id=dataset.dataset_id)
        self._performing.answered(dataset.dataset_id, effect, answer)
        if attempt.ended_at is not None or attempt.revoked or answer.trouble:
            return
        if answer.revoked:
            # The rename won, so nobody ever claimed it, whatever the resource manager's list shows.
            desk.record(
                f.AttemptRevoked(at=desk.now, dataset_id=dataset.dataset_id, attempt_id=answer.attempt_id)
            )
            now = desk.state.datasets[dataset.dataset_id]
            self._following.revoked(now, now.attempts[-1])
        elif answer.claimed_by:
            self._following.spool(
                o.SpoolObserved(at=desk.now, attempt_id=answer.attempt_id, claimed_by=answer.claimed_by)
            )

    def _fenced(self, answer: o.FenceAnswered) -> None:
        desk = self._desk
        dataset, attempt = self._of(answer.attempt_id)
        if dataset is None or attempt is None:
            return
        effect = e.FenceAttempt(attempt_id=answer.attempt_id, dataset_id=dataset.dataset_id)
        self._performing.answered(dataset.dataset_id, effect, answer)
        if answer.trouble or attempt.ended_at is not None or not attempt.lost:
            return
        desk.record(f.AttemptFenced(at=desk.now, dataset_id=dataset.dataset_id, attempt_id=answer.attempt_id))
        now = desk.state.datasets[dataset.dataset_id]
        if now.stop_requested in ("cancel", "superseded"):
            self._following.ending.revoked(now, now.attempts[-1])
            return
        failure = Failure(
            failure_class="lost", reason="node_lost", detail="its node was out of reach for too long"
        )
        self._following.ending.failed(now, now.attempts[-1], failure)

    def _cancelled(self, answer: o.CancelAnswered) -> None:
        dataset, attempt = self._of(answer.attempt_id)
        if dataset is not None and attempt is not None:
            effect = e.CancelJob(
                attempt_id=answer.attempt_id, dataset_id=dataset.dataset_id, job_id=attempt.job_id
            )
            self._performing.answered(dataset.dataset_id, effect, answer)

    def _collected(self, answer: o.CollectAnswered) -> None:
        desk = self._desk
        dataset, attempt = self._of(answer.attempt_id)
        if dataset is None or attempt is None:
            return
        effect = e.CollectResult(attempt_id=answer.attempt_id, dataset_id=dataset.dataset_id)
        self._performing.answered(dataset.dataset_id, effect, answer)
        if dataset.state is not State.COLLECTING:
            return
        if self._withdrawn(dataset, answer):
            return
        if answer.occupied:
            desk.hold(dataset, "destination", answer.trouble)
            self._held(dataset, answer.trouble, "destination")
        elif answer.verdict == "bad" and not dataset.accepted_quality:
            detail = _sentences(answer.problems) or answer.trouble or "the pipeline judges the result bad"
            desk.hold(dataset, "quality", detail)
            self._held(dataset, detail, "quality")
        elif answer.failure is not None or answer.damaged:
            failure = answer.failure or Failure(
                failure_class="transient", reason="damaged", detail=answer.trouble
            )
            self._following.ending.failed(dataset, attempt, failure, attempt.end)
        elif answer.result_path:
            self._publish(dataset, answer)

    def _withdrawn(self, dataset: Dataset, answer: o.CollectAnswered) -> bool:
        """Who withdrew it while it was being published has his way, unless the result was there first."""
        if dataset.stop_requested not in ("cancel", "superseded") or _is_good(dataset, answer):
            return False
        self._desk.record(
            f.DatasetCancelled(
                at=self._desk.now,
                dataset_id=dataset.dataset_id,
                reason=f"{dataset.stop_requested}; its result was not published",
                by=dataset.stop_by,
            )
        )
        return True

    def _held(self, dataset: Dataset, detail: str, cause: str) -> None:
        about = f"{dataset.dataset_id}:{detail}"
        self._desk.notice("held", f"{dataset.dataset_id} is held: {detail}", about, dataset, cause=cause)

    def _publish(self, dataset: Dataset, answer: o.CollectAnswered) -> None:
        self._desk.record(
            f.ResultCollected(
                at=self._desk.now,
                dataset_id=dataset.dataset_id,
                attempt_id=answer.attempt_id,
                result_path=answer.result_path,
                result_bytes=answer.result_bytes,
                verdict=answer.verdict,
                quality=answer.quality,
                measured=answer.measured or Measured(),
                problems=answer.problems,
            )
        )
        if answer.verdict == "doubtful":
            what = _sentences(answer.problems) or "the pipeline judges the result doubtful"
            self._desk.notice(
                "doubtful",
                f"{dataset.dataset_id} is delivered, but look at it: {what}",
                dataset.dataset_id,
                dataset,
            )

    def _imported(self, answer: o.ImportAnswered) -> None:
        desk = self._desk
        dataset = desk.dataset(answer.dataset_id)
        if dataset is None:
            return
        effect = e.ImportSeries(dataset_id=answer.dataset_id)
        self._performing.answered(answer.dataset_id, effect, answer)
        if dataset.state is not State.READY:
            return
        if answer.input_changed:
            desk.hold(dataset, "input_changing", "its files changed while they were being imported")
            desk.wake(desk.now + LOOK_AGAIN_SECONDS, "dataset", answer.dataset_id)
        elif answer.path and not dataset.imported_path:
            desk.record(f.SeriesImported(at=desk.now, dataset_id=answer.dataset_id, path=answer.path))

    def _released(self, answer: o.ReleaseAnswered) -> None:
        desk = self._desk
        dataset_id = answer.attempt_id.rpartition(".a")[0]
        effect = e.ReleaseScratch(attempt_id=answer.attempt_id, dataset_id=dataset_id, node=answer.node)
        self._performing.answered(dataset_id, effect, answer)
        dataset = desk.dataset(dataset_id)
        live = dataset.live_attempt if dataset is not None else None
        if live is not None and live.attempt_id == answer.attempt_id:
            return  # nobody asked for that
        if not answer.trouble and not self._seen_since(dataset, answer):
            return  # a fenced attempt's node was not seen again: what is booked there stays booked
        if not answer.trouble and answer.node in desk.state.ledger.booked.get(answer.attempt_id, ()):
            desk.record(f.ScratchReleased(at=desk.now, attempt_id=answer.attempt_id, node=answer.node))
            desk.touched[dataset_id] = None
            self._placing.roomier(answer.node)

    def _seen_since(self, dataset: Dataset | None, answer: o.ReleaseAnswered) -> bool:
        """Was the node of a fenced attempt seen again?  It was out of reach, so nothing is known of what
        still runs there, or lies there."""
        attempt = dataset.attempt_called(answer.attempt_id) if dataset is not None else None
        if attempt is None or not attempt.fenced or answer.node not in (*attempt.nodes, *attempt.ran_on):
            return True
        node = self._placing.nodes.get(answer.node)
        if node is None:  # not listed any more, so nothing can be placed there
            return bool(self._placing.nodes)
        return node.state in UP and node.observed_at > (attempt.ended_at or 0.0)

    def _noticed(self, answer: o.NoticeAnswered) -> None:
        desk, notice_id, to = self._desk, answer.notice_id, answer.to
        self._performing.answered("", e.SendNotice(notice_id=notice_id, to=to), answer)
        notice = desk.state.notices.get(notice_id)
        if notice is None or to not in notice.to:
            return
        if not answer.trouble:
            desk.record(f.NoticeSent(at=desk.now, notice_id=notice_id, to=to))
        elif answer.permanent or desk.now - notice.due_at >= desk.policy.notices.give_up_seconds:
            desk.record(f.NoticeGivenUp(at=desk.now, notice_id=notice_id, to=to, reason=answer.trouble))


def _sentences(problems: Sequence[Problem]) -> str:
    return "; ".join(problem.detail for problem in problems)


def _is_good(dataset: Dataset, answer: o.CollectAnswered) -> bool:
    bad = answer.verdict == "bad" and not dataset.accepted_quality
    return bool(answer.result_path) and not (answer.occupied or answer.damaged or answer.failure or bad)
