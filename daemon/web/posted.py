"""What an HTML form sent, bounded."""

from __future__ import annotations

from urllib.parse import parse_qsl

from .refusal import Refusal

FIELDS_MAX = 2000
VALUE_CHARACTERS_MAX = 300_000


def pairs(text: str) -> list[tuple[str, str]]:
    """All fields in their order.  Raises Refusal."""
    try:
        found = parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="replace")
    except ValueError:
        raise Refusal(400, "the form has too many fields") from None
    if any(len(value) > VALUE_CHARACTERS_MAX for _, value in found):
        raise Refusal(413, f"a field of the form is longer than {VALUE_CHARACTERS_MAX} characters")
    return found
