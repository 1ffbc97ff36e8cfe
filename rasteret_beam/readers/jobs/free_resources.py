"""Measure the free memory of this machine, or of the container of this process."""

from pathlib import Path

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def free_memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> int | None:
    """Bytes of memory that a process can still allocate, by the limits of the machine and of its cgroups.

    None if the system does not report it, as on macOS and Windows.

    Sources: proc(5), MemAvailable; the kernel's cgroup-v2.rst and cgroup-v1/memory.rst. Inactive file pages count as
    free, since the kernel drops them first.
    """
    found = [_available(proc), *_left_in_groups(proc, cgroups)]
    known = [size for size in found if size is not None]
    return max(0, min(known)) if known else None


def own_memory(proc: Path = PROC) -> int:
    """Bytes of memory that this process uses."""
    return (_number(_fields(proc / "self/status").get("VmRSS")) or 0) << 10


def _available(proc: Path) -> int | None:
    size = _number(_fields(proc / "meminfo").get("MemAvailable"))
    return None if size is None else size << 10


def _left_in_groups(proc: Path, cgroups: Path) -> list[int | None]:
    """Free memory of the process's cgroup and each of its parents, for both versions of cgroups."""
    left = []
    for line in _text(proc / "self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            root, limit, used, idle = cgroups, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            root, limit, used = cgroups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
            idle = "total_inactive_file"
        else:
            continue
        own = root / path.strip("/")  # in a container, its group may be the root, whatever the path is
        groups = [group for group in (own, *own.parents) if group.is_relative_to(root)]
        left += [_left_in(group, limit, used, idle) for group in groups]
    return left


def _left_in(group: Path, limit: str, used: str, idle: str) -> int | None:
    most, taken = _number(_text(group / limit)), _number(_text(group / used))
    if most is None or taken is None:  # the group does not exist, or its limit is "max"
        return None
    stat = dict(line.split(" ", 1) for line in _text(group / "memory.stat").splitlines() if " " in line)
    return most - taken + (_number(stat.get(idle)) or 0)


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (OSError, ValueError):
        return ""


def _fields(path: Path) -> dict[str, str]:
    return dict(line.split(":", 1) for line in _text(path).splitlines() if ":" in line)


def _number(text: str | None) -> int | None:
    words = (text or "").split()
    return int(words[0]) if words and words[0].isdigit() else None
