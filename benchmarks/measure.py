"""Run one command and print what it cost, as JSON: exit status, wall and CPU seconds, peak memory in bytes.

It is a program of its own because a child's peak memory, as the kernel counts it, starts at its parent's:
here the parent is a small interpreter, and not one that has just read millions of rows.
"""

import json
import os
import subprocess
import sys
import time


def main() -> None:
    """Run `argv[3:]` with its stdout and stderr in the files `argv[1]` and `argv[2]`."""
    out, err, *command = sys.argv[1:]
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        started = time.perf_counter()
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss is in bytes on macOS, in kB on Linux
    cost = {
        "status": child.returncode,
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "peak": usage.ru_maxrss * unit,
    }
    print(json.dumps(cost))


if __name__ == "__main__":
    main()
