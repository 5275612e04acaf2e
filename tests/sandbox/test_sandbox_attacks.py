"""Programs that try to get out of the sandbox, to outlive it or to misreport how they ended. docs/security.md has the same list."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from sandbox_helpers import SHORT, attack, none_left, said

from kleval import sandbox
from kleval.sandbox import Limits, runner

pytestmark = pytest.mark.skipif(bool(sandbox.available()), reason=f"no isolation here: {sandbox.available()}")


@pytest.mark.parametrize(
    "path",
    [
        "/etc/shadow",
        "/etc/passwd",
        "/etc/hostname",
        "/proc/1/environ",
        "/proc/self/environ",
        "/proc/self/maps",
        "/sys/kernel",
        "/dev/mem",
        "/dev/tty",
        "/run",
        "/var",
        "/home",
        "HERE",
        "HOME",
    ],
)
def test_files_of_the_machine_are_not_there(path: str) -> None:
    found = {"HERE": str(Path(__file__).resolve()), "HOME": os.path.join(os.path.expanduser("~"), ".bashrc")}
    name = found.get(path, path)
    assert said(f"import os; print(os.path.lexists({name!r}))") == "False"


def test_packages_of_the_parent_are_not_there() -> None:
    assert attack("import numpy").status == "error"


def test_only_the_working_directory_can_be_written(tmp_path: Path) -> None:
    code = f"""
import os
wrote = []
for folder in ["/", "/usr/lib", "/lib", "/program", "/dev", "/etc", "/proc", os.path.dirname(os.__file__), {str(tmp_path)!r}]:
    for name in (folder + "/new", folder):
        try:
            open(name, "w").close()
            wrote.append(name)
        except OSError:
            pass
    try:
        os.chmod(folder, 0o777)
        wrote.append(folder)
    except OSError:
        pass
open("/box/mine", "w").close()
open("/tmp/also", "w").close()
print(wrote, sorted(os.listdir("/box")))
"""
    assert said(code) == "[] ['also', 'mine']"
    assert list(tmp_path.iterdir()) == []


def test_links_lead_nowhere() -> None:
    code = """
import os
os.symlink("/etc/shadow", "a")
os.symlink("../../../../../../etc/passwd", "b")
os.symlink("/", "c")
print([os.path.exists(n) for n in ("a", "b", "c/etc/passwd", "c/old_root")], os.listdir("c") == os.listdir("/"))
"""
    assert said(code) == "[False, False, False, False] True"


def test_the_root_directory_cannot_be_left() -> None:
    code = """
import os
fd = os.open("/", os.O_RDONLY)
for attempt in (lambda: os.chroot("/box"), lambda: os.unshare if False else os.fchdir(fd)):
    try:
        attempt()
    except PermissionError:
        pass
for _ in range(20):
    os.chdir("..")
print(os.path.exists("etc/passwd"), os.getcwd())
"""
    assert said(code) == "False /"


@pytest.mark.parametrize("kind", ["AF_INET, socket.SOCK_STREAM", "AF_INET, socket.SOCK_DGRAM", "AF_INET6", "AF_UNIX"])
def test_there_are_no_sockets(kind: str) -> None:
    code = f"""
import socket
import subprocess
import sys
try:
    socket.socket(socket.{kind})
    print("open")
except PermissionError:
    print("refused")
"""
    assert said(code) == "refused"


def test_a_server_of_the_machine_cannot_be_reached() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"
        assert attack(code).status == "error"
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.accept()


def test_there_is_no_network_even_without_the_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    skip = "import kleval.sandbox.jail as j; j.seccomp.install = lambda libc: None"
    monkeypatch.setattr(runner, "_BOOT", runner._BOOT.replace("import main; main()", f"import main; {skip}; main()"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        code = f"""
import errno, socket
for address in ("127.0.0.1", "8.8.8.8"):
    try:
        socket.create_connection((address, {port}), 1)
        print("reached")
    except OSError as error:
        print(errno.errorcode[error.errno])
print([name for _, name in socket.if_nameindex()])
"""
        result = runner.run_unchecked(code, limits=SHORT)
    assert result.stdout.split("\n")[:3] == ["ENETUNREACH", "ENETUNREACH", "['lo']"]


def test_variables_of_the_parent_are_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLEVAL_SECRET_FOR_TEST", "do-not-tell")
    code = """
import os, glob
print(dict(os.environ), glob.glob("/proc/*/environ"))
import ctypes
environ = ctypes.POINTER(ctypes.c_char_p).in_dll(ctypes.CDLL(None), "environ")
i = 0
while environ[i]:
    print(environ[i])
    i += 1
"""
    text = said(code)
    assert "do-not-tell" not in text
    assert "KLEVAL" not in text


def test_signals_reach_nobody_outside() -> None:
    code = f"""
import os, signal
for pid in ({os.getpid()}, {os.getppid()}, os.getppid(), 0x7FFFFFF, 1, -1):
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
print("still here", os.getppid())
"""
    assert said(code) == "still here 1"


def test_no_signal_makes_the_sandbox_fail() -> None:
    """A fault is nobody's wrong answer: a program must not be able to cause one."""
    code = """
import os
for number in range(1, 65):
    try:
        os.kill(1, number)
    except OSError:
        pass
os._exit(3)
"""
    assert attack(code).exit_code == 3


