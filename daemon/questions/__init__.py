"""Questions to the policy, answered by the production code: explain, test, diff, replay.

Nothing here decides anything: ``rules.decide``, ``shape``, ``place`` and the core itself are asked, with the
same records as in the daemon.
"""
