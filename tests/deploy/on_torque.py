"""A site of the tests whose jobs run on a stand-in Torque instead of on this machine."""

from __future__ import annotations

import sys

from shell.daemon_process import Site
from tiltd.daemon.standin.torque.site import StandIn


def on_torque(site: Site, torque: StandIn) -> None:
    """Rewrite its settings; all nodes of the stand-in may be used, and its server is asked often."""
    before, _, after = site.config.read_text().partition("[[local.node]]")
    polls = after[after.index("[poll]") :]
    tables = [
        f'resource_manager = "torque"\n{before}\n{polls}queue_seconds = 0.2\nqueue_seconds_max = 1\n',
        f'[torque]\npath = "{torque.bin}"\npython = "{sys.executable}"\n',
    ]
    tables += [
        f'[[torque.node]]\nnames = "{name}"\nscratch = "{torque.scratch.format(node=name)}"\n'
        for name in torque.nodes
    ]
    site.config.write_text("".join(tables))