def test_a_daemon_in_a_session_of_its_own_ends_with_the_program() -> None:
    code = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for fd in (0, 1, 2):
            os.close(fd)
        time.sleep(600)
    os._exit(0)
os.wait()
print("done")
"""
    assert said(code) == "done"
    assert none_left()


def test_a_grandchild_that_holds_the_output_open_does_not_keep_us_waiting() -> None:
    begun = time.monotonic()
    code = """
import os, time
if os.fork() == 0:
    time.sleep(600)
print("done")
"""
    limits = Limits(seconds=300)
    assert said(code, limits) == "done"
    assert time.monotonic() - begun < limits.seconds
    assert none_left()


def test_other_processes_cannot_be_traced_or_read() -> None:
    code = """
import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
def refused(name, *args):
    return getattr(libc, name)(*args) == -1 and ctypes.get_errno() == errno.EPERM
print(refused("ptrace", 16, 1, 0, 0), refused("process_vm_readv", 1, None, 0, None, 0, 0), refused("setns", 0, 0),
      refused("unshare", 0x10000000), refused("mount", b"a", b"/box", b"tmpfs", 0, None), refused("personality", 0x40000))
"""
    assert said(code) == " ".join(["True"] * 6)


def test_namespaces_cannot_be_made_with_clone() -> None:
    code = """
import ctypes, errno, os
libc = ctypes.CDLL(None, use_errno=True)
number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
made = libc.syscall(number, 0x10000000 | 17, 0, 0, 0, 0)
if made == 0:
    os._exit(0)
print(made == -1 and ctypes.get_errno() == errno.EPERM, libc.syscall(435, 0, 0) == -1 and ctypes.get_errno() == errno.ENOSYS)
"""
    assert said(code) == "True True"


def test_a_new_program_gains_nothing() -> None:
    """Not root, no capabilities, none to be gained: what a set-user-id program would need."""
    code = """
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
held = ctypes.create_string_buffer(24)
libc.capget(struct.pack("<Ii", 0x20080522, 0), held)
try:
    os.setuid(0)
except OSError:
    print(os.getresuid() == (65534,) * 3, held.raw == bytes(24), libc.prctl(39, 0, 0, 0, 0), libc.prctl(23, 21, 0, 0, 0))
"""
    assert said(code) == "True True 1 0"


def test_no_descriptor_is_inherited(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("do-not-tell")
    fd = os.open(secret, os.O_RDONLY)
    os.set_inheritable(fd, True)
    code = """
import os
held = []
for fd in range(3, 4096):
    try:
        os.fstat(fd)
        held.append(fd)
    except OSError:
        pass
os.write(1, repr(held).encode())
"""
    try:
        assert said(code) == "[]"
    finally:
        os.close(fd)


def test_what_happens_at_exit_counts() -> None:
    assert attack("import atexit, os; atexit.register(lambda: os._exit(3))").exit_code == 3
    assert attack("import atexit, time; atexit.register(time.sleep, 60)", Limits(seconds=0.5)).status == "timeout"


def test_a_crash_of_the_interpreter_is_the_programs() -> None:
    code = "import sys; sys.setrecursionlimit(10**9)\nx = ()\nfor _ in range(10**6): x = (x,)\nhash(x)"
    assert attack(code).status == "killed"
    assert attack("import ctypes; ctypes.string_at(0)").status == "killed"


@pytest.mark.parametrize(
    ("code", "status", "exit_code"), [("import os; os._exit(7)", "error", 7), ("exit", "error", 1)]
)
def test_exit_codes_are_told(code: str, status: str, exit_code: int) -> None:
    result = attack(code)
    assert (result.status, result.exit_code) == (status, exit_code)


def test_killing_itself_is_told() -> None:
    result = attack("import os; os.kill(os.getpid(), 9)")
    assert (result.status, result.exit_code) == ("killed", -9)


def test_nothing_outlives_kleval() -> None:
    """Killed without a chance to clean up, it takes the keeper with it, and the keeper the sandbox."""
    code = "from kleval import sandbox; sandbox.run('import os, time; os.fork(); print(1); time.sleep(600)')"
    root = str(Path(sandbox.__file__).resolve().parents[2])
    ours = subprocess.Popen([sys.executable, "-c", f"import sys; sys.path.append({root!r}); {code}"])
    try:
        inside: list[psutil.Process] = []
        for _ in range(400):
            # Keeper, process 1, the program and its child; the probe's sandbox has more for a moment.
            inside = psutil.Process(ours.pid).children(recursive=True)
            with contextlib.suppress(psutil.NoSuchProcess):  # one of the probe's that has just ended
                if len(inside) == 4 and inside[-1].cmdline()[-1:] == ["/program/main.py"]:
                    break
            time.sleep(0.02)
        assert len(inside) == 4
    finally:
        ours.kill()
        ours.wait()
    _, alive = psutil.wait_procs(inside, timeout=10)
    assert alive == []
