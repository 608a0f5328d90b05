#!/usr/bin/env python3
"""Measures what watching costs: 1,000 active runs, a third of them with dead and a third with hanging backchannels. Standard library only.

  watch.py [--binary PATH] [--store sled|memory|postgres] [--runs 999]

Printed: how long it takes until every worker was pinged once, and how long an assignment takes meanwhile, compared with the
same active runs and nobody being pinged.
"""
import asyncio, http.client, json, re, threading, time
from bench import Arguments, free_port, percentile, serving

QUIET = 30  # seconds before a worker is pinged
WATCHED = 25  # seconds that are measured while they are


class Workers(threading.Thread):
    """Alive at /alive/N/log-id, silent at /hang/N/log-id."""

    def __init__(self):
        super().__init__(daemon=True)
        self.port, self.ids = free_port(), {}
        self.ready = threading.Event()
        self.start()
        self.ready.wait()

    async def serve(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                _, kind, number, _ = head.split(b" ")[1].decode().split("/")
                if kind == "hang":
                    await asyncio.sleep(3600)
                body = self.ids.get(int(number), "").encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def main(self):
        server = await asyncio.start_server(self.serve, "127.0.0.1", self.port, backlog=2048)
        self.ready.set()
        await server.serve_forever()

    def run(self):
        asyncio.run(self.main())


def pings(service):
    figures = service.call("GET", "/metrics")[1].decode()
    found = re.findall(r'backchannel_pings_total\{kind="http",outcome="(\w+)"\} (\d+)', figures)
    return {outcome: int(count) for outcome, count in found}


def assignments(service, seconds):
    """Milliseconds that assignments took, one after the other, each finished again."""
    c, times, end = http.client.HTTPConnection("127.0.0.1", service.port, timeout=60), [], time.monotonic() + seconds
    report = ('--m\r\nContent-Disposition: form-data; name="metadata"; filename="result.json"\r\n\r\n{"code": "success", "revision": "r"}\r\n--m--\r\n').encode()
    while time.monotonic() < end:
        began = time.monotonic()
        c.request("POST", "/active-runs", '{"worker": "w1"}', {"Content-Type": "application/json"})
        r = c.getresponse()
        body = json.loads(r.read())
        times.append((time.monotonic() - began) * 1000)
        assert r.status == 201, body
        c.request("POST", f"/active-runs/{body['id']}/finish", report, {"Content-Type": "multipart/form-data; boundary=m"})
        assert c.getresponse().read()
        time.sleep(0.005)
    return sorted(times)


def summary(times):
    p99 = percentile(times, 0.99)
    return f"p50 {percentile(times, 0.5):.2f} ms, p99 {p99:.2f} ms ({len(times)} assignments)", p99


def assign_all(service, workers, runs):
    """Active runs: a third with a worker that responds, a third with one that is gone, a third with one that hangs."""
    dead, began = free_port(), time.monotonic()
    for number in range(runs):
        url = [f"http://127.0.0.1:{workers.port}/alive/{number}/", f"http://127.0.0.1:{dead}/", f"http://127.0.0.1:{workers.port}/hang/{number}/"][number % 3]
        status, body = service.call("POST", "/active-runs", {"worker": "w1", "backchannel": {"kind": "http", "url": url}})
        assert status == 201, body
        workers.ids[number] = json.loads(body)["id"]
    print(f"{runs} active runs, claimed within {time.monotonic() - began:.1f} s: a third alive, a third dead, a third hanging")


def main():
    p = Arguments()
    p.add_argument("--runs", type=int, default=999)
    a = p.parse_args()
    with serving(a, f"\n[watch]\nping_after_seconds = {QUIET}\n") as service:
        service.call("POST", "/admin/workers", {"name": "w1", "password": "secret1"})
        names = [f"cb-{number}" for number in range(a.runs + 9000)]
        assert service.call("POST", "/codebases", [{"name": name} for name in names])[0] == 200
        assert service.call("POST", "/candidates", [{"codebase": name, "campaign": "gen"} for name in names])[0] == 200
        print(f"store {a.store}; {summary(assignments(service, 5))[0]} with no other active run")
        workers = Workers()
        assign_all(service, workers, a.runs)
        quiet, idle = summary(assignments(service, 10))
        while not pings(service):
            time.sleep(0.05)
        began, busy, round_took = time.monotonic(), [], None
        load = threading.Thread(target=lambda: busy.extend(assignments(service, WATCHED)))
        load.start()
        while load.is_alive():
            if round_took is None and sum(pings(service).values()) >= a.runs:
                round_took = time.monotonic() - began
            time.sleep(0.2)
        watched, p99 = summary(sorted(busy))
        print(f"every worker pinged once within {round_took:.1f} s of the first ({pings(service)})" if round_took else f"not all pinged: {pings(service)}")
        print(f"assignments while nobody is pinged: {quiet}\nassignments while workers are pinged: {watched}; p99 ratio {p99 / idle:.2f}")


if __name__ == "__main__":
    main()
