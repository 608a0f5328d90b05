#!/usr/bin/env python3
"""Measures what thousands of waiting workers cost, and how soon an item reaches one. Standard library only.

  idle.py [--binary PATH] [--store sled|memory|postgres] [--workers 2000] [--items 600] [--every 0.03]

WORKERS connections wait with wait=50. Printed: the memory and processor time of the server while nothing comes; then ITEMS
items are added, one at a time, and for each it is measured how long it takes from the request that adds it to the response
that assigns it. A worker that got an item polls again immediately.
"""
import asyncio, json, os, resource, time
from bench import Arguments, percentile, serving


def processor_seconds(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def read_response(reader):
    """Returns the status and body of one HTTP response."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = next(int(line.split(":")[1]) for line in head.split("\r\n") if line.lower().startswith("content-length:"))
    return int(head.split(" ", 2)[1]), await reader.readexactly(length)


def request(path, body):
    data = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


class Crowd:
    def __init__(self, port):
        self.port, self.got, self.waiting, self.wrong = port, {}, 0, []

    async def worker(self, number):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        poll = request("/active-runs?wait=50", {"worker": f"w{number}"})
        while True:
            writer.write(poll)
            self.waiting += 1
            status, body = await read_response(reader)
            self.waiting -= 1
            if status == 201:
                self.got[json.loads(body)["codebase"]] = time.monotonic()
            elif status != 503 or b"queue empty" not in body:
                self.wrong.append((status, body))

    async def add(self, items, every):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        added = {}
        for number in range(items):
            added[f"item-{number}"] = time.monotonic()
            writer.write(request("/candidates", [{"codebase": f"item-{number}", "campaign": "gen"}]))
            status, body = await read_response(reader)
            assert status == 200 and len(json.loads(body)["success"]) == 1, body
            await asyncio.sleep(every)
        return added


async def measure(service, a):
    pid = service.process.pid
    crowd, before = Crowd(service.port), service.memory()
    workers = []
    for number in range(a.workers):
        workers.append(asyncio.create_task(crowd.worker(number)))
        if number % 100 == 99:
            await asyncio.sleep(0.05)
    while crowd.waiting < a.workers:
        await asyncio.sleep(0.05)
    await asyncio.sleep(3)
    grown, began, used = service.memory() - before, time.monotonic(), processor_seconds(pid)
    await asyncio.sleep(20)
    share = (processor_seconds(pid) - used) / (time.monotonic() - began)
    print(f"{a.workers} workers wait: {grown * 1024 / a.workers:.1f} KiB each ({before:.1f} MiB before, {before + grown:.1f} MiB with them), "
          f"{share * 100:.2f} % of a core")
    added = await crowd.add(a.items, a.every)
    await asyncio.sleep(2)
    times = sorted((crowd.got[name] - when) * 1000 for name, when in added.items() if name in crowd.got)
    print(f"{len(times)} of {a.items} items assigned, from the request that adds one to the response that assigns it: "
          f"p50 {percentile(times, 0.5):.1f} ms, p99 {percentile(times, 0.99):.1f} ms, slowest {times[-1]:.1f} ms")
    if crowd.wrong:
        print("unexpected:", crowd.wrong[:3])
    for worker in workers:
        worker.cancel()


def main():
    p = Arguments()
    p.add_argument("--workers", type=int, default=2000)
    p.add_argument("--items", type=int, default=600)
    p.add_argument("--every", type=float, default=0.03)
    a = p.parse_args()
    with serving(a) as service:
        # This raises the limit of this process alone: the server has started with its own.
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        assert service.call("POST", "/codebases", [{"name": f"item-{number}"} for number in range(a.items)])[0] == 200
        print(f"store {a.store}")
        asyncio.run(measure(service, a))


if __name__ == "__main__":
    main()
