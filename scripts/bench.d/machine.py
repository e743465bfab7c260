"""Owns the machine: what must be installed and built, what is measured on, and what the kernel says
of a process. Used by every other file here."""

import os
import platform
import resource
import shutil
import subprocess
from pathlib import Path

DURABLE_STREAMS = "0.1.5"
NCHAN_MODULE = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")
PAGE_BYTES = os.sysconf("SC_PAGESIZE")
TICKS_A_SECOND = os.sysconf("SC_CLK_TCK")


class Machine:
    def __init__(self, root):
        self.root = root
        self.work = root / "target" / "bench"
        self.work.mkdir(parents=True, exist_ok=True)
        self.rill = Path(os.environ.get("RILL_BIN", root / "target" / "release" / "rill")).resolve()
        built = self.work / "cargo" / "release"
        self.load, self.floor = built / "load", built / "floor"
        durable_streams = self.work / "durable-streams"
        self.descriptors_max = 0
        self.durable_streams = durable_streams / "bin" / "durable-streams-server"

    def prepare(self):
        # For all that is started from here: every subscriber is a descriptor at both ends.
        _, self.descriptors_max = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (self.descriptors_max, self.descriptors_max))
        self._install_packages()
        if "RILL_BIN" not in os.environ:
            self._cargo("build", "--release", "--locked")
        self._cargo("build", "--release", "--locked", "--package=load", "--package=floor",
                    f"--manifest-path={self.root / 'bench' / 'Cargo.toml'}",
                    f"--target-dir={self.work / 'cargo'}")
        if not self.durable_streams.exists():
            self._cargo("install", "--locked", f"--version={DURABLE_STREAMS}", "durable-streams",
                        f"--root={self.work / 'durable-streams'}",
                        f"--target-dir={self.work / 'cargo'}")

    def _cargo(self, *arguments):
        subprocess.run(["cargo", *arguments, "--quiet"], cwd=self.root, check=True)

    def _install_packages(self):
        packages = [package for package in ("wrk", "nginx", "redis-server")
                    if not shutil.which(package)]
        if not NCHAN_MODULE.exists():
            packages.append("libnginx-mod-nchan")
        if not packages:
            return
        environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
        with open(self.work / "apt.log", "w", encoding="utf-8") as log:
            for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
                subprocess.run(["apt-get", *command], env=environment, stdin=subprocess.DEVNULL,
                               stdout=log, stderr=log, check=True)

    def description(self):
        cpus = [line.split(":", 1)[1].strip() for line in read("/proc/cpuinfo").splitlines()
                if line.startswith("model name")]
        memory_kib = int(read("/proc/meminfo").split()[1])
        return {
            "processor": cpus[0] if cpus else platform.machine(),
            "processors": os.cpu_count(),
            "descriptors_max": self.descriptors_max,
            "memory_gib": round(memory_kib / 2**20, 1),
            "kernel": platform.release(),
            "load_average": os.getloadavg()[0],
        }

    def versions(self):
        commit = self._output("git", "-C", self.root, "describe", "--always", "--dirty")
        return {
            "rill": f"{self._output(self.rill, '--version').removeprefix('rill ')} ({commit})",
            "durable-streams": DURABLE_STREAMS,
            "nginx": self._output("nginx", "-v").rsplit("/", 1)[1],
            "nchan": self._output("dpkg-query", "-Wf${Version}", "libnginx-mod-nchan"),
            "redis": self._output("redis-server", "--version").split()[2].removeprefix("v="),
        }

    @staticmethod
    def _output(*command):
        finished = subprocess.run(command, capture_output=True, text=True, check=True)
        return (finished.stdout or finished.stderr).strip()


def read(path):
    try:
        return Path(path).read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def tree(process):
    """A process and its living children."""
    found = [process]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*"):
            found += [int(child) for child in read(task / "children").split()]
    return found


def cpu_us(process):
    """User and system time of a process and its living children."""
    ticks = 0
    for one in tree(process):
        # The command stands in parentheses and may hold anything: fields are counted after it.
        ticks += sum(map(int, read(f"/proc/{one}/stat").rpartition(")")[2].split()[11:13]))
    return ticks * 1_000_000 // TICKS_A_SECOND


def rss_bytes(process):
    """Resident memory of a process and its living children."""
    pages = (read(f"/proc/{one}/statm").split() for one in tree(process))
    return sum(int(fields[1]) for fields in pages if fields) * PAGE_BYTES
