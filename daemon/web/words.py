"""Values of a policy in words, for its page."""

from __future__ import annotations

from typing import Any

from tiltd.daemon.core.units import show_bytes


def rule_in_words(rule: dict[str, Any], origins: dict[str, str]) -> dict[str, Any]:
    """A rule's conditions and values in words."""
    return {
        "name": rule["name"],
        "origin": origins.get(f"rule.{rule['name']}", ""),
        "when": [condition_in_words(condition) for condition in rule["conditions"]],
        "sets": [(key, in_words(value)) for key, value in rule["sets"].items()],
        "stop": rule["stop"],
    }


def condition_in_words(condition: dict[str, Any]) -> str:
    key, zone = condition["key"], condition.get("zone") or ""
    figure = show_bytes if key == "size" else "{:g}".format
    parts = [" or ".join(map(str, condition.get("patterns") or condition.get("numbers") or ()))]
    parts += [f"at least {figure(condition['least'])}"] if condition.get("least") is not None else []
    parts += [f"at most {figure(condition['most'])}"] if condition.get("most") is not None else []
    return f"{key}: {', '.join(part for part in parts if part)}{f' ({zone})' if zone else ''}"


def in_words(value: Any) -> str:
    """A table without what it leaves open; one that has nothing but its base is that."""
    if isinstance(value, dict) and {"conditions", "sets"} <= set(value):
        when = "; ".join(map(condition_in_words, value["conditions"])) or "always"
        return f"when {when}: {in_words(value['sets'])}"
    if isinstance(value, dict):
        told = {key: each for key, each in value.items() if each not in (None, [], {}, ())}
        if set(told) <= {"base", "per_gb"} and not told.get("per_gb"):
            return in_words(told.get("base", ""))
        return ", ".join(f"{key} = {in_words(each)}" for key, each in told.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(in_words, value)) or "(none)"
    if value is None or value == "":
        return "(none)"
    return f"{value:g}" if isinstance(value, float) else str(value)
