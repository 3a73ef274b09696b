"""Pretend machines on this one: Linux namespaces on a virtual switch, each with its own processes, network, /tmp and /home.

`ray up` and `ray down` say `ray stop`, which ends every Ray process that it sees: here it sees those of its own machine. A
machine is reached over SSH with a throw-away key, on port 22 of an address of its own, as user `ubuntu`; nothing outlives the
process that made it, and nothing is reachable from outside. Needs root (or CAP_SYS_ADMIN), `unshare`, `ip`, `sshd`.

    python -m tests.launch.ray_up      # calls `enter()`, which runs the program again in namespaces of its own
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

_INSIDE: Final = "VISUTILITY_LAUNCH_INSIDE"
ROOT: Final = Path(__file__).resolve().parents[2]
_SWITCH: Final = "visutility0"
# Of one machine: own processes, network, mounts, shared memory and host name, gone with the process that holds them.
_UNSHARE: Final = ["unshare", "--pid", "--net", "--mount", "--ipc", "--uts", "--fork", "--mount-proc", "--kill-child"]
DESK_IP: Final = "10.77.0.100"


def missing() -> str | None:
    """Say why machines cannot be made here, or None."""
    wanted = {
        "unshare": "util-linux",
        "ip": "iproute2",
        "/usr/sbin/sshd": "openssh-server",
        "ssh": "openssh-client",
        "rsync": "rsync",
    }
    for program, package in wanted.items():
        if shutil.which(program) is None:
            return f"needs {program}: apt-get install {package}"
    tried = subprocess.run([*_UNSHARE, "true"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"needs namespaces of its own (root, or CAP_SYS_ADMIN): {tried.stderr.strip()}"
    return None


def inside() -> bool:
    """Return whether this process is the desk already."""
    return bool(os.environ.get(_INSIDE))


def enter(module: str, arguments: list[str]) -> None:
    """Go on as `python -m module` in namespaces of its own: the desk, from which machines are made. Returns there only.

    Ends the process with 77 and the reason where this machine cannot do it.
    """
    if inside():
        _prepare_desk()
        return
    reason = missing()
    if reason:
        print(f"skipped: {reason}")
        sys.exit(77)
    os.environ[_INSIDE] = "1"
    sys.stdout.flush()
    # In place of this process: what ends it, a time-out say, ends every machine with it.
    os.execvp(_UNSHARE[0], [*_UNSHARE, sys.executable, "-m", module, *arguments])


def _prepare_desk() -> None:
    _run("mount", "--make-rprivate", "/")
    _run("hostname", "desk")
    _own_folders(home_of="root", ip=DESK_IP)
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", _SWITCH, "type", "bridge")
    _run("ip", "addr", "add", f"{DESK_IP}/24", "dev", _SWITCH)
    _run("ip", "link", "set", _SWITCH, "up")


def _own_folders(home_of: str, ip: str) -> None:
    # /tmp holds Ray's sessions and the launcher's state, /home the homes, /run what sshd wants. The checkout and the
    # interpreter may lie below one of them: held open by a descriptor they are put back where they were.
    kept = {path: os.open(path, os.O_PATH) for path in (str(ROOT), sys.prefix, sys.base_prefix)}
    for folder in ("/tmp", "/home", "/run", "/dev/shm"):
        _run("mount", "-t", "tmpfs", "-o", "mode=1777", "tmpfs", folder)
    for path, descriptor in kept.items():
        if not Path(path).exists():
            Path(path).mkdir(parents=True)
            _run("mount", "--no-canonicalize", "--bind", f"/proc/{os.getpid()}/fd/{descriptor}", path)
        os.close(descriptor)
    os.chdir(ROOT)
    home = Path("/home") / home_of
    home.mkdir(mode=0o755)
    Path("/run/sshd").mkdir(mode=0o755)
    # A second name for uid 0: the interpreter may lie where only root reads.
    passwd = Path("/run/passwd")
    others = [line for line in Path("/etc/passwd").read_text().splitlines() if line.split(":")[0] not in {"root", home_of}]
    names = dict.fromkeys([home_of, "root"])
    passwd.write_text("\n".join([*(f"{name}:x:0:0::/home/{home_of}:/bin/bash" for name in names), *others]) + "\n")
    _run("mount", "--bind", str(passwd), "/etc/passwd")
    hosts = Path("/run/hosts")
    hosts.write_text(f"127.0.0.1 localhost\n{ip} {socket.gethostname()}\n")
    _run("mount", "--bind", str(hosts), "/etc/hosts")
    os.environ["HOME"] = str(home)


class Machine:
    """One pretend machine with an sshd; `kill` is a power cut."""

    def __init__(self, name: str, ip: str, key: Path) -> None:
        self.name, self.ip, self.key = name, ip, key
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Switch it on; returns when its sshd answers."""
        serve = [*_UNSHARE, sys.executable, "-m", "tests.launch.machines", self.name, self.ip, str(self.key)]
        self._process = subprocess.Popen(serve, stdin=subprocess.PIPE, cwd=ROOT)
        outer, inner = f"v-{self.name}"[:15], f"w-{self.name}"[:15]
        _run("ip", "link", "add", outer, "type", "veth", "peer", "name", inner)
        _run("ip", "link", "set", outer, "master", _SWITCH, "up")
        # The network namespace is the process's own a moment after it began.
        own, ours = Path(f"/proc/{self._process.pid}/ns/net"), Path("/proc/self/ns/net")
        _until(lambda: own.readlink() != ours.readlink(), f"{self.name}: a network of its own")
        _run("ip", "link", "set", inner, "netns", str(self._process.pid))
        assert self._process.stdin
        self._process.stdin.write(f"{inner}\n".encode())
        self._process.stdin.flush()
        _until(lambda: self.run("true").returncode == 0, f"{self.name}: an answer over SSH")

    def run(self, command: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        """Run a shell command there, over SSH, in a login shell."""
        options = ["-i", str(self.key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
        full = ["ssh", *options, "-o", "LogLevel=ERROR", f"ubuntu@{self.ip}", f"bash --login -c {_quoted(command)} 2>&1"]
        return subprocess.run(full, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout_s, check=False)

    def kill(self) -> None:
        """Cut the power: every process of the machine ends at once, nothing is flushed."""
        if self._process:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None


def throw_away_key(folder: Path) -> Path:
    """Make an SSH key that opens the machines of this run and nothing else."""
    key = folder / "key.pem"
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "visutility-launch", "-f", str(key))
    return key


def _serve(name: str, ip: str, key: str) -> None:
    """Be a machine: own folders, own address, an sshd."""
    public = Path(f"{key}.pub").read_text()
    link = sys.stdin.readline().strip()
    _run("mount", "--make-rprivate", "/")
    _run("hostname", name)
    _own_folders(home_of="ubuntu", ip=ip)
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "set", link, "up")
    _run("ip", "addr", "add", f"{ip}/24", "dev", link)
    # Ray finds a node's address by asking the routes for one to the outside; no packet goes there.
    _run("ip", "route", "add", "default", "via", DESK_IP)
    home = Path("/home/ubuntu")
    (home / ".ssh").mkdir(mode=0o700)
    (home / ".ssh" / "authorized_keys").write_text(public)
    (home / ".bashrc").touch()
    (home / ".profile").write_text(". ~/.bashrc\n")
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "/run/sshd/host_key")
    settings = Path("/run/sshd/config")
    settings.write_text(
        f"ListenAddress {ip}\nHostKey /run/sshd/host_key\nPermitRootLogin yes\nPasswordAuthentication no\nUsePAM no\n"
        "StrictModes no\nAuthorizedKeysFile /home/ubuntu/.ssh/authorized_keys\nMaxSessions 50\nMaxStartups 50\n"
        "Subsystem sftp internal-sftp\n"
    )
    os.environ.pop(_INSIDE, None)
    # The first process of the machine must reap what others leave behind; sshd does not.
    subprocess.run(["/usr/sbin/sshd", "-f", str(settings), "-E", "/run/sshd/log"], env={"PATH": _plain_path()}, check=True)
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(0.2)


def _plain_path() -> str:
    return "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _quoted(command: str) -> str:
    return "'" + command.replace("'", "'\\''") + "'"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def _until(true: object, what: str, deadline_s: float = 20) -> None:
    assert callable(true)
    end = time.monotonic() + deadline_s
    while not true():
        if time.monotonic() > end:
            raise RuntimeError(f"no {what} within {deadline_s} s")
        time.sleep(0.1)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
