"""The audit of what operators do outside the core: about no dataset, but who, when and what all the same."""

from __future__ import annotations

import secrets

from tiltd.daemon.core.observations import Errand, OperatorAsked

from .access import Principal
from .view import Daemon


async def note(
    daemon: Daemon, principal: Principal, errand: Errand, told: str, *, ok: bool = True
) -> tuple[bool, str]:
    """Durable in the journal?  Else why not."""
    return await daemon.ask(
        OperatorAsked(
            at=daemon.clock.now(),
            action=errand,
            dataset_id="",
            by=principal.name,
            via=principal.via,
            request_id=secrets.token_hex(8),
            told=told,
            ok=ok,
        )
    )
