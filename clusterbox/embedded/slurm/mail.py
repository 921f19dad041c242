"""MailProg: mail of slurmctld becomes a line of a file.

slurmctld calls it as `mail -s SUBJECT ADDRESS`. It imports nothing of this package, and so starts
quickly.
"""

import fcntl
import json
import os
import sys
import time


def main() -> None:
    """Append the mail to the file in the first argument: time, address, subject, job."""
    sink, *words = sys.argv[1:]
    subject = words[words.index("-s") + 1] if "-s" in words else ""
    job = {name: value for name, value in os.environ.items() if name.startswith("SLURM_JOB")}
    line = json.dumps({"time": time.time(), "to": words[-1], "subject": subject, "job": job})
    # One write of a line under a lock: several mails come at the same time.
    with open(sink, "a", encoding="utf-8") as file:  # noqa: PTH123 - pathlib takes longer to load
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(line + "\n")


if __name__ == "__main__":
    main()
