#!/usr/bin/env python3
"""What forges that misbehave cost the workers of others: the time of assignments, without them and beside them.

  forges.py [--binary PATH] [--store sled|memory|postgres] [--items N] [--seconds S] [--rounds N]

Codebases are on eight hosts of this machine (127.0.0.1 to 127.0.0.8). 32 workers claim and finish runs: first while all hosts
answer, then while one hangs, one limits the rate of requests, one refuses connections and one has 500,000 refs and speaks
version 0 only. Only assignments on the four others are counted. Prints also the cycles/s when no host may be
probed, and when nearly all probes are answered from memory, what the service used of the processor for each probe, and how its memory grew.
"""
import asyncio, json, multiprocessing, os, statistics, time

from bench import Arguments, percentile, serving

HOSTS = [f"127.0.0.{number}" for number in range(1, 9)]
BAD = dict(zip(HOSTS[4:], ["hang", "limit", "refuse", "many"]))
ID = "1" * 40


def packet(text):
    return f"{len(text) + 4:04x}{text}".encode()


OFFER = packet("# service=git-upload-pack\n") + b"0000" + packet("version 2\n") + packet("ls-refs\n") + packet("fetch\n") + b"0000"
REFS = packet(f"{ID} HEAD symref-target:refs/heads/main\n") + packet(f"{ID} refs/heads/main\n") + b"0000"
MANY = (packet("# service=git-upload-pack\n") + b"0000" + packet(f"{ID} HEAD\0symref=HEAD:refs/heads/main\n")
        + b"".join(packet(f"{ID} refs/heads/b{number:06}\n") for number in range(500_000)) + b"0000")


def response(status, kind, body, more=""):
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode() + body


GOOD_OFFER = response("200 OK", "application/x-git-upload-pack-advertisement", OFFER)
GOOD_REFS = response("200 OK", "application/x-git-upload-pack-result", REFS)
MANY_REFS = response("200 OK", "application/x-git-upload-pack-advertisement", MANY)
LIMITED = response("429 Too Many Requests", "text/plain", b"slow down", "Retry-After: 600\r\n")


async def forge(host, port, mode):
    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                for line in head.split(b"\r\n"):
                    if line.lower().startswith(b"content-length:"):
                        await reader.readexactly(int(line.split(b":")[1]))
                if mode == "hang":
                    await asyncio.sleep(3600)
                answer = {"limit": LIMITED, "many": MANY_REFS}.get(mode) or (GOOD_REFS if head.startswith(b"POST") else GOOD_OFFER)
                for start in range(0, len(answer), 1 << 16):
                    writer.write(answer[start:start + (1 << 16)])
                    await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            writer.close()

    return await asyncio.start_server(serve, host, port, backlog=500)


def forges(hosts, bad, ports, port=0):
    """Serves some of the hosts, all at one port. Those that misbehave have a process of their own, so that they take nothing of the
    others but processor time."""
    async def run():
        servers, chosen = [], port
        for host in hosts:
            if bad.get(host) != "refuse":
                servers.append(await forge(host, chosen, bad.get(host)))
                chosen = servers[0].sockets[0].getsockname()[1]
        ports.put(chosen)
        await asyncio.sleep(3600)

    asyncio.run(run())


def seed(service, port, items, repositories):
    for start in range(0, items, 1000):
        rows = [{"name": f"{HOSTS[i % 8].replace('.', '-')}-{i}", "url": f"http://{HOSTS[i % 8]}:{port}/x{i % repositories}.git"}
                for i in range(start, min(items, start + 1000))]
        assert service.call("POST", "/codebases", rows)[0] == 200
        body = [{"codebase": row["name"], "campaign": "gen"} for row in rows]
        assert service.call("POST", "/candidates", body)[0] == 200


async def worker(port, end, times):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def call(path, kind, body):
        writer.write(f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
        return int(head[9:12]), await reader.readexactly(length)

    report = (b'--b\r\nContent-Disposition: form-data; name="f"; filename="result.json"\r\n\r\n{"code": "success"}\r\n--b--\r\n')
    while time.monotonic() < end:
        started = time.monotonic()
        status, body = await call("/active-runs", "application/json", b"{}")
        if status != 201:
            times.setdefault(status, []).append(0)
            await asyncio.sleep(0.2)
            continue
        run = json.loads(body)
        host = run["codebase"].rsplit("-", 1)[0].replace("-", ".")
        times.setdefault(host, []).append(time.monotonic() - started)
        status, _ = await call(f"/active-runs/{run['id']}/finish", "multipart/form-data; boundary=b", report)
        assert status == 201, status
    writer.close()


def processor_time(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(a, bad, probing, repositories=None):
    ports, processes = multiprocessing.Queue(), []

    def start(*args):
        processes.append(multiprocessing.Process(target=forges, args=args, daemon=True))
        processes[-1].start()
        return ports.get()

    port = start(HOSTS[:4], bad, ports)
    start(HOSTS[4:], bad, ports, port)
    allowed = '["*"]' if probing else "[]"
    try:
        with serving(a, f'[vcs]\nallowed_hosts = {allowed}\nallowed_networks = ["127.0.0.0/8"]\n') as service:
            seed(service, port, a.items, repositories or a.items)
            before, used = service.memory(), processor_time(service.process.pid)
            times, end = {}, time.monotonic() + a.seconds

            async def run():
                # The last ones end when the host that hangs is given up.
                await asyncio.gather(*(worker(service.port, end, times) for _ in range(32)))

            asyncio.run(run())
            used = processor_time(service.process.pid) - used
            good = sorted(time for host in HOSTS[:4] for time in times.get(host, []))
            cycles = sum(len(found) for host, found in times.items() if host in HOSTS)
            failed = [run for run in json.loads(service.call("GET", "/runs?limit=1000")[1]) if run["code"] != "success"]
            return {"p50 ms": round(1000 * percentile(good, 0.5), 1), "p99 ms": round(1000 * percentile(good, 0.99), 1),
                    "good": len(good), "cycles/s": round(cycles / a.seconds), "processor ms a cycle": round(1000 * used / max(1, cycles), 2),
                    "growth MiB": round(service.memory() - before, 1), "failed runs": len(failed)}
    finally:
        for process in processes:
            process.terminate()
            process.join()


def main():
    arguments = Arguments()
    arguments.add_argument("--items", type=int, default=10_000)
    arguments.add_argument("--seconds", type=float, default=15)
    arguments.add_argument("--rounds", type=int, default=3)
    a = arguments.parse_args()
    ratios, costs, memory = [], [], []
    for number in range(a.rounds):
        cached, alone, beside = measure(a, {}, False), measure(a, {}, True), measure(a, BAD, True)
        # Few repositories, of which all but the first probes are answered from memory.
        remembered = measure(a, {}, True, repositories=64)
        memory.append(remembered["cycles/s"] / cached["cycles/s"])
        ratios.append(beside["p99 ms"] / alone["p99 ms"])
        costs.append(alone["processor ms a cycle"] - cached["processor ms a cycle"])
        print(f"round {number + 1}\n  not probed {cached}\n  from memory {remembered}\n  all answer {alone}\n  four do not {beside}", flush=True)
    print(f"p99 beside hosts that misbehave / without: {statistics.median(ratios):.2f}; "
          f"processor for a probe: {statistics.median(costs):.2f} ms; cycles/s with probes answered from memory / not probed: "
          f"{statistics.median(memory):.2f} (medians of {a.rounds})")


if __name__ == "__main__":
    main()
