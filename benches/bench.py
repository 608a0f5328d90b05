#!/usr/bin/env python3
"""Measures a release build and prints the figures. Standard library and wrk only.

  bench.py [--binary PATH] [--queued N] [--seconds S] [--clients 1,8,32] [--store sled|redb|memory|postgres]

On postgres, it starts a server of its own (tests/servers.py, fsync on). Next to each measurement with cycle.lua, pg_limit.sh
does the same work as plain SQL in another database of that server: the ratio is what counts.

Start time and idle memory on an empty store; then N items queued over HTTP, cycles of assignment and finish by wrk with
cycle.lua; an upload of 10,000 candidates in one request; a 1 GiB upload and the memory that it takes.
Everything runs on this machine, the client too: compare figures of one run, not of different machines.
"""
import argparse, contextlib, http.client, json, os, pathlib, re, shutil, subprocess, sys, tempfile, time

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))
from servers import free_port

SETTINGS = """
[publish_policies]
default-policy = [{ role = "main", mode = "propose" }]
[[campaign]]
name = "gen"
command = "true"
default_empty = true
generic_build = {}
"""


class Database:
    """A Postgres server of our own, with a database for the service and one for pg_limit.sh."""

    def __init__(self, binary):
        servers = HERE.parent / "tests/servers.py"
        self.process = subprocess.Popen(["python3", servers, "private", "postgres", "--fsync"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.server = json.loads(self.process.stdout.readline())["postgres"]["url"]
        self.binary, self.number = binary, 0
        self.limit = self.fresh()
        tools = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"))[-1]
        self.env = {"PATH": f"{tools}:{os.environ['PATH']}"}

    def fresh(self):
        self.number += 1
        name = f"bench_{self.number}"
        subprocess.run(["psql", "-q", self.server, "-c", f"create database {name}"], check=True)
        url = self.server.rsplit("/", 1)[0] + "/" + name
        subprocess.run([self.binary, "migrate", "--store", url], check=True, stdout=subprocess.DEVNULL)
        return url

    def sql(self, url, text):
        subprocess.run(["psql", "-q", url, "-c", text], check=True)

    def limit_tps(self, clients, seconds):
        out = subprocess.run(["bash", HERE / "pg_limit.sh", self.limit, str(clients), str(seconds)], capture_output=True, text=True, env=self.env).stdout
        found = re.search(r"tps = ([0-9.]+)", out)
        return float(found.group(1)) if found else 0.0

    def stop(self):
        self.process.stdin.close()
        self.process.wait(30)


class Service:
    def __init__(self, binary, store, settings_too=""):
        self.home = tempfile.mkdtemp(prefix="janitor-bench-")
        self.port, self.public = free_port(), free_port()
        settings = os.path.join(self.home, "bench.toml")
        with open(settings, "w") as f:
            f.write(SETTINGS + settings_too)
        embedded = {engine: f"{engine}:{self.home}/db" for engine in ("sled", "redb")}
        store_url = {"memory": "memory:", **embedded}.get(store, store)
        env = {"PATH": os.environ["PATH"], "JANITOR_RUNNER_SPOOL": f"{self.home}/spool", "JANITOR_RUNNER_TELEMETRY__LOG": "warn"}
        self.command = [binary, "--config", settings, "--store", store_url, "--artifacts", f"{self.home}/artifacts", "--logs",
                        f"{self.home}/logs", "--port", str(self.port), "--public-port", str(self.public)]
        self.env = env
        self.start()

    def start(self):
        self.started = time.monotonic()
        self.process = subprocess.Popen(self.command, env=self.env)
        while True:
            try:
                if self.call("GET", "/ready")[0] == 200:
                    break
            except OSError:
                pass
            if self.process.poll() is not None:
                raise SystemExit("the service ended at its start")
            time.sleep(0.002)
        self.ready_after = time.monotonic() - self.started

    def call(self, method, path, body=None):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        c.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json"})
        r = c.getresponse()
        data = r.read()
        c.close()
        return r.status, data

    def memory(self, field="VmRSS"):
        with open(f"/proc/{self.process.pid}/status") as f:
            return int(re.search(field + r":\s+(\d+)", f.read()).group(1)) / 1024

    def reset_peak(self):
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as f:
            f.write("5")

    def stop(self):
        self.process.terminate()
        self.process.wait(40)

    def remove(self):
        self.stop()
        shutil.rmtree(self.home)


class Arguments(argparse.ArgumentParser):
    """The arguments that every benchmark has."""

    def __init__(self):
        super().__init__()
        self.add_argument("--binary", default=str(HERE.parent / "target/release/janitor-runner"))
        self.add_argument("--store", default="sled", choices=["sled", "redb", "memory", "postgres"])


@contextlib.contextmanager
def serving(a, settings_too=""):
    """A service on a new store of the requested kind, which is removed at the end."""
    with contextlib.ExitStack() as ending:
        store = a.store
        if store == "postgres":
            database = Database(a.binary)
            ending.callback(database.stop)
            store = database.fresh()
        service = Service(a.binary, store, settings_too)
        ending.callback(service.remove)
        yield service


def percentile(times, share):
    """The percentile of sorted times."""
    return times[min(len(times) - 1, int(len(times) * share))]


def seed(service, count):
    for start in range(0, count, 10000):
        names = [f"cb-{i}" for i in range(start, min(count, start + 10000))]
        assert service.call("POST", "/codebases", [{"name": n} for n in names])[0] == 200
        status, body = service.call("POST", "/candidates", [{"codebase": n, "campaign": "gen"} for n in names])
        assert status == 200 and len(json.loads(body)["success"]) == len(names)


def candidates_in_one_request(service, count=10000):
    names = [f"one-{count}-{i}" for i in range(count)]
    assert service.call("POST", "/codebases", [{"name": n} for n in names])[0] == 200
    started = time.monotonic()
    status, body = service.call("POST", "/candidates", [{"codebase": n, "campaign": "gen"} for n in names])
    seconds = time.monotonic() - started
    assert status == 200 and len(json.loads(body)["success"]) == count
    return seconds


def big_upload(service, size=1 << 30):
    status, body = service.call("POST", "/active-runs", {"worker": "w1"})
    assert status == 201, (status, body)
    run = json.loads(body)["id"]
    service.reset_peak()
    before = service.memory()
    mark = "bench-mark"
    report = json.dumps({"code": "success", "target": {"name": "generic", "details": {}}, "revision": "r"})
    head = (f'--{mark}\r\nContent-Disposition: form-data; name="metadata"; filename="result.json"\r\n\r\n{report}\r\n'
            f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="big.bin"\r\n\r\n').encode()
    tail = f"\r\n--{mark}--\r\n".encode()
    c = http.client.HTTPConnection("127.0.0.1", service.port, timeout=600)
    started = time.monotonic()
    c.putrequest("POST", f"/active-runs/{run}/finish")
    c.putheader("Content-Type", f"multipart/form-data; boundary={mark}")
    c.putheader("Content-Length", str(len(head) + size + len(tail)))
    c.endheaders()
    c.send(head)
    chunk = os.urandom(1 << 20)
    for _ in range(size >> 20):
        c.send(chunk)
    c.send(tail)
    r = c.getresponse()
    response = json.loads(r.read())
    seconds = time.monotonic() - started
    assert r.status == 201 and response["artifacts"] == ["big.bin"], response
    return seconds, service.memory("VmHWM") - before


def main():
    p = Arguments()
    p.add_argument("--queued", type=int, default=100000)
    p.add_argument("--seconds", type=int, default=20)
    p.add_argument("--clients", default="1,8,32")
    a = p.parse_args()
    database = Database(a.binary) if a.store == "postgres" else None
    try:
        measure(a, database)
    finally:
        if database:
            database.stop()


def measure(a, database):
    starts = []
    store_url = database.fresh() if database else a.store
    for _ in range(5):
        service = Service(a.binary, store_url)
        starts.append(service.ready_after * 1000)
        time.sleep(0.3)
        idle = service.memory()
        service.remove()
    print(f"store {a.store}: ready after {min(starts):.0f} to {max(starts):.0f} ms of start (5 starts, empty), {idle:.1f} MiB resident when idle")
    service = Service(a.binary, store_url)
    try:
        service.call("POST", "/admin/workers", {"name": "w1", "password": "secret1"})
        started = time.monotonic()
        seed(service, a.queued)
        print(f"{a.queued} codebases and candidates in requests of 10,000: {time.monotonic() - started:.1f} s")
        if database:
            database.sql(store_url, "vacuum analyze")
        for clients in a.clients.split(","):
            if database:
                tps = database.limit_tps(clients, a.seconds)
            service.reset_peak()
            out = subprocess.run(["wrk", "-t1", f"-c{clients}", f"-d{a.seconds}s", "-s", str(HERE / "cycle.lua"), f"http://127.0.0.1:{service.port}"],
                                 capture_output=True, text=True, check=True).stdout
            line = next(l for l in out.splitlines() if l.startswith("cycles/s"))
            print(f"{clients} clients, {a.queued} queued: {line}  peak memory {service.memory('VmHWM'):.0f} MiB")
            if database:
                cycles = float(line.split()[1])
                print(f"  pg_limit.sh on the same server: {tps:.0f} tps; ratio {cycles / tps if tps else 0:.2f}")
        times = []
        for i in range(0, a.queued, a.queued // 20):
            started = time.monotonic()
            service.call("GET", f"/queue/position?codebase=cb-{i}&campaign=gen")
            times.append((time.monotonic() - started) * 1000)
        times.sort()
        print(f"/queue/position, 20 codebases: median {times[len(times) // 2]:.1f} ms, slowest {times[-1]:.1f} ms")
        for count in [10000] + ([100000] if database else []):
            print(f"{count} candidates in one request: {candidates_in_one_request(service, count):.2f} s")
        seconds, growth = big_upload(service)
        print(f"1 GiB upload: {seconds:.1f} s, memory grew by {growth:.1f} MiB at the most")
        if a.store == "sled":
            service.stop()
            service.start()
            print(f"started again with all of it: ready after {service.ready_after * 1000:.0f} ms")
    finally:
        service.remove()


if __name__ == "__main__":
    main()
