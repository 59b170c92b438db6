"""The dashboard of the cluster: nodes, cores, scratch, the batch system, destinations."""

from __future__ import annotations

from panels import Panel, bars, lines, number, quantiles, stack

TITLE = "tiltd: cluster and scratch"
MEANING = "Nodes, cores and scratch, what the batch system answers, and room at the destinations."

HOUR = 3600.0

ROWS: dict[str, tuple[Panel, ...]] = {
    "Now": (
        number(
            "Nodes that take jobs",
            "Free or busy.",
            "short",
            'sum(tiltd_nodes{@, state=~"free|busy"}) or vector(0)',
            1,
            0.5,
        ),
        number(
            "Nodes away",
            "Offline, down, or nobody knows.",
            "short",
            'sum(tiltd_nodes{@, state=~"offline|down|unknown"}) or vector(0)',
            1,
        ),
        number(
            "Cores booked",
            "Of all cores of the nodes, the share that tiltd has booked.",
            "percentunit",
            "sum(tiltd_node_cores_reserved{@}) / sum(tiltd_node_cores{@})",
        ),
        number(
            "Scratch booked",
            "Of all scratch of the nodes, the share that tiltd has booked.",
            "percentunit",
            "sum(tiltd_node_scratch_reserved_bytes{@}) / sum(tiltd_node_scratch_size_bytes{@})",
        ),
        number(
            "Scratch leaked",
            "Booked for attempts that are over, until somebody can look at the node.",
            "bytes",
            "sum(tiltd_node_scratch_leaked_bytes{@})",
            1,
            1e12,
        ),
        number(
            "Resource manager answered",
            "Age of its last good answer.",
            "s",
            "max(tiltd_resource_manager_answer_age_seconds{@})",
            120,
            600,
        ),
    ),
    "Nodes": (
        stack(
            "Nodes by state",
            "As the resource manager shows them.",
            "short",
            ("sum by (state) (tiltd_nodes{@})", "{{state}}"),
        ),
        lines(
            "Cores",
            "All, and those that tiltd has booked. Others use the cluster too.",
            "short",
            ("sum(tiltd_node_cores{@})", "all"),
            ("sum(tiltd_node_cores_reserved{@})", "booked"),
        ),
        lines(
            "Breakers, by what they protect",
            "What an open breaker protects gets nothing new but a probe now and then.",
            "short",
            ("sum by (scope) (tiltd_breakers_open{@}) or vector(0)", "{{scope}}"),
        ),
        lines(
            "Refused nodes, a minute, by reason",
            "Nodes that could not take a series that was to be placed.",
            "short",
            ("sum by (reason) (rate(tiltd_refusals_total{@}[5m])) * 60 or vector(0)", "{{reason}}"),
        ),
    ),
    "Scratch": (
        lines(
            "Scratch of all nodes",
            "Size, what is free, and what tiltd has booked.",
            "bytes",
            ("sum(tiltd_node_scratch_size_bytes{@})", "size"),
            ("sum(tiltd_node_scratch_free_bytes{@})", "free"),
            ("sum(tiltd_node_scratch_reserved_bytes{@})", "booked"),
            ("sum(tiltd_node_scratch_leaked_bytes{@})", "leaked"),
        ),
        bars(
            "Least free scratch",
            "The 15 nodes with the smallest free share.",
            "percentunit",
            ("bottomk(15, node:tiltd_scratch_free:ratio{@})", "{{node}}"),
            0.2,
            0.05,
        ),
        bars(
            "Most booked scratch",
            "The 15 nodes with the largest booked share.",
            "percentunit",
            (
                "topk(15, tiltd_node_scratch_reserved_bytes{@} / (tiltd_node_scratch_size_bytes{@} > 0))",
                "{{node}}",
            ),
        ),
        bars(
            "Leaked scratch",
            "The 15 nodes with most of it.",
            "bytes",
            ("topk(15, tiltd_node_scratch_leaked_bytes{@})", "{{node}}"),
            1,
            1e12,
        ),
    ),
    "The batch system": (
        stack(
            "Our jobs, by state",
            "As the resource manager lists them.",
            "short",
            ("sum by (state) (tiltd_jobs{@}) or vector(0)", "{{state}}"),
        ),
        stack(
            "Jobs of others, by state",
            "In the resource manager's last answer.",
            "short",
            ("sum by (state) (tiltd_foreign_jobs{@}) or vector(0)", "{{state}}"),
        ),
        lines(
            "Wait in the queue",
            "From the acceptance of a job to its start, median and 95th percentile.",
            "s",
            *quantiles("tiltd_queue_wait_seconds", "pipeline", "1h", 0.5, 0.95),
        ),
        lines(
            "Questions without an answer, an hour",
            "To the resource manager.",
            "short",
            ("sum(rate(tiltd_resource_manager_unreachable_total{@}[1h])) * 3600", "unanswered"),
        ),
        lines(
            "Commands, a minute",
            "Of the resource manager, by command and how they ended.",
            "short",
            (
                "sum by (command, outcome) (rate(tiltd_resource_manager_commands_total{@}[5m])) * 60",
                "{{command}} {{outcome}}",
            ),
        ),
        lines(
            "Seconds a command",
            "Mean time that a command of the resource manager took.",
            "s",
            (
                "sum by (command) (rate(tiltd_resource_manager_command_seconds_total{@}[5m])) "
                "/ sum by (command) (rate(tiltd_resource_manager_commands_total{@}[5m]))",
                "{{command}}",
            ),
        ),
        lines(
            "Jobs forgotten, 24 h",
            "Gone from the list before they were shown completed: keep_completed is too short.",
            "short",
            ("sum(increase(tiltd_jobs_forgotten_total{@}[24h]))", "forgotten"),
        ),
    ),
    "Results on their way": (
        lines(
            "Room at the destinations",
            "Free bytes, by feed.",
            "bytes",
            ("min by (feed) (tiltd_destination_free_bytes{@})", "{{feed}}"),
        ),
        lines(
            "Stranded results, 24 h",
            "Those that could not leave their node at first. They are rescued, not computed again.",
            "short",
            ("sum by (pipeline) (increase(tiltd_results_stranded_total{@}[24h]))", "{{pipeline}}"),
        ),
        lines(
            "Copying in",
            "Input to scratch, checksums included; median and 95th percentile.",
            "s",
            *quantiles("tiltd_stage_in_seconds", "pipeline", "1h", 0.5, 0.95),
        ),
        lines(
            "Copying out",
            "Results to beside their destination; median and 95th percentile.",
            "s",
            *quantiles("tiltd_stage_out_seconds", "pipeline", "1h", 0.5, 0.95),
        ),
    ),
}
