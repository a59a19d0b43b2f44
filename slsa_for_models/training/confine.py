"""Runs a training command where nothing outside its workspace can be written: see `confinement`.

usage: python -I confine.py JOB

The last program of ours before the command. It imports nothing of ours, as it may run with another
user's rights, and runs inside the namespaces that it was started in. JOB is a JSON file: `command`,
`directory`, `workspace`, `read_only` (files), `sockets` (of services, files too), `environment`,
`network`, `user` (uid and gid, or null).

1. The inputs become read-only mounts; `/run` and all other sockets of services are hidden.
2. Landlock lets the command and all its children write below the workspace only, and mount nothing.
3. No rights are left: no capabilities, no other user, and no program can give any back.
4. This process stays as the first of its namespace: when the command ends, all others are ended.
   So they are when standard input ends: whoever started this has ended, and nobody waits any more.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import stat
import struct
import sys
from contextlib import suppress
from pathlib import Path

# Linux: landlock(7), mount(2), prctl(2), capset(2), netdevice(7).
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
WRITE_FILE, MAKE_AND_REMOVE, REFER, TRUNCATE = 0x2, 0x1FF0, 0x2000, 0x4000
LEAST_ABI = 3  # Linux 6.2: files cannot be truncated either
SIGNALS_AND_ABSTRACT_SOCKETS, ABI_OF_SCOPES = 0x3, 6
RDONLY, NOSUID, NODEV, NOEXEC, REMOUNT, NOATIME, NODIRATIME = 1, 2, 4, 8, 32, 1024, 2048
BIND, RELATIME = 4096, 1 << 21
KEPT_FLAGS = NOSUID | NODEV | NOEXEC | NOATIME | NODIRATIME
STATVFS_RELATIME = 4096
SET_NO_NEW_PRIVS, AMBIENT, CLEAR_ALL, DROP_BOUNDING = 38, 47, 4, 24
LAST_CAPABILITY, CAPABILITIES_V3 = 63, 0x20080522
SIOCSIFFLAGS, UP = 0x8914, 0x1
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts")
ACCELERATORS = ("nvidia", "kfd", "dri", "accel")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - its own, mounted here
SERVICES = Path("/run")

libc = ctypes.CDLL(None, use_errno=True)


def check(what: str, result: int) -> int:
    """Ends with a message if a call of the system failed; returns what it returned."""
    if result < 0:
        sys.exit(f"confine: {what}: {os.strerror(ctypes.get_errno())}")
    return result


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """A mount, with the arguments of the system call."""
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    check(f"mount on {target}", libc.mount(*texts, ctypes.c_ulong(flags), data.encode() or None))


def make_read_only(path: str) -> None:
    """Binds a file on itself; what the file system had forbidden stays forbidden."""
    found = os.statvfs(path).f_flag
    flags = found & KEPT_FLAGS | (RELATIME if found & STATVFS_RELATIME else 0)
    mount(path, path, None, BIND)
    mount(None, path, None, BIND | REMOUNT | RDONLY | flags)


def hide_services(*, network: bool) -> None:
    """An empty /run: whoever may talk to a container engine or a bus has all rights there."""
    resolver, known = Path(os.path.realpath("/etc/resolv.conf")), b""
    if network and SERVICES in resolver.parents:
        with suppress(OSError):
            known = resolver.read_bytes()
    if SERVICES.is_dir():
        mount("tmpfs", str(SERVICES), "tmpfs", NOSUID | NODEV, "mode=755,size=1m")
    if known:
        resolver.parent.mkdir(parents=True, exist_ok=True)
        resolver.write_bytes(known)
    if SHARED_MEMORY.is_dir():
        mount("tmpfs", str(SHARED_MEMORY), "tmpfs", NOSUID | NODEV, "mode=1777")


def hide_sockets(paths: list[str]) -> None:
    """No service answers: those that listen at a file are reached without any network."""
    for path in paths:
        with suppress(OSError):  # it is hidden already, or out of reach anyway
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                mount(os.devnull, path, None, BIND)


def bring_up_loopback() -> None:
    """Processes that train together talk by it; nothing else is in this network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        fcntl.ioctl(channel, SIOCSIFFLAGS, struct.pack("16sh", b"lo", UP) + bytes(22))


