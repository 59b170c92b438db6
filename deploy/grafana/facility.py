"""The dashboard of the facility: what comes, waits, runs, was delivered, and needs a person."""

from __future__ import annotations

from panels import Panel, bars, lines, number, quantiles, stack

TITLE = "tiltd: facility"
MEANING = "What arrives, waits, runs and was delivered, and how long it takes from the last tilt."

HOUR = 3600.0
TOMOGRAM = "tiltd_last_tilt_to_tomogram_seconds"

ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        number("Waiting", "Complete series that wait for a place.", "short", "sum(tiltd_queue_depth{@})"),
        number(
            "Running",
            "Series of which a job is booked, queued, running or being collected.",
            "short",
            'sum(tiltd_datasets{@, state=~"reserved|queued|running|collecting"}) or vector(0)',
        ),
        number(
            "Delivered, 24 h",
            "Tomograms that were published in the last 24 hours.",
            "short",
            'round(sum(increase(tiltd_datasets_ended_total{@, state="delivered"}[24h])))',
        ),
        number(
            "Failed, 24 h",
            "Series that were given up in the last 24 hours. `tiltd list --state failed` names them.",
            "short",
            'round(sum(increase(tiltd_datasets_ended_total{@, state="failed"}[24h])))',
            1,
            5,
        ),
        number(
            "Median minutes to tomogram",
            "From the last tilt to the published tomogram, of those delivered in the last 24 hours.",
            "m",
            f"histogram_quantile(0.5, sum by (le) (rate({TOMOGRAM}_bucket{{@}}[24h]))) / 60",
        ),
        number(
            "Oldest waiting",
            "The longest wait of a series that is complete and not held.",
            "s",
            'max(tiltd_oldest_waiting_seconds{@, reason!="held"}) or vector(0)',
            2 * HOUR,
            6 * HOUR,
        ),
        number(
            "Held",
            "Series that wait for a person or for the policy; by cause below.",
            "short",
            "sum(tiltd_datasets_held{@}) or vector(0)",
        ),
        number(
            "Arriving",
            "Series that are being recorded.",
            "short",
            "sum(tiltd_series_arriving{@}) or vector(0)",
        ),
        number("Daemons ready", "Those whose /readyz says yes.", "short", "sum(tiltd_ready{@})", 1, 0.5),
        number("Feeds down", "Folders that cannot be read.", "short", "sum(1 - tiltd_feed_up{@})", 0.5, 1),
        number(
            "Open breakers",
            "Nodes, feeds, pipelines or destinations to which nothing is sent for now.",
            "short",
            "sum(tiltd_breakers_open{@}) or vector(0)",
            1,
            3,
        ),
        number(
            "Backlog",
            "Hours that the last six hours' pace needs for all that waits and runs.",
            "h",
            'sum(tiltd_datasets{@, state=~"ready|reserved|queued|running|collecting"}) '
            "/ sum(feed:tiltd_datasets_ended:rate6h{@}) / 3600 or vector(0)",
        ),
    ),
    "Throughput": (
        lines(
            "Arrival and drain, series an hour",
            "Series that became complete, and those that ended. Where the first stays above the second, the "
            "queue grows.",
            "short",
            ("sum(feed:tiltd_datasets_completed:rate1h{@}) * 3600", "complete"),
            ("sum(feed:tiltd_datasets_ended:rate1h{@}) * 3600", "ended"),
        ),
        stack(
            "Series under way, by state",
            "All that is not over.",
            "short",
            (
                'sum by (state) (tiltd_datasets{@, state!~"delivered|failed|cancelled"})',
                "{{state}}",
            ),
        ),
        lines(
            "From the last tilt to the tomogram",
            "Median and 90th percentile of those delivered in the last hour.",
            "s",
            *quantiles(TOMOGRAM, "feed", "1h", 0.5, 0.9),
        ),
        lines(
            "From complete to submitted",
            "How long a complete series waited for its first job, median and 90th percentile.",
            "s",
            *quantiles("tiltd_completion_to_submit_seconds", "feed", "1h", 0.5, 0.9),
        ),
    ),
    "Waiting, and why": (
        lines(
            "Queue by feed", "Complete, not held, and waiting.", "short", ("tiltd_queue_depth{@}", "{{feed}}")
        ),
        stack(
            "Why they wait",
            "Waiting series by the reason that most nodes gave; docs/troubleshooting.md tells what to do.",
            "short",
            ("sum by (reason) (tiltd_placement_refusals{@}) or vector(0)", "{{reason}}"),
        ),
        lines(
            "Oldest waiting, by reason",
            "The longest wait since completion.",
            "s",
            ("max by (reason) (tiltd_oldest_waiting_seconds{@}) or vector(0)", "{{reason}}"),
        ),
        bars(
            "Held, by cause",
            "What waits for a person, or for the policy. docs/troubleshooting.md says what lifts each.",
            "short",
            ("sum by (cause) (tiltd_datasets_held{@}) or vector(0)", "{{cause}}"),
        ),
    ),
    "The microscopes": (
        lines(
            "Series being recorded, by feed",
            "Watched, and not complete yet.",
            "short",
            ("sum by (feed) (tiltd_series_arriving{@}) or vector(0)", "{{feed}}"),
        ),
        lines(
            "Silence in the middle of a series",
            "Longest time without a new tilt. A refill of nitrogen takes 45 minutes.",
            "s",
            ("max by (feed) (tiltd_arriving_quiet_seconds{@})", "{{feed}}"),
        ),
        lines(
            "New series, an hour",
            "Series met, new revisions and reruns among them.",
            "short",
            ("sum by (feed) (rate(tiltd_datasets_found_total{@}[1h])) * 3600", "{{feed}}"),
        ),
        lines(
            "Files that are no tilt series, an hour",
            "Maps, montages, damaged files; by why. `tiltd list --ignored` names them.",
            "short",
            (
                "sum by (reason) (rate(tiltd_sightings_ignored_total{@}[1h])) * 3600 or vector(0)",
                "{{reason}}",
            ),
        ),
    ),
    "Failures": (
        stack(
            "Failed attempts, an hour, by class",
            "Retried or not. docs/troubleshooting.md says what to do about each class.",
            "short",
            (
                "sum by (failure_class) (rate(tiltd_failures_total{@}[1h])) * 3600",
                "{{failure_class}}",
            ),
        ),
        stack(
            "Retries, an hour, by class",
            "Failures after which the series goes another time.",
            "short",
            (
                "sum by (failure_class) (rate(tiltd_retries_total{@}[1h])) * 3600",
                "{{failure_class}}",
            ),
        ),
        bars(
            "Reasons of failures, 24 h",
            "The most frequent; those of batchruntomo stand in `tiltd errors`.",
            "short",
            (
                "topk(10, sum by (code) (increase(tiltd_failure_reasons_total{@}[24h])))",
                "{{code}}",
            ),
        ),
        stack(
            "Results by judgement, an hour",
            "Good, doubtful (delivered all the same), bad (held for a person).",
            "short",
            ("sum by (verdict) (rate(tiltd_verdicts_total{@}[1h])) * 3600", "{{verdict}}"),
        ),
    ),
}
