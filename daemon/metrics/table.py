"""The one table of metrics; docs/metrics.md is generated from it.

Conventions (Prometheus): base units in the name, ``_total`` on counters and on nothing else, state and
outcome as labels.  Labels are bounded: names of feeds, pipelines and nodes come from the site's own
configuration; nothing that a microscope's user can name (project, session, series) is ever a label.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["gauge", "counter", "histogram", "info"]


class Metric(NamedTuple):
    """``unit`` is what the name ends in ("" for plain numbers); ``buckets`` are upper bounds in that unit."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    meaning: str
    buckets: tuple[float, ...] = ()


MINUTE, HOUR = 60.0, 3600.0
# Every bucket is a series of each combination of labels: few, but where the times of interest are.
_WAITS: tuple[float, ...] = (1, 5, 15, MINUTE, 2 * MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR, 3 * HOUR, 12 * HOUR)
_RUNS: tuple[float, ...] = (15, MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 40 * MINUTE)
_RUNS += (HOUR, 2 * HOUR, 4 * HOUR, 8 * HOUR)
_STEPS = (10, MINUTE, 5 * MINUTE, 20 * MINUTE, HOUR, 4 * HOUR)
_STAGES = (0.1, 0.5, 2, 10, 30, MINUTE, 5 * MINUTE, 15 * MINUTE, HOUR)
_SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)


def _gauge(name: str, unit: str, labels: tuple[str, ...], meaning: str) -> Metric:
    return Metric(name, "gauge", unit, labels, meaning)


def _counter(name: str, labels: tuple[str, ...], meaning: str) -> Metric:
    return Metric(name, "counter", "", labels, meaning)


def _histogram(name: str, labels: tuple[str, ...], buckets: tuple[float, ...], meaning: str) -> Metric:
    return Metric(name, "histogram", "seconds", labels, meaning, tuple(float(bound) for bound in buckets))


def _ratio(name: str, labels: tuple[str, ...], buckets: tuple[float, ...], meaning: str) -> Metric:
    return Metric(name, "histogram", "ratio", labels, meaning, buckets)


_OF_EXPECTED = (0.25, 0.5, 0.7, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 5.0)
_OF_LIMIT = (0.05, 0.1, 0.25, 0.5, 0.7, 0.8, 0.9, 1.0)

