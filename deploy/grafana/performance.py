"""The dashboard of performance and policy: run times, predictions, shares, and the daemon itself."""

from __future__ import annotations

from panels import Panel, Query, bars, lines, number, quantiles, stack

TITLE = "tiltd: performance and policy"
MEANING = "How long runs take, how good predictions and requests are, the policy in force, and the daemon."

RUN = "tiltd_run_seconds"

ROWS: dict[str, tuple[Panel, ...]] = {
    "Runs": (
        lines(
            "Run time",
            "Of delivered results, on the node, staging not included; median and 95th percentile.",
            "s",
            *quantiles(RUN, "pipeline", "6h", 0.5, 0.95),
        ),
        lines(
            "Run time by cores and threads",
            "Median of the last 24 hours, by what the run was given. `tiltd calibrate` measures it properly.",
            "s",
            (
                f"histogram_quantile(0.5, sum by (le, pipeline, cores, threads, nodes) "
                f'(rate({RUN}_bucket{{@, outcome=~"good|doubtful"}}[24h])))',
                "{{pipeline}}: {{cores}} cores, {{threads}} threads, {{nodes}} nodes",
            ),
        ),
        lines(
            "Time of steps",
            "Median of the last 6 hours.",
            "s",
            (
                "histogram_quantile(0.5, "
                "sum by (le, pipeline, step) (rate(tiltd_step_seconds_bucket{@}[6h])))",
                "{{pipeline}} {{step}}",
            ),
        ),
        stack(
            "Hours of run time, an hour, by outcome",
            "So many runs at a time, on the mean of the last hour; what failed was paid for too.",
            "short",
            (f"sum by (outcome) (rate({RUN}_sum{{@}}[1h]))", "{{outcome}}"),
        ),
        stack(
            "Attempts, an hour",
            "Runs, and rescues of stranded results.",
            "short",
            ("sum by (kind) (rate(tiltd_attempts_total{@}[1h])) * 3600", "{{kind}}"),
        ),
        lines(
            "Share of attempts that fail",
            "Of the last 6 hours.",
            "percentunit",
            ("instance:tiltd_attempts_failed:ratio6h{@}", "{{instance}}"),
        ),
        stack(
            "What was doubtful, 24 h",
            "About results that were delivered, by code.",
            "short",
            ("sum by (code) (increase(tiltd_problems_total{@}[24h])) or vector(0)", "{{code}}"),
        ),
    ),
    "Predictions and requests": (
        lines(
            "Run time of predicted",
            "1 is as predicted. Median and 90th percentile.",
            "percentunit",
            *quantiles("tiltd_run_of_predicted_ratio", "pipeline", "24h", 0.5, 0.9),
        ),
        lines(
            "Memory of predicted",
            "Peak over the 99th percentile that was predicted.",
            "percentunit",
            *quantiles("tiltd_memory_of_predicted_ratio", "pipeline", "24h", 0.5, 0.9),
        ),
        lines(
            "Scratch of predicted",
            "Peak over the 99th percentile that was predicted.",
            "percentunit",
            *quantiles("tiltd_scratch_of_predicted_ratio", "pipeline", "24h", 0.5, 0.9),
        ),
        lines(
            "Walltime used",
            "Of what was asked for. Little of it is bad for backfill, all of it kills.",
            "percentunit",
            *quantiles("tiltd_walltime_used_ratio", "pipeline", "24h", 0.5, 0.9),
        ),
        lines(
            "Memory used",
            "Of what was asked for; median and 90th percentile.",
            "percentunit",
            *quantiles("tiltd_memory_used_ratio", "pipeline", "24h", 0.5, 0.9),
        ),
        lines(
            "Scratch used",
            "Of what was booked; above 1 is too little.",
            "percentunit",
            *quantiles("tiltd_scratch_used_ratio", "pipeline", "24h", 0.5, 0.9),
        ),
        lines(
            "Runs over what was predicted",
            "Share that took longer than the 99th percentile predicted: one in a hundred is right.",
            "percentunit",
            ("pipeline:tiltd_runs_over_predicted:ratio1d{@}", "{{pipeline}}"),
        ),
    ),
    "Policy": (
        Panel(
            "Policy in force",
            "Its version, a hash of its text.",
            "word",
            "short",
            (Query("tiltd_policy_info{@}", "{{version}}"),),
            width=6,
        ),
        number(
            "Last read accepted",
            "1: the policy files as they are were accepted.",
            "bool_yes_no",
            "min(tiltd_policy_last_reload_successful{@})",
            1,
            0.5,
        )._replace(width=6),
        number(
            "In force for",
            "Since a policy was last accepted.",
            "s",
            "min(time() - tiltd_policy_last_reload_success_timestamp_seconds{@})",
        )._replace(width=6),
        lines(
            "Policy files read, 24 h",
            "Accepted, or refused (the old one stays).",
            "short",
            ("sum by (outcome) (increase(tiltd_policy_reloads_total{@}[24h]))", "{{outcome}}"),
        ),
        bars(
            "Shares: used core time",
            "Fading; of each project that [shares] names, all others together as other.",
            "s",
            ("sum by (share) (tiltd_share_used_core_seconds{@})", "{{share}}"),
        ),
        bars(
            "Shares: used over weight",
            "Of named projects: the least goes first.",
            "s",
            (
                "tiltd_share_used_core_seconds{@} / (tiltd_share_weight{@} > 0)",
                "{{share}}",
            ),
        ),
    ),
    "Notices": (
        lines(
            "Notices told, an hour",
            "That reached a destination, and tries that failed.",
            "short",
            ("sum by (channel) (increase(tiltd_notices_sent_total{@}[1h]))", "{{channel}} told"),
            ("sum by (channel) (increase(tiltd_notices_failures_total{@}[1h]))", "{{channel}} failed"),
            ("sum by (channel) (increase(tiltd_notices_given_up_total{@}[1h]))", "{{channel}} given up"),
        ),
        lines(
            "Notices that wait",
            "By channel; and digests of sessions that go on.",
            "short",
            ("sum by (channel) (tiltd_notices_due{@})", "{{channel}}"),
            ("sum(tiltd_notices_digests{@})", "digests"),
        ),
    ),
    "The daemon": (
        Panel(
            "Version",
            "Of tiltd.",
            "word",
            "short",
            (Query("tiltd_build_info{@}", "{{version}}, Python {{python}}"),),
            width=6,
        ),
        number(
            "Up for", "Since it was started.", "s", "min(time() - process_start_time_seconds{@})"
        )._replace(width=6),
        number("Journal", "Size on disk.", "bytes", "sum(tiltd_journal_size_bytes{@})")._replace(width=6),
        number(
            "Memory", "Resident memory of the daemon.", "bytes", "max(process_resident_memory_bytes{@})"
        )._replace(width=6),
        lines(
            "Time of a durable append",
            "To the journal; median and 99th percentile. tiltd does nothing before it is durable.",
            "s",
            *quantiles("tiltd_journal_append_seconds", "instance", "5m", 0.5, 0.99),
        ),
        lines(
            "Lag of the event loop",
            "How much later than asked a timer fires; median and 99th percentile.",
            "s",
            *quantiles("tiltd_event_loop_lag_seconds", "instance", "5m", 0.5, 0.99),
        ),
        stack(
            "Facts, a minute, by kind",
            "What the journal takes.",
            "short",
            ("topk(12, sum by (kind) (rate(tiltd_journal_facts_total{@}[5m]))) * 60", "{{kind}}"),
        ),
        lines(
            "Processor",
            "Cores that the daemon uses.",
            "short",
            ("rate(process_cpu_seconds_total{@}[5m])", "{{instance}}"),
        ),
        lines(
            "Memory and address space",
            "Resident, and virtual.",
            "bytes",
            ("process_resident_memory_bytes{@}", "{{instance}} resident"),
            ("process_virtual_memory_bytes{@}", "{{instance}} virtual"),
        ),
        lines(
            "Open files",
            "And how many it may open.",
            "short",
            ("process_open_fds{@}", "{{instance}} open"),
            ("process_max_fds{@}", "{{instance}} allowed"),
        ),
    ),
}
