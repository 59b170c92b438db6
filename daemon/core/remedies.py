"""What a person can do about an event or a hold: one sentence each, for notices."""

from __future__ import annotations

from .model import HoldCause, NoticeEvent

OF_EVENT: dict[NoticeEvent, str] = {
    "doubtful": "look at its report; 'tiltd rerun' tries other parameters",
    "failed": "'tiltd show' tells what failed; mend it, then 'tiltd retry'",
    "held": "'tiltd why' tells more; 'tiltd release' lets it go on",
    "partial": "'tiltd accept' runs it with the tilts that it has, 'tiltd cancel' drops it",
    "deadline": "'tiltd why' tells what it waits for; 'tiltd prioritize' moves it in the queue",
    "quiet": "look at the microscope: is the acquisition still running?",
    "job_held": "release the job at the resource manager, or 'tiltd cancel' it",
    "breaker": "mend the cause; a probe closes the breaker, or 'tiltd release --breaker'",
    "node_down": "'tiltd nodes' lists them; jobs on it are run elsewhere when it stays away",
    "server_down": "is the resource manager's server running, and reachable from here?",
    "feed_down": "is the feed's folder mounted, and may tiltd read it?",
    "destination_full": "make room where the results go; nothing is lost meanwhile",
    "jobs_forgotten": "raise the resource manager's keep_completed to 300 seconds or more",
    "policy_refused": "mend the policy files; 'tiltd check' tells when they are right",
}

OF_HOLD: dict[HoldCause, str] = {
    "policy": "change the rule that holds it, or 'tiltd release'",
    "partial": OF_EVENT["partial"],
    "input_gone": "bring its files back, or 'tiltd cancel'",
    "input_changing": "find out what writes to its files; when they are quiet it goes on",
    "no_pipeline": "install the pipeline, or name another one for the feed",
    "destination": "move away what stands where the result should go, then 'tiltd release'",
    "quality": "look at its report; 'tiltd release' delivers it as it is, 'tiltd rerun' tries anew",
    "failure": "'tiltd show' tells what failed; mend it, then 'tiltd release'",
    "bug": "send us the text of 'tiltd show'; 'tiltd release' lets it go on",
}
