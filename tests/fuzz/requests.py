#!/usr/bin/env python3
"""Random requests by the API's own description, on both listeners of a running server, with real names, ids and logins.

  requests.py --admin URL --public URL [--pid PID] [--count N] [--seconds S] [--seed N] [--processes N] [--only N]
  requests.py --start sled|postgres [--program FILE] …     starts a server (and Postgres) for itself

Fails, and prints the requests, when a response is a 5xx other than 501 and 503 (or one that the description names for that
operation), when there is none, when the server has ended, or when its resident memory has grown by more than 64 MiB.

Request N of a seed is made of that seed and N alone, apart from the ids that the server has at that moment: `--seed S --only N`
sends it again. Only the standard library is needed.
"""
import argparse, base64, http.client, json, multiprocessing, os, pathlib, random, signal, socket, subprocess, sys, tempfile, time
import urllib.parse, urllib.request

ROOT = pathlib.Path(__file__).resolve().parents[2]
MAX_GROWTH = 64 << 20  # bytes of resident memory
FINE = {501, 503}
TIMEOUT = 20  # seconds for a response
LOGINS = [("fuzz-1", "secret one"), ("fuzz-2", "secret:two")]
CODEBASES = [f"fuzz{number}" for number in range(12)]
CAMPAIGNS = ["gen", "tidy", "nosuch"]
WARM_UP = 1500  # requests before memory is measured: caches of a fixed size fill up, and logins need their memory
REFRESH = 400  # requests of a process between two looks at the ids that there are

# The requests are refused by what they say, not for their number.
UNLIMITED = {"JANITOR_RUNNER_WORKERS__REFUSAL_DELAY_MILLISECONDS": "0", "JANITOR_RUNNER_WORKERS__MAX_REQUESTS_PER_SECOND": "0", "JANITOR_RUNNER_WORKERS__MAX_RUNS": "0"}

ODD_TEXT = ["", " ", "\0", "a\0b", "..", "../..", "/", "%", "%00", "a\nb", "a\r\nX: y", "\x1b[2J", "é", "\u202e", "\U0001f600", "'", '"', "`", "\\",
            "{}", "[]", "null", "true", "-1", "0", "1e999", "9" * 30, "x" * 300, "y" * 5000, "z" * 70000, "a,branch=b", "http://u:p@h/",
            "http://127.0.0.1:1/", "file:///etc/passwd", "2026-11-26T10:00:00", "0001-01-01", "99999-01-01T00:00:00Z", "*", "all", "host"]
ODD_VALUES = [None, True, False, 0, -1, 1, 2**31, 2**63, -2**63, 2**70, 1.5, -0.0, 1e308, [], {}, [[]], [None], {"": None}, {"a": {"b": {"c": [1]}}}]
ODD_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT", "get", "FOO", "M" * 200]
ODD_HEADERS = [("X-Request-Id", "x" * 300), ("X-Request-Id", "\xff"), ("Range", "bytes=5-"), ("Range", "bytes=9-1"), ("Content-Range", "bytes 0-4/*"),
               ("Content-Range", "bytes 5-0/*"), ("Content-Range", "bytes 0-18446744073709551615/*"), ("If-None-Match", "*"), ("Accept", "text/event-stream"),
               ("Accept", "application/json"), ("Accept-Encoding", "gzip"), ("Expect", "100-continue"), ("traceparent", "00-x"), ("Content-Type", "text/plain"),
               ("Content-Type", "multipart/form-data; boundary=" + "b" * 300), ("Date", "x"), ("Origin", "http://other.example"), ("Authorization", "Basic !!"),
               ("Authorization", "Bearer x"), ("Last-Event-ID", "-1"), ("X-" + "y" * 500, "z" * 3000)]


