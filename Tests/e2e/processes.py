"""Looks at processes through /proc: who descends from whom, who is alive, what listens, what was left behind."""

import os
import pathlib
import socket


def stat(pid):
    """(parent, state, start time) or None when the process is gone."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[1]), fields[0], int(fields[19])


def cpu_seconds(pid):
    """User and system time that a process has used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def command(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def program(pid):
    """Name of the executable file; the command line may begin with a title instead."""
    try:
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    except OSError:
        return ""


def all_pids():
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def descendants(root):
    """{pid: start time} of a process and everything below it. The start time tells a reused pid from the old one."""
    table = {pid: info for pid in all_pids() if (info := stat(pid))}
    found, frontier = {}, [root]
    while frontier:
        pid = frontier.pop()
        if pid in table and pid not in found:
            found[pid] = table[pid][2]
            frontier += [child for child, info in table.items() if info[0] == pid]
    return found


def marked(marker):
    """Processes that inherited an environment variable with this text, whoever their parent is now."""
    found = {}
    for pid in all_pids():
        try:
            environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes()
        except OSError:
            continue
        info = stat(pid)
        if marker.encode() in environment and info:
            found[pid] = info[2]
    return found


def alive(processes):
    """Those of {pid: start time} that still run. A zombie runs nothing."""
    now = {pid: stat(pid) for pid in processes}
    return {pid: command(pid) for pid, info in now.items() if info and info[1] != "Z" and info[2] == processes[pid]}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_listened_at(port):
    """Whether any socket listens there. Binding to the port would tell less: some client may have it for its own end."""
    for table in filter(os.path.exists, ("/proc/net/tcp", "/proc/net/tcp6")):
        for line in pathlib.Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                return True
    return False


def shared_memory():
    return {name for name in os.listdir("/dev/shm") if "vllm" in name or "blas" in name} if os.path.isdir("/dev/shm") else set()
