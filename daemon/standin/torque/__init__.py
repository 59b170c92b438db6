"""A Torque and Maui for tests and the demo: its commands, over a small server that really runs the jobs.

Built from recordings of Torque 6.1.3 with Maui 3.5: what a command prints, its exit code and the order of
its elements are theirs.  Each node is a folder with a scratch of its own, and a job is a process in a session
of its own, started as Torque's mom starts one.

:mod:`.records` has the words; :mod:`.asking` reads what qsub is told and :mod:`.admission` judges it;
:mod:`.batch` is the server, without a process or a socket of its own; :mod:`.maui` says why a job waits;
:mod:`.listing`, :mod:`.job_xml` and :mod:`.node_listing` write what the commands print; :mod:`.commands` is
the commands; :mod:`.faults` what can be made to go wrong with them, :mod:`.control` with the cluster;
:mod:`.execution` real processes; :mod:`.server` and :mod:`.client` the two ends of the socket; :mod:`.site`
lays all of it out in a folder.
"""