_TABLE = (
    # -- datasets
    _gauge(
        "tiltd_datasets",
        "",
        ("state", "feed"),
        "Datasets by state; terminal states count all that ever got there.",
    ),
    _gauge("tiltd_queue_depth", "", ("feed",), "Datasets that are complete, not held, and wait for a place."),
    _gauge(
        "tiltd_datasets_held",
        "",
        ("cause",),
        "Datasets in the working set held by a cause (one may have several).",
    ),
    _gauge(
        "tiltd_oldest_waiting_seconds",
        "seconds",
        ("reason",),
        "Longest wait since completion among datasets that wait for a place, by why they wait: held, "
        "retry (its delay is not over), or the refusal that most nodes gave.",
    ),
    _gauge("tiltd_series_arriving", "", ("feed",), "Series that are being watched and are not complete yet."),
    _gauge(
        "tiltd_arriving_quiet_seconds",
        "seconds",
        ("feed",),
        "Longest time without a change among series that are not complete and not held: a microscope that "
        "fell silent in the middle of a series.  0 when none is on its way.",
    ),
    _counter("tiltd_datasets_found_total", ("feed",), "Datasets met (new series, new revisions and reruns)."),
    _counter(
        "tiltd_datasets_completed_total",
        ("feed",),
        "Datasets whose series became complete: the arrival rate.",
    ),
    _counter(
        "tiltd_datasets_ended_total",
        ("feed", "state"),
        "Datasets that reached a terminal state: the drain rate.",
    ),
    _counter(
        "tiltd_sightings_ignored_total", ("reason",), "Files that were opened and found to be no tilt series."
    ),
    _histogram(
        "tiltd_completion_to_submit_seconds",
        ("feed",),
        _WAITS,
        "From a series' completion to the acceptance of its first job.",
    ),
    _histogram(
        "tiltd_last_tilt_to_tomogram_seconds",
        ("feed",),
        _RUNS,
        "From the last change of a series' files to its published tomogram.",
    ),
    # -- jobs
    _histogram(
        "tiltd_run_seconds",
        ("pipeline", "outcome", "cores", "threads", "nodes"),
        _RUNS,
        "Run time of attempts on the node, staging not included, by how they ended (good, doubtful, or a "
        "failure class) and by what they were given: cores a node, threads, number of nodes.",
    ),
    _histogram(
        "tiltd_step_seconds",
        ("pipeline", "step"),
        _STEPS,
        "Run time of the steps of delivered runs, and of the parts of a step that its output tells.",
    ),
    _counter(
        "tiltd_verdicts_total",
        ("pipeline", "verdict"),
        "Results by the pipeline's judgement: good, doubtful (delivered), or bad (held for a person).",
    ),
    _counter(
        "tiltd_problems_total",
        ("pipeline", "code"),
        "What was doubtful about delivered results, by code; a result may have several.",
    ),
    _histogram(
        "tiltd_stage_in_seconds",
        ("pipeline",),
        _STAGES,
        "Copying the input to the node's scratch, checksums included.",
    ),
    _histogram(
        "tiltd_stage_out_seconds",
        ("pipeline",),
        _STAGES,
        "Copying the results from scratch to beside their destination.",
    ),
    _histogram(
        "tiltd_queue_wait_seconds", ("pipeline",), _WAITS, "From the acceptance of a job to its start."
    ),
    _ratio(
        "tiltd_run_of_predicted_ratio",
        ("pipeline",),
        _OF_EXPECTED,
        "Time of delivered runs, staging included, over the median that was predicted for them.",
    ),
    _ratio(
        "tiltd_memory_of_predicted_ratio",
        ("pipeline",),
        (*_OF_LIMIT, 1.5),
        "Peak memory of delivered runs over the 99th percentile that was predicted for them.",
    ),
    _ratio(
        "tiltd_scratch_of_predicted_ratio",
        ("pipeline",),
        (*_OF_LIMIT, 1.5),
        "Peak scratch of delivered runs over the 99th percentile that was predicted for them.",
    ),
    _ratio(
        "tiltd_walltime_used_ratio",
        ("pipeline",),
        _OF_LIMIT,
        "Time of delivered runs over the walltime that was asked for them.",
    ),
    _ratio(
        "tiltd_memory_used_ratio",
        ("pipeline",),
        (*_OF_LIMIT, 1.5),
        "Peak memory of delivered runs over the memory that was asked for them.",
    ),
    _ratio(
        "tiltd_scratch_used_ratio",
        ("pipeline",),
        (*_OF_LIMIT, 1.5),
        "Peak scratch of delivered runs over the scratch that was booked for them; above 1 is too little.",
    ),
    _counter(
        "tiltd_runs_over_predicted_total",
        ("pipeline",),
        "Delivered runs that took longer than the 99th percentile predicted for them: one in a hundred.",
    ),
    _counter(
        "tiltd_attempts_total", ("pipeline", "kind"), "Attempts placed: run, or rescue of stranded results."
    ),
    _counter(
        "tiltd_failures_total", ("pipeline", "failure_class"), "Attempts and datasets that failed, by class."
    ),
    _counter(
        "tiltd_failure_reasons_total",
        ("pipeline", "code"),
        "The same by reason: of batchruntomo the entries of tiltd errors, unknown for one that it lacks.",
    ),
    _counter(
        "tiltd_retries_total", ("failure_class",), "Failures after which the retry rule decided to try again."
    ),
    _counter(
        "tiltd_results_stranded_total", ("pipeline",), "Results that could not leave their node at first."
    ),
    _gauge(
        "tiltd_placement_refusals",
        "",
        ("reason",),
        "Waiting datasets by the reason that most nodes gave when they were last refused.",
    ),
    _counter(
        "tiltd_refusals_total",
        ("reason",),
        "Nodes that were refused for a dataset, by reason, over all placements tried.",
    ),
    # -- nodes
    _gauge("tiltd_nodes", "", ("state",), "Nodes by state as the resource manager shows them."),
    _gauge("tiltd_node_cores", "", ("node",), "Cores of a node."),
    _gauge("tiltd_node_cores_reserved", "", ("node",), "Cores that tiltd has booked on a node."),
    _gauge("tiltd_node_scratch_size_bytes", "bytes", ("node",), "Size of a node's scratch."),
    _gauge("tiltd_node_scratch_free_bytes", "bytes", ("node",), "Free scratch of a node as last observed."),
    _gauge(
        "tiltd_node_scratch_reserved_bytes", "bytes", ("node",), "Scratch that tiltd has booked on a node."
    ),
    _gauge(
        "tiltd_node_scratch_leaked_bytes",
        "bytes",
        ("node",),
        "Scratch booked for attempts that are over, because nobody could make sure yet that nothing of them "
        "is left on the node: it is out of reach, or waits to be swept.",
    ),
    _gauge(
        "tiltd_breakers_open",
        "",
        ("scope",),
        "Open breakers by what they protect: node, feed, pipeline or destination.",
    ),
    # -- the world outside
    _gauge("tiltd_feed_up", "", ("feed",), "1 if the feed's folder could be read at the last pass."),
    _gauge(
        "tiltd_destination_free_bytes",
        "bytes",
        ("feed",),
        "Free space where the results of a feed go; none for one that could not be looked at.",
    ),
    _gauge("tiltd_resource_manager_up", "", (), "1 if the resource manager answered the last question."),
    _gauge(
        "tiltd_resource_manager_answer_age_seconds",
        "seconds",
        (),
        "Age of the last good answer of the resource manager.",
    ),
    _counter(
        "tiltd_resource_manager_unreachable_total",
        (),
        "Questions to the resource manager without a usable answer.",
    ),
    _gauge(
        "tiltd_jobs",
        "",
        ("state",),
        "Jobs of live attempts as the resource manager lists them: queued, held, running, suspended, "
        "completed, unknown, or unlisted where it has not shown them yet.",
    ),
    _gauge(
        "tiltd_foreign_jobs",
        "",
        ("state",),
        "Jobs of others in the resource manager's last answer, by the same states.",
    ),
    _counter(
        "tiltd_jobs_forgotten_total",
        (),
        "Jobs that vanished from the list before they were shown completed: keep_completed is too short.",
    ),
    _counter(
        "tiltd_resource_manager_commands_total",
        ("command", "outcome"),
        "Commands of the resource manager that were run, by how they ended: ok, or a reason.",
    ),
    _counter(
        "tiltd_resource_manager_command_seconds_total",
        ("command",),
        "Time that those commands took in all.",
    ),
    # -- policy
    Metric(
        "tiltd_policy_info",
        "gauge",
        "",
        ("version",),
        "1, labelled with the version (a hash) of the policy in force.",
    ),
    _gauge(
        "tiltd_policy_last_reload_successful", "", (), "1 if the last policy file that was read was accepted."
    ),
    _gauge(
        "tiltd_policy_last_reload_success_timestamp_seconds",
        "seconds",
        (),
        "When a policy was last accepted.",
    ),
    _counter(
        "tiltd_policy_reloads_total",
        ("outcome",),
        "Times that policy files were read, the start included: accepted, or refused (the old one stays).",
    ),
    _gauge(
        "tiltd_share_used_core_seconds",
        "seconds",
        ("share",),
        "Fair sharing: core seconds used, fading, of each project that [shares] names; all others together "
        "are other.  Every project stands in tiltd status --json.",
    ),
    _gauge("tiltd_share_weight", "", ("share",), "Weights of the projects that [shares] names."),
    # -- notices
    _gauge("tiltd_notices_due", "", ("channel",), "Notices that wait to be told: log, email or webhook."),
    _gauge(
        "tiltd_notices_oldest_due_seconds",
        "seconds",
        ("channel",),
        "Age of the oldest of them; 0 when none waits.",
    ),
    _gauge("tiltd_notices_digests", "", (), "Digests of sessions that go on."),
    _counter("tiltd_notices_sent_total", ("channel",), "Notices that reached a destination."),
    _counter(
        "tiltd_notices_failures_total",
        ("channel",),
        "Tries to tell a destination that failed; most are repeated.",
    ),
    _counter(
        "tiltd_notices_given_up_total",
        ("channel",),
        "Notices that will not reach a destination: refused for good, or tried for too long.",
    ),
    # -- the daemon itself
    _gauge("tiltd_ready", "", (), "1 if /readyz says yes."),
    _gauge("tiltd_journal_size_bytes", "bytes", (), "Size of the journal on disk."),
    _counter("tiltd_journal_facts_total", ("kind",), "Facts appended to the journal, by kind."),
    _histogram(
        "tiltd_journal_append_seconds", (), _SHORT, "Time of one durable append (one commit, several facts)."
    ),
    _histogram(
        "tiltd_event_loop_lag_seconds",
        (),
        _SHORT,
        "How much later than asked a timer of the event loop fires, asked once a second.",
    ),
    Metric(
        "tiltd_build_info",
        "gauge",
        "",
        ("version", "python"),
        "1, labelled with the versions of tiltd and Python.",
    ),
    # -- prometheus_client's own view of the process
    _gauge("process_virtual_memory_bytes", "bytes", (), "Virtual memory of the daemon."),
    _gauge("process_resident_memory_bytes", "bytes", (), "Resident memory of the daemon."),
    _gauge("process_start_time_seconds", "seconds", (), "When the daemon was started."),
    _counter("process_cpu_seconds_total", (), "User and system CPU time of the daemon."),
    _gauge("process_open_fds", "", (), "Open file descriptors of the daemon."),
    _gauge("process_max_fds", "", (), "The most file descriptors that the daemon may open."),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _TABLE}
"""Every metric by its name."""