class Known:
    """The names and ids that the server has, which are worth asking for."""

    def __init__(self, admin):
        self.admin, self.ids = admin, {}
        self.refresh()

    def get(self, path):
        try:
            with urllib.request.urlopen(self.admin + path, timeout=TIMEOUT) as response:
                return json.load(response)
        except (OSError, ValueError):
            return []

    def refresh(self):
        runs, active, queue = self.get("/runs?limit=30"), self.get("/active-runs"), self.get("/queue?limit=30")
        ids = [run.get("id") or run.get("run_id") or run.get("log_id") for run in list(runs) + list(active) if isinstance(run, dict)]
        logs = [name for run in runs if isinstance(run, dict) for name in run.get("logfilenames") or []]
        self.ids = {"run": [i for i in ids if i] or ["nothing"], "queue": [item["queue_id"] for item in queue] or [1], "log": sorted(set(logs)) + ["worker.log", "a.log"],
                    "candidate": [c.get("id", 1) for c in self.get("/candidates?limit=30") if isinstance(c, dict)] or [1]}


class Maker:
    """Makes request number `number` of a seed."""

    def __init__(self, description, known, seed, number):
        self.description, self.known = description, known
        self.random = random.Random(f"{seed}/{number}")

    def chance(self, share):
        return self.random.random() < share

    def text(self, name=""):
        """A text for a field of that name: what is expected there, mostly."""
        r, name = self.random, name.lower()
        if self.chance(0.15):
            return r.choice(ODD_TEXT)
        pools = [("run_id", self.known.ids["run"]), ("codebase", CODEBASES), ("campaign", CAMPAIGNS), ("command", ["true", "tidy-up --all", "A=1 x", "'"]),
                 ("kind", ["campaign", "host", "codebase", "bucket", "worker"]), ("bucket", ["default", "manual", "control", "reschedule"]),
                 ("worker", ["w1", LOGINS[0][0]]), ("publish_status", ["approved", "rejected", "ignored"]), ("url", ["https://h.example/x.git", "git@h:x"]),
                 ("vcs", ["git", "bzr"]), ("action", ["reschedule", "deschedule", "reset", "worker.add", "run.kill"]), ("role", ["main"]), ("code", ["success", "nothing-to-do", "x"]),
                 ("revision", ["r1", "0" * 40]), ("time", ["2026-11-26T10:00:00"]), ("since", ["2026-11-26T10:00:00"]), ("until", ["2099-01-01T00:00:00"]),
                 ("cursor", ["1", "", "w1"]), ("name", CODEBASES + ["w1", "a.log"]), ("queue", [str(i) for i in self.known.ids["queue"]])]
        for part, pool in pools:
            if part in name:
                return str(r.choice(pool))
        return r.choice(["a", "text", "x y", "ä"])

    def resolve(self, schema):
        while "$ref" in schema:
            schema = self.description["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        return schema

    def value(self, schema, name="", depth=0):
        """A value that a schema describes, or with some chance another one."""
        r, schema = self.random, self.resolve(schema)
        if depth > 6 or self.chance(0.04):
            return r.choice(ODD_VALUES + ODD_TEXT)
        for key in ("oneOf", "anyOf"):
            if key in schema:
                return self.value(r.choice(schema[key]), name, depth + 1)
        if "allOf" in schema:
            merged = {}
            for part in schema["allOf"]:
                value = self.value(part, name, depth + 1)
                merged.update(value if isinstance(value, dict) else {})
            return merged
        if "enum" in schema and not self.chance(0.1):
            return r.choice(schema["enum"])
        kind = schema.get("type", "object")
        kind = r.choice(kind) if isinstance(kind, list) else kind
        if kind == "array":
            return [self.value(schema.get("items", {}), name, depth + 1) for _ in range(r.choice([0, 1, 1, 2, 5]))]
        if kind == "object":
            required = schema.get("required", [])
            fields = {key: self.value(of, key, depth + 1) for key, of in schema.get("properties", {}).items() if self.chance(0.97 if key in required else 0.5)}
            if self.chance(0.05):
                fields[r.choice(ODD_TEXT)] = r.choice(ODD_VALUES)
            return fields
        if kind == "integer":
            return r.choice([0, 1, 2, 5, 100, r.randrange(1000)])
        if kind == "number":
            return r.choice([0, 1.5, 100, r.random() * 1000])
        if kind == "boolean":
            return self.chance(0.5)
        return None if kind == "null" else self.text(name)

    def parameter(self, parameter, path):
        """The value of a parameter in a path or query."""
        r, name = self.random, parameter["name"]
        if self.chance(0.1):
            return r.choice(ODD_TEXT)
        if name == "wait":  # A longer one would only wait.
            return r.choice(["0", "0.1", "1", "-1", "x", ""])
        if name == "follow":
            return r.choice(["0", "0", "0", "x"])
        if name in ("id", "queue_id"):
            return str(r.choice(self.known.ids["candidate" if "candidate" in path else "queue"]))
        if name == "run_id" or (name == "id" and "log" in path):
            return str(r.choice(self.known.ids["run"]))
        if name in ("name", "filename", "log_name") and "log" in path:
            return r.choice(self.known.ids["log"])
        if name == "name" and "/admin/workers" in path:  # Not those that this program logs in as.
            return r.choice(["w1", "w2", "nobody", *CODEBASES])
        value = self.value(parameter.get("schema", {}), name)
        return value if isinstance(value, str) else json.dumps(value)

    def json_body(self, schema):
        text = json.dumps(self.value(schema), allow_nan=True, ensure_ascii=self.chance(0.8))
        if self.chance(0.05):
            text = self.random.choice([text[: len(text) // 2], text + "}", "", "[" * 5000, '{"a":' * 2000, '"\\ud800"', "NaN", '{"a":1,"a":2}', text.replace('"', "'"), "\ufeff" + text])
        return text.encode("utf-8", "surrogatepass")

    def report(self):
        fields = {"code": self.text("code"), "description": self.text(), "context": self.text(), "revision": self.text("revision"), "value": self.random.choice(ODD_VALUES),
                  "branches": self.random.choice([[], [["main", None, "r1", "r2"]], [["main", "b", None, None, 1]], "x"]), "tags": self.random.choice([[], [["t", "r"]], None]),
                  "target": self.random.choice([None, {"name": "generic", "details": {}}, {"name": "debian", "details": {"lintian": [1]}}, 5]), "failure_stage": self.random.choice(["build", ["a", "b"], 7]),
                  "start_time": self.text("time"), "finish_time": self.text("time"), "details": self.random.choice(ODD_VALUES)}
        fields = {key: value for key, value in fields.items() if self.chance(0.5)}
        return self.random.choice([json.dumps(fields), json.dumps(fields), json.dumps(fields), "", "{", "[]", "null"]).encode()

    def multipart(self):
        r, boundary = self.random, self.random.choice(["b", "----x", "a b"])
        parts = [("result.json", self.report())] * r.choice([0, 1, 1, 1, 1, 2])
        parts += [(r.choice(["worker.log", "a.log", "x.bin", "x.changes", "../x", "a\\b", "", "n" * 300, "ä.log"]), r.choice([b"", b"log\n", os.urandom(10), b"x" * 70000,
                   b"Source: a\nVersion: 1\nDistribution: u\nFiles:\n 0 0 x x x.bin\n"])) for _ in range(r.choice([0, 1, 2, 4]))]
        r.shuffle(parts)
        body = r.choice([b"", b"", b"preamble\r\n"])
        for name, content in parts:
            body += f'--{boundary}\r\nContent-Disposition: form-data; name="f"; filename="{name}"\r\n\r\n'.encode() + content + b"\r\n"
        body += f"--{boundary}--".encode()
        if self.chance(0.08):
            body = r.choice([body[: len(body) // 2], body.replace(b"\r\n", b"\n"), body + b"epilogue", b"--" + body, body.replace(b"filename", b"filename*")])
        return body, f'multipart/form-data; boundary="{boundary}"'

    def request(self):
        """Returns the listener, the operation, and the bytes of a request."""
        r, paths = self.random, self.description["paths"]
        path = r.choice(sorted(paths))
        method = r.choice([key for key in sorted(paths[path]) if key in ("get", "put", "post", "delete", "patch")])
        operation = paths[path][method]
        parameters = operation.get("parameters", [])
        target, query = path, []
        for parameter in parameters:
            if parameter["in"] == "path":
                target = target.replace("{%s}" % parameter["name"], urllib.parse.quote(self.parameter(parameter, path), safe=""))
            elif parameter["in"] == "query" and (parameter.get("required") or self.chance(0.5)) and not self.chance(0.02):
                query.append((parameter["name"], self.parameter(parameter, path)))
        if self.chance(0.03):
            query.append((r.choice(ODD_TEXT)[:50], r.choice(ODD_TEXT)[:2000]))
        if query:
            target += "?" + urllib.parse.urlencode(query)
        body, headers = b"", []
        content = operation.get("requestBody", {}).get("content", {})
        if path.endswith(("/finish", "/finish-multipart")):
            body, kind = self.multipart()
            headers.append(("Content-Type", kind))
        elif method == "patch":
            body = r.choice([b"", b"line\n", b"x" * 3000])
            start = r.choice([0, 0, 5, 10**6])
            headers += [("Content-Type", "text/plain"), ("Content-Range", f"bytes {start}-{start + max(len(body), 1) - 1}/*")]
        elif content:
            body = self.json_body(next(iter(content.values())).get("schema", {}))
            headers.append(("Content-Type", "application/json"))
        if self.chance(0.05):
            headers = [header for header in headers if self.chance(0.5)] + [r.choice(ODD_HEADERS) for _ in range(r.choice([1, 2]))]
        is_public = path.startswith("/runner")
        if is_public and not self.chance(0.002):
            headers.append(("Authorization", "Basic " + base64.b64encode(":".join(r.choice(LOGINS)).encode()).decode()))
        method = r.choice(ODD_METHODS) if self.chance(0.02) else method.upper()
        if self.chance(0.01):
            target = r.choice(["/", "//", "/%", "/%ff", "/a/../b", "*", "/" + "x" * 9000, target + "/", target.upper(), "http://h/"])
        head = f"{method} {target} HTTP/1.1\r\nHost: localhost\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers) + f"Content-Length: {len(body)}\r\n\r\n"
        return is_public, operation, method, head.encode("latin-1", "replace") + body


class Connection:
    """A connection to one listener, opened again when needed."""

    def __init__(self, url):
        parts = urllib.parse.urlsplit(url)
        self.address, self.socket = (parts.hostname, parts.port), None

    def close(self):
        if self.socket:
            self.socket.close()
        self.socket = None

    def send(self, method, request):
        """Returns the status; the connection may have been closed by the server since the last response, so there is a second attempt."""
        for attempt in (1, 2):
            is_new = self.socket is None
            try:
                self.socket = self.socket or socket.create_connection(self.address, TIMEOUT)
                try:
                    self.socket.sendall(request)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # The response may have come before the end of the request.
                response = http.client.HTTPResponse(self.socket, method=method)
                response.begin()
                body = response.read()
                if response.will_close or response.status >= 400:
                    self.close()
                return response.status, body
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if is_new or isinstance(error, TimeoutError) or attempt == 2:
                    return None, repr(error).encode()


def is_fine(status, operation):
    return status is not None and (status < 500 or status in FINE or str(status) in operation.get("responses", {}))


def work(options, process, description, stop_at, results):
    """Sends the requests whose numbers are those of this process."""
    known = Known(options.admin)
    connections = {False: Connection(options.admin), True: Connection(options.public)}
    statuses, failures, succeeded, sent = {}, [], set(), 0
    numbers = [options.only] if options.only is not None else range(process, options.count, options.processes)
    for number in numbers:
        if time.monotonic() > stop_at or len(failures) >= 5:
            break
        if sent % REFRESH == 0:
            known.refresh()
        is_public, operation, method, request = Maker(description, known, options.seed, number).request()
        status, body = connections[is_public].send(method, request)
        sent += 1
        statuses[str(status)] = statuses.get(str(status), 0) + 1
        if status is not None and status < 300:
            succeeded.add(operation.get("operationId"))
        if not is_fine(status, operation):
            failures.append(f"seed {options.seed}, request {number} ({'public' if is_public else 'admin'}): {status} {body[:300]!r}\n  {request[:1500]!r}")
    results.put((sent, statuses, failures, succeeded))


def resident(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) << 10
    raise SystemExit("the server has ended")


def prepare(admin):
    def send(method, path, body):
        request = urllib.request.Request(admin + path, json.dumps(body).encode(), {"Content-Type": "application/json"}, method=method)
        try:
            urllib.request.urlopen(request, timeout=TIMEOUT).read()
        except urllib.error.HTTPError as error:
            if error.code != 409:  # It was there already.
                raise
    for name, password in [*LOGINS, ("w1", "p")]:
        send("POST", "/admin/workers", {"name": name, "password": password})
    send("POST", "/codebases", [{"name": name} for name in CODEBASES])
    send("POST", "/candidates", [{"codebase": name, "campaign": "gen"} for name in CODEBASES])


def fuzz(options):
    prepare(options.admin)
    with urllib.request.urlopen(options.admin + "/openapi.json", timeout=TIMEOUT) as response:
        description = json.load(response)
    if options.pid and options.only is None:
        warm_up = argparse.Namespace(**{**vars(options), "seed": -options.seed - 1, "count": WARM_UP, "processes": 1})
        work(warm_up, 0, description, time.monotonic() + 60, multiprocessing.Queue())
    before = resident(options.pid) if options.pid else 0
    results, started = multiprocessing.Queue(), time.monotonic()
    stop_at = started + options.seconds
    processes = [multiprocessing.Process(target=work, args=(options, number, description, stop_at, results)) for number in range(1 if options.only is not None else options.processes)]
    for process in processes:
        process.start()
    sent, statuses, failures = 0, {}, []
    never = {operation.get("operationId") for path in description["paths"].values() for operation in path.values() if isinstance(operation, dict)}
    for _ in processes:
        of_one, its_statuses, its_failures, succeeded = results.get()
        sent += of_one
        never -= succeeded
        failures += its_failures
        for status, count in its_statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    for process in processes:
        process.join()
    seconds = time.monotonic() - started
    if options.pid:
        time.sleep(1)
        growth = resident(options.pid) - before
        if growth > MAX_GROWTH:
            failures.append(f"seed {options.seed}: resident memory has grown by {growth >> 20} MiB from {before >> 20} MiB")
    else:
        growth = 0
    print(json.dumps({"seed": options.seed, "requests": sent, "seconds": round(seconds, 1), "statuses": dict(sorted(statuses.items())), "growth_mib": growth >> 20,
                      "never_succeeded": sorted(map(str, never))}))
    for failure in failures:
        print(failure)
    return 1 if failures or not sent else 0


def with_server(options):
    """Starts a server on a store of its own, fuzzes it, and stops it."""
    sys.path.insert(0, str(ROOT / "tests"))
    import servers
    options.program = options.program or str(ROOT / "target/release/janitor-runner")
    with tempfile.TemporaryDirectory() as home:
        postgres = None
        store = f"sled:{home}/db"
        if options.start == "postgres":
            postgres = subprocess.Popen([sys.executable, ROOT / "tests/servers.py", "private", "postgres"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            store = json.loads(postgres.stdout.readline())["postgres"]["url"]
            subprocess.run([options.program, "migrate", "--store", store], check=True, stdout=subprocess.DEVNULL)
        ports = servers.free_port(), servers.free_port()
        arguments = ["serve", "--config", str(ROOT / "tests/golden/campaigns.conf"), "--store", store, "--port", str(ports[0]), "--public-port", str(ports[1]),
                     "--artifacts", f"{home}/artifacts", "--logs", f"{home}/logs"]
        log = open(options.log, "w") if options.log else subprocess.DEVNULL
        server = subprocess.Popen([options.program, *arguments], env={**os.environ, "JANITOR_RUNNER_SPOOL": f"{home}/spool", **UNLIMITED}, stderr=log)
        try:
            options.admin, options.public, options.pid = f"http://127.0.0.1:{ports[0]}", f"http://127.0.0.1:{ports[1]}", server.pid
            servers.wait_for("the server", lambda: urllib.request.urlopen(options.admin + "/ready", timeout=5), server)
            return fuzz(options)
        finally:
            server.terminate()
            server.wait()
            if postgres:
                postgres.stdin.close()
                postgres.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--admin")
    parser.add_argument("--public")
    parser.add_argument("--pid", type=int)
    parser.add_argument("--start", choices=["sled", "postgres"])
    parser.add_argument("--program")
    parser.add_argument("--log")
    parser.add_argument("--count", type=int, default=10**9)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", type=int)
    options = parser.parse_args()
    # So that the servers end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    return with_server(options) if options.start else fuzz(options)


if __name__ == "__main__":
    sys.exit(main())