def restrict_writing(workspace: str) -> None:
    """Landlock: from here on writing is for the workspace and harmless devices."""
    abi = libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if abi < LEAST_ABI:
        sys.exit("confine: Landlock of Linux 6.2 or later is needed")
    rights = WRITE_FILE | MAKE_AND_REMOVE | REFER | TRUNCATE
    scoped = SIGNALS_AND_ABSTRACT_SOCKETS if abi >= ABI_OF_SCOPES else 0
    attributes = ctypes.create_string_buffer(struct.pack("QQQ", rights, 0, scoped))
    size = ctypes.c_size_t(24 if scoped else 8)
    ruleset = check("landlock", libc.syscall(CREATE_RULESET, attributes, size, 0))
    places = {Path(workspace): rights, SHARED_MEMORY: rights}
    for path in Path("/dev").iterdir():
        if path.name in DEVICES or path.name.startswith(ACCELERATORS):
            places[path] = WRITE_FILE
    for path, allowed in places.items():
        with suppress(FileNotFoundError):
            handle = os.open(path, os.O_PATH)
            rule = ctypes.create_string_buffer(struct.pack("=Qi", allowed, handle))
            check(str(path), libc.syscall(ADD_RULE, ruleset, 1, rule, 0))
            os.close(handle)
    check("no_new_privs", libc.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    check("landlock", libc.syscall(RESTRICT_SELF, ruleset, 0))
    os.close(ruleset)


def give_up_rights(user: tuple[int, int] | None) -> None:
    """Another user's rights, where this ran with theirs; then every capability."""
    for capability in range(LAST_CAPABILITY + 1):
        libc.prctl(DROP_BOUNDING, capability, 0, 0, 0)  # those that there are
    libc.prctl(AMBIENT, CLEAR_ALL, 0, 0, 0)
    if user is not None:
        os.setgroups([])  # also `docker`, whose socket knows no network namespace
        os.setresgid(user[1], user[1], user[1])
        os.setresuid(user[0], user[0], user[0])
    # None effective, permitted or inheritable; a program gives none back.
    check("capset", libc.capset(struct.pack("Ii", CAPABILITIES_V3, 0), bytes(24)))


def wait_for(child: int, ended: int) -> int:
    """The exit code of a process; all that others leave behind is taken up meanwhile."""
    while True:
        process, status = os.waitpid(-1, os.WNOHANG)
        if process == child:
            return os.waitstatus_to_exitcode(status)
        if not process:
            ready, _, _ = select.select([0, ended], [], [])
            if 0 in ready:
                return 1
            os.read(ended, 4096)


def main() -> None:
    """Confines, starts the command, waits for it, and ends with its exit code."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for path in job["read_only"]:
        make_read_only(path)
    hide_services(network=job["network"])
    hide_sockets(job["sockets"])
    if not job["network"]:
        bring_up_loopback()
    os.chdir(job["directory"])
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # the first process of a namespace is immune
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ended, ending = os.pipe()
    os.set_blocking(ending, False)
    signal.set_wakeup_fd(ending)
    child = os.fork()
    if not child:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.setsid()
        restrict_writing(job["workspace"])
        give_up_rights(job["user"])
        command: list[str] = job["command"]
        try:
            os.execvpe(command[0], command, job["environment"])  # noqa: S606 - no shell is wanted
        except OSError as error:
            sys.exit(f"{command[0]}: {error.strerror}")
    code = wait_for(child, ended)
    os._exit(code if code >= 0 else 128 - code)  # of a signal, as shells have it


if __name__ == "__main__":
    main()
