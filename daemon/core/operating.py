"""What operators ask for, one dataset at a time: each becomes facts, or a refusal with a sentence."""

from __future__ import annotations

from collections.abc import Callable

from tiltd.plugins.api import Permanent

from . import effects as e
from . import facts as f
from . import observations as o
from .arriving import Arriving
from .desk import Desk
from .model import TERMINAL, WITH_ATTEMPT, Dataset, Options, State, dataset_id
from .outstanding import WORKING_HOLDS

PRIORITY_MAX = 1000


class Refused(Exception):
    """The message is the answer to the operator."""


class Operating:
    """Every action can be done twice; the second time it says so.  Costs one dataset."""

    def __init__(self, desk: Desk, arriving: Arriving) -> None:
        self._desk = desk
        self._arriving = arriving

    def ask(self, asked: o.OperatorAsked) -> e.Reply:
        actions: dict[str, Callable[[o.OperatorAsked], str]] = {
            "hold": self._hold,
            "release": self._release,
            "retry": self._retry,
            "rerun": self._rerun,
            "cancel": self._cancel,
            "accept": self._accept,
            "prioritize": self._prioritize,
            "close_breaker": self._close_breaker,
        }
        if asked.action not in actions:
            self._audit(asked, None, asked.ok, asked.told, changed=True)
            return e.Reply(request_id=asked.request_id, ok=True, message=asked.told)
        noted = len(self._desk.facts)
        live = self._desk.dataset(asked.dataset_id)
        known = live or asked.record
        try:
            if known is None and asked.dataset_id:
                raise Refused(f"no dataset {asked.dataset_id} is known; 'tiltd list' shows those that are")
            if live is None and known is not None and known.under_way:
                raise Refused(f"{asked.dataset_id} has come to its end this moment; look at it and ask again")
            if known is not None and (no := self.objection(asked.action, known, asked.options)):
                raise Refused(no)
            message, ok = actions[asked.action](asked), True
        except Refused as refusal:
            message, ok = str(refusal), False
        self._audit(asked, known, ok, message, changed=len(self._desk.facts) > noted)
        return e.Reply(request_id=asked.request_id, ok=ok, message=message)

    def _audit(
        self, asked: o.OperatorAsked, known: Dataset | None, ok: bool, message: str, *, changed: bool
    ) -> None:
        """Who did what.  A request that changed nothing is answered, and leaves no trace."""
        if not changed:
            return
        self._desk.record(
            f.OperatorActed(
                at=self._desk.now,
                by=asked.by,
                via=asked.via,
                action=asked.action,
                dataset_id=asked.dataset_id,
                project=known.project if known is not None else "",
                reason=asked.reason,
                options=asked.options,
                priority=asked.priority,
                ok=ok,
                message=message,
            )
        )

    def objection(self, action: str, dataset: Dataset, options: Options) -> str:
        """Why this cannot be done to a dataset as it is now; empty if it can be tried.  Changes nothing."""
        known, state = dataset.dataset_id, dataset.state
        match action:
            case "hold" if state in TERMINAL:
                return f"{known} is {state}: nothing to hold"
            case "retry" if state is State.READY and dataset.retry_not_before_at:
                return f"{known} is waiting to be tried again already"
            case "retry" if state not in (State.FAILED, State.CANCELLED):
                return f"{known} is {state}: only failed and cancelled datasets can be retried"
            case "rerun" if dataset.series is None:
                return f"{known} was never complete: there is nothing to run again"
            case "rerun":
                return self._options_refused(dataset, options)
            case "cancel" if state in (State.DELIVERED, State.CANCELLED):
                return f"{known} is {state} already"
            case "prioritize" if state not in (State.ARRIVING, State.READY):
                return f"{known} is {state}: the order matters only until a series is placed"
            case "accept" if state is not State.ARRIVING:
                return f"{known} is {state}: only an arriving series can be accepted as it is"
        return ""

    def _options_refused(self, dataset: Dataset, options: Options) -> str:
        """The pipeline's word on options that an operator gives; not on those that it took before."""
        pipeline = self._desk.pipelines.get(dataset.pipeline)
        if pipeline is None or dataset.series is None or not options:
            return ""
        try:
            pipeline.request(dataset.series, {**dataset.options, **options})
        except Permanent as error:
            return f"{dataset.dataset_id} cannot be run so: {error}"
        return ""

    def _find(self, asked: o.OperatorAsked) -> Dataset:
        """The dataset in the working set, recalled from the journal's row if it is not there."""
        dataset = self._desk.dataset(asked.dataset_id)
        if dataset is not None:
            return dataset
        assert asked.record is not None
        recalled = f.DatasetRecalled(
            at=self._desk.now, dataset_id=asked.dataset_id, record=asked.record, by=asked.by
        )
        self._desk.record(recalled)
        return self._desk.state.datasets[asked.dataset_id]

    def _hold(self, asked: o.OperatorAsked) -> str:
        dataset = self._find(asked)
        if dataset.hold("operator") is not None:
            return f"{dataset.dataset_id} was held already"
        self._desk.hold(dataset, "operator", asked.reason or "held by an operator", origin=asked.by)
        if dataset.state in WITH_ATTEMPT:
            return f"{dataset.dataset_id} is held: its running attempt goes on, nothing new starts"
        return f"{dataset.dataset_id} is held"

    def _release(self, asked: o.OperatorAsked) -> str:
        """An operator may lift every hold but those whose cause still stands in the world."""
        dataset = self._find(asked)
        causes = [hold.cause for hold in dataset.holds]
        if not causes:
            return f"{dataset.dataset_id} is not held"
        for cause in causes:
            if cause != "partial":
                self._desk.lift(self._desk.state.datasets[dataset.dataset_id], cause, by=asked.by)
        if "partial" in causes:
            raise Refused(f"{dataset.dataset_id} is partial: 'accept' runs it with the tilts it has")
        self._arriving.judge((dataset.feed, dataset.series_key))
        for hold in self._desk.state.datasets[dataset.dataset_id].holds:
            raise Refused(f"{dataset.dataset_id} stays held ({hold.cause}): {hold.detail}")
        return f"{dataset.dataset_id} is released ({', '.join(causes)})"

    def _retry(self, asked: o.OperatorAsked) -> str:
        dataset = self._find(asked)
        newest = self._desk.state.current.get((dataset.feed, dataset.series_key), "")
        newer = self._desk.dataset(newest)
        if newer is not None and newer.revision > dataset.revision:
            raise Refused(f"{dataset.dataset_id} was superseded by {newest}, whose input is newer")
        self._desk.record(f.DatasetRevived(at=self._desk.now, dataset_id=dataset.dataset_id, by=asked.by))
        return f"{dataset.dataset_id} will be tried again"

    def _rerun(self, asked: o.OperatorAsked) -> str:
        """The same input with other parameters: a run of its own, whose result stands beside the first."""
        old = self._desk.dataset(asked.dataset_id) or asked.record
        assert old is not None
        assert old.series is not None
        run = max(old.run, asked.latest_run) + 1
        new_id = dataset_id(old.feed, old.series_key, old.tilt_series_name, old.revision, run)
        if self._desk.dataset(new_id) is not None:
            raise Refused(f"{new_id} exists already")
        self._desk.record(
            f.DatasetFound(
                at=self._desk.now,
                dataset_id=new_id,
                feed=old.feed,
                series_key=old.series_key,
                tilt_series_name=old.tilt_series_name,
                series_kind=old.kind,
                revision=old.revision,
                run=run,
                labels=old.labels,
                pipeline=old.asked_pipeline or old.pipeline,
                options={**_asked_options(old), **asked.options},
                by=asked.by,
                operator_options={**old.operator_options, **asked.options},
            )
        )
        self._desk.record(
            f.DatasetCompleted(
                at=self._desk.now,
                dataset_id=new_id,
                series=old.series,
                evidence=old.evidence,
                last_change_at=self._desk.now,
                partial=old.partial,
            )
        )
        return f"{new_id} will be run"

    def _cancel(self, asked: o.OperatorAsked) -> str:
        dataset = self._find(asked)
        publishing = dataset.state is State.COLLECTING and WORKING_HOLDS.isdisjoint(
            hold.cause for hold in dataset.holds
        )
        if dataset.live_attempt is not None or publishing:
            if dataset.stop_requested != "cancel":
                self._desk.record(
                    f.StopRequested(
                        at=self._desk.now, dataset_id=dataset.dataset_id, intent="cancel", by=asked.by
                    )
                )
            if publishing:
                return f"{dataset.dataset_id} is being published; if that fails, it will be cancelled"
            return f"{dataset.dataset_id} will be cancelled once the end of its job is proved"
        self._desk.record(
            f.DatasetCancelled(
                at=self._desk.now,
                dataset_id=dataset.dataset_id,
                reason=asked.reason or "cancelled",
                by=asked.by,
                stat_signature=self._arriving.signature_of(dataset),
            )
        )
        if dataset.state is State.ARRIVING:
            again = "files that change from now on are a new revision; 'hold' would keep them from being run"
            return f"{dataset.dataset_id} is cancelled; {again}"
        return f"{dataset.dataset_id} is cancelled"

    def _accept(self, asked: o.OperatorAsked) -> str:
        dataset = self._find(asked)
        self._desk.record(f.PartialAccepted(at=self._desk.now, dataset_id=dataset.dataset_id, by=asked.by))
        self._arriving.judge((dataset.feed, dataset.series_key))
        now = self._desk.dataset(dataset.dataset_id)
        if now is not None and now.state is State.ARRIVING:
            return (
                f"{dataset.dataset_id} is accepted; it runs once its files can be read without contradiction"
            )
        return f"{dataset.dataset_id} is accepted with the tilts it has"

    def _prioritize(self, asked: o.OperatorAsked) -> str:
        dataset = self._find(asked)
        if abs(asked.priority) > PRIORITY_MAX:
            raise Refused(f"a priority is between {-PRIORITY_MAX} and {PRIORITY_MAX}, not {asked.priority}")
        if dataset.operator_priority != asked.priority:
            self._desk.record(
                f.PrioritySet(
                    at=self._desk.now, dataset_id=dataset.dataset_id, priority=asked.priority, by=asked.by
                )
            )
        return f"{dataset.dataset_id} has priority {asked.priority:+d} over the policy's"

    def _close_breaker(self, asked: o.OperatorAsked) -> str:
        scope = asked.reason
        if scope not in self._desk.state.breakers.by_scope:
            raise Refused(f"no breaker {scope} is open")
        self._desk.record(f.BreakerClosed(at=self._desk.now, scope=scope, by=asked.by))
        return f"the breaker of {scope} is closed"


def _asked_options(dataset: Dataset) -> Options:
    """Without what the policy's rules laid over them: those are asked again."""
    return dataset.asked_options if dataset.asked_options is not None else dataset.options
