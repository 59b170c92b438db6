"""The commands: what was typed -> what is printed, with Torque's exit codes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from . import asking, faults, job_xml, listing, maui, node_listing
from .batch import Batch
from .records import HOST, Answer, BatchJob, Call, Node, Refused, numbered, said

UNAUTHORISED = "Unauthorized Request "
ACTING = ("qdel", "qhold", "qrls", "qrerun")
SILENT_WHEN_UNKNOWN = ("qhold", "qrls")


class Commands:
    """``run`` costs what the command costs a real server: qstat every job, pbsnodes every node.

    ``connections`` counts the commands that met the server, by name.
    """

    def __init__(
        self, batch: Batch, later: Callable[[float, Callable[[], None]], object] | None = None
    ) -> None:
        self.batch = batch
        self.faults = faults.Faults()
        self.connections: dict[str, int] = {}
        self._later = later
        self._commands: dict[str, Callable[[Call], Answer]] = {
            "qsub": self._qsub,
            "qstat": self._qstat,
            "pbsnodes": self._pbsnodes,
            "checkjob": self._checkjob,
            "showq": self._showq,
            "showstart": self._showstart,
            **dict.fromkeys(ACTING, self._act),
        }

    @property
    def names(self) -> Sequence[str]:
        return tuple(self._commands)

    def run(self, call: Call) -> Answer:
        """Carry it out, unless something is to go wrong.  Never raises for what a user typed."""
        self.connections[call.name] = self.connections.get(call.name, 0) + 1
        fault = self.faults.next(call)
        if fault is None:
            return self._done(call)
        refused = faults.refusal(call, fault)
        if refused is not None:
            return refused
        if fault.kind == "accepted_late" and self._later is not None:
            self._later(fault.seconds, lambda: _ignore(self._done(call)))
            return Answer(hang=True)
        if fault.kind == "sent_again":
            self._done(call)
        return faults.spoilt(self._done(call), fault)

    def _done(self, call: Call) -> Answer:
        try:
            return self._commands[call.name](call)
        except Refused as refusal:
            return Answer(refusal.rc, err=said(f"{call.name}: {refusal.words}\n"))

    # -- qsub ------------------------------------------------------------------------------------------------

    def _qsub(self, call: Call) -> Answer:
        user = _user(call)
        try:
            asked = asking.read_qsub(call)
            job = self.batch.submit(asked, user)
        except asking.Usage as usage:
            return Answer(usage.rc, err=asking.words_of(usage))
        except Refused as refusal:
            return Answer(refusal.rc, err=asking.words_of(refusal))
        job.variables = _variables(call, job)
        return Answer(out=b"" if asked.quiet else said(f"{job.job_id}\n"))

    # -- qstat -----------------------------------------------------------------------------------------------

    def _qstat(self, call: Call) -> Answer:
        options = "".join(word[1:] for word in call.argv if word.startswith("-"))
        ids = [word for word in call.argv if not word.startswith("-")]
        bad = next((job_id for job_id in ids if not job_id[:1].isdigit() or ";" in job_id), None)
        if bad is not None:
            words = f"qstat: illegally formed job identifier: {bad}\n"
            return Answer(1, err=said(words + "qstat: Error (1 - Operation not permitted) \n"))
        show = job_xml.document if "x" in options else job_xml.full_text if "f" in options else _plain
        now = self.batch.now()
        if not ids:
            return Answer(out=said(show(self.batch.jobs.values(), now)))
        # One connection, and one document, for each id.
        found = [(job_id, numbered(self.batch.jobs, job_id)) for job_id in ids]
        out = "".join(show([job], now) for _, job in found if job is not None)
        err = "".join(
            f"qstat: Unknown Job Id Error {name if '.' in name else f'{name}.{HOST}'}\n"
            for name, job in found
            if job is None
        )
        return Answer(153 if err else 0, said(out), said(err))

    # -- pbsnodes --------------------------------------------------------------------------------------------

    def _pbsnodes(self, call: Call) -> Answer:
        options = [word for word in call.argv if word.startswith("-")]
        names = [word for word in call.argv if not word.startswith("-") and word != "all"]
        nodes: list[Node] = []
        for name in names or list(self.batch.nodes):
            if name not in self.batch.nodes:
                raise Refused(1, "Unknown node  MSG=cannot locate specified node")
            nodes.append(self.batch.nodes[name])
        if "-o" in options or "-c" in options:  # says so, and its exit code does not
            words = f"{UNAUTHORISED} MSG=error in permissions (PERM_OPorMGR)"
            return Answer(err=said(f"Error setting note attribute for {nodes[0].name} - {words}\n"))
        if "-x" in options:
            return Answer(out=said(node_listing.nodes_xml(nodes)))
        if "-l" in options:
            text = node_listing.nodes_list(nodes, everything="all" in call.argv, with_notes="-n" in options)
            return Answer(out=said(text))
        return Answer(out=said(node_listing.nodes_text(nodes)))

    # -- qdel, qhold, qrls, qrerun ---------------------------------------------------------------------------

    def _act(self, call: Call) -> Answer:
        ids = [word for word in call.argv if word[:1].isdigit()]
        rc, err = 0, ""
        for job_id in ids:
            try:
                self._act_on(call, job_id)
            except Refused as refusal:
                rc = refusal.rc
                known = numbered(self.batch.jobs, job_id)
                shown = known.job_id if known is not None else job_id
                err += refusal.words and f"{call.name}: {refusal.words} {shown}\n"
        return Answer(rc, err=said(err))

    def _act_on(self, call: Call, job_id: str) -> None:
        job = numbered(self.batch.jobs, job_id)
        if job is None:
            silent = call.name in SILENT_WHEN_UNKNOWN
            raise Refused(153, "" if silent else "nonexistent job id:")
        if call.name == "qrerun":
            rights = "additional permissions required (ATR_DFLAG_MGWR | ATR_DFLAG_OPWR)"
            raise Refused(159, f"{UNAUTHORISED} MSG={rights}")
        if "-m" in call.argv:
            raise Refused(
                159, f"{UNAUTHORISED} MSG=must have operator or manager privilege to use -m parameter"
            )
        act = {"qdel": self.batch.delete, "qhold": self.batch.hold, "qrls": self.batch.release}
        act[call.name](job)

    # -- Maui ------------------------------------------------------------------------------------------------

    def _checkjob(self, call: Call) -> Answer:
        return self._of_maui(call, 2, lambda job: maui.checkjob(self.batch, job, "-v" in call.argv))

    def _showstart(self, call: Call) -> Answer:
        return self._of_maui(call, 4, lambda job: maui.showstart(self.batch, job))

    def _of_maui(self, call: Call, indent: int, show: Callable[[BatchJob], str]) -> Answer:
        job_id = next((word for word in call.argv if not word.startswith("-")), "")
        try:
            return Answer(out=said(show(maui.located(self.batch, call.name, job_id, indent))))
        except Refused as refusal:
            return Answer(refusal.rc, err=said(refusal.words))

    def _showq(self, call: Call) -> Answer:
        return Answer(out=said(maui.showq(self.batch, self.faults.down)))


def _plain(jobs: Iterable[BatchJob], _now: float) -> str:
    return listing.lines(jobs)


def _ignore(_: Answer) -> None:
    """An answer that nobody hears."""


def _user(call: Call) -> str:
    known = call.environment
    return known.get("TILTD_STANDIN_USER") or known.get("LOGNAME") or known.get("USER") or "root"


def _variables(call: Call, job: BatchJob) -> dict[str, str]:
    """Variable_List: what qsub knows of the submitter, then ``-v``, then where it was."""
    known = call.environment
    before = {
        "PBS_O_QUEUE": job.queue,
        "PBS_O_HOME": known.get("HOME", "/"),
        "PBS_O_LOGNAME": job.user,
        "PBS_O_PATH": known.get("PATH", ""),
        "PBS_O_MAIL": known.get("MAIL", f"/var/mail/{job.user}"),
        "PBS_O_SHELL": known.get("SHELL", "/bin/sh"),
        "PBS_O_LANG": known.get("LANG", "C.UTF-8"),
    }
    after = {"PBS_O_WORKDIR": call.folder, "PBS_O_HOST": HOST, "PBS_O_SERVER": HOST}
    return before | job.variables | after
