"""Linux system calls that Python has no function for, through the C library; OSError, naming the call, where one fails."""

from __future__ import annotations

import ctypes
import os
import struct

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x20000, 0x02000000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 0x20, 0x1000, 0x4000, 1 << 18
_MNT_DETACH = 2
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000

_SYS_MOUNT_SETATTR = 442
_SYS = {"x86_64": {"pivot_root": 155, "capset": 126}, "aarch64": {"pivot_root": 41, "capset": 91}}
_CAPABILITY_VERSION_3 = 0x20080522

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _CLEAR_ALL = 38, 47, 4
_CAPS = 64

libc = ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    _check(libc.unshare(ctypes.c_int(flags)), "unshare")


def mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    made = libc.mount(source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), data.encode())
    _check(made, f"mount {target}")


def bind(source: str, target: str, *, device: bool = False) -> None:
    """`source` and what is mounted below it, at `target`, read-only."""
    mount(source, target, "", MS_BIND | MS_REC)
    _restrict(target, _ATTR_RDONLY | _ATTR_NOSUID | (0 if device else _ATTR_NODEV))


def _restrict(target: str, attributes: int) -> None:
    given = struct.pack("<QQQQ", attributes, 0, 0, 0)
    path = ctypes.c_char_p(target.encode())
    done = libc.syscall(
        ctypes.c_long(_SYS_MOUNT_SETATTR),
        ctypes.c_int(_AT_FDCWD),
        path,
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.c_char_p(given),
        ctypes.c_size_t(len(given)),
    )
    _check(done, f"mount_setattr {target} (Linux 5.12 or newer)")


def enter_root(new_root: str) -> None:
    """Make `new_root` the root directory and let go of the old one."""
    os.chdir(new_root)
    dot = ctypes.c_char_p(b".")
    _check(libc.syscall(ctypes.c_long(_SYS[os.uname().machine]["pivot_root"]), dot, dot), "pivot_root")
    _check(libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")


def drop_bounding_set() -> None:
    """No program run from here on gains a capability. Capabilities that the kernel does not know are passed over."""
    for capability in range(_CAPS):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    _check(libc.prctl(_PR_CAP_AMBIENT, _CLEAR_ALL, 0, 0, 0), "clear ambient capabilities")


def drop_capabilities() -> None:
    header = struct.pack("<Ii", _CAPABILITY_VERSION_3, 0)
    nothing = bytes(24)
    number = ctypes.c_long(_SYS[os.uname().machine]["capset"])
    _check(libc.syscall(number, ctypes.c_char_p(header), ctypes.c_char_p(nothing)), "capset")


def no_new_privileges() -> None:
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def undumpable() -> None:
    """Other processes may not look into this one."""
    _check(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "dumpable")


def die_with_parent(signal_number: int) -> None:
    _check(libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "parent-death signal")
