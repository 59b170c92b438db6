# ruff: noqa: PTH103, PTH104
"""What stands in the runner's place in ``bench_torque``: claims, sleeps, stages a result out, and says so.

The real one measures memory and scratch of its steps all the time, which two hundred of them on one machine
would do instead of sleeping.  One whose series is
called ``silent`` ends without a word.  ``torque_runner.py SECONDS RUNNER ATTEMPT_FOLDER``.
"""

import json
import os
import sys
import time

try:  # hashlib itself would load OpenSSL, 200 times
    from _sha2 import sha256
except ImportError:  # before Python 3.12
    from _sha256 import sha256

RESULT = b"volume\n"


def append(path: str, record: dict) -> None:
    with open(path, "ab") as file:
        file.write(b"\n" + json.dumps(record).encode() + b"\n")


def main(seconds: float, folder: str) -> None:
    job_id = os.environ["PBS_JOBID"]
    with open(os.environ["PBS_NODEFILE"]) as lines:
        node = lines.readline().strip()
    claimed = os.path.join(folder, f"claimed.{job_id}")
    os.rename(os.path.join(folder, "job.json"), claimed)
    with open(claimed) as file:
        job = json.load(file)
    progress, began = os.path.join(folder, "progress"), time.time()
    about = {"job_id": job_id, "pid": os.getpid(), "pid_started": 1}
    append(progress, {"phase": "claimed", "at": began, "node": node, **about})
    append(progress, {"phase": "step", "step": "sleep", "at": time.time(), "node": node})
    time.sleep(seconds)
    if job["dataset_id"].startswith("silent"):  # killed; its janitor has cleaned up after it
        append(progress, {"phase": "cleaned", "at": time.time(), "node": node})
        return
    staging = job["output"]["staging"]
    os.makedirs(staging)
    names = [expected["name"] for expected in job["output"]["results"]]
    sums = []
    for name in names:
        with open(os.path.join(staging, name), "wb") as file:
            file.write(RESULT)
            os.fchmod(file.fileno(), int(job["output"]["file_mode"], 8))
        sums.append({"name": name, "size_bytes": len(RESULT), "sha256": sha256(RESULT).hexdigest()})
    with open(os.path.join(staging, ".checksums.json"), "w") as file:
        json.dump({"files": sums, "nonce": job["nonce"], "job_id": job_id, "inputs": []}, file)
    end = {"outcome": "success", "reason": "", "detail": "", "exit_status": 0, "nonce": job["nonce"]}
    measured = {"run_seconds": seconds}
    append(
        os.path.join(folder, "end"),
        {**end, "job_id": job_id, "ended_at": time.time(), "node": node, "measured": measured},
    )
    append(progress, {"phase": "cleaned", "at": time.time(), "node": node})


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[3])
