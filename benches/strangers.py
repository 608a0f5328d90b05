#!/usr/bin/env python3
"""What strangers cost the workers: cycles/s on the public listener, alone and beside strangers.

  strangers.py [--binary PATH] [--store sled|memory|postgres] [--queued N] [--seconds S] [--rounds N]

Each round measures 8 workers that claim and finish runs (wrk with cycle.lua) alone, beside 300 connections that guess passwords,
beside 500 that say nothing, and beside 16 that ask for the public statistics of the queue. The strangers run in a process of
their own on this machine, so that they take processor time from the service too; each does no more than 2,000 requests a second.
A run that one of the workers claimed before the strangers came is kept alive all the time, and must still be active at the end.
"""
import asyncio, base64, json, multiprocessing, statistics, subprocess, time

from bench import HERE, Arguments, seed, serving

LOGIN = "Basic " + base64.b64encode(b"w1:secret1").decode()
SETTINGS = "[workers]\nmax_runs = 0\nmax_requests_per_second = 0\n"
MOST_REQUESTS = 2000


def strangers(kind, port, count, ready, end):
    asyncio.run(be_strangers(kind, port, count, ready, end))


async def be_strangers(kind, port, count, ready, end):
    answers, open_connections = {}, 0

    async def one(number):
        nonlocal open_connections
        attempt = 0
        while not end.is_set():
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.2)
                continue
            open_connections += 1
            try:
                while not end.is_set():
                    if kind == "silent":
                        # Until the server closes it.
                        await asyncio.wait_for(reader.read(1), 0.5)
                        await asyncio.sleep(0.2)
                        break
                    attempt += 1
                    await ask(reader, writer, kind, f"{number} {attempt}", answers)
                    await asyncio.sleep(count / MOST_REQUESTS)
            except asyncio.TimeoutError:
                while kind == "silent" and not end.is_set() and not reader.at_eof():
                    await asyncio.sleep(0.2)
            except (OSError, asyncio.IncompleteReadError):
                await asyncio.sleep(0.2)
            finally:
                open_connections -= 1
                writer.close()

    tasks = [asyncio.create_task(one(number)) for number in range(count)]
    await asyncio.sleep(1.5)
    ready.put(open_connections)
    while not end.is_set():
        await asyncio.sleep(0.1)
    await asyncio.wait(tasks, timeout=3)
    ready.put(answers)


async def ask(reader, writer, kind, guess, answers):
    if kind == "guesses":
        login = base64.b64encode(f"w{len(guess) % 3}:{guess}".encode()).decode()
        head = f"POST /runner/active-runs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic {login}\r\nContent-Length: 0\r\n\r\n"
    else:
        head = "GET /queue/stats HTTP/1.1\r\nHost: localhost\r\n\r\n"
    writer.write(head.encode())
    await writer.drain()
    answer = await reader.readuntil(b"\r\n\r\n")
    length = next((int(line.split(b":")[1]) for line in answer.split(b"\r\n") if line.lower().startswith(b"content-length:")), 0)
    await reader.readexactly(length)
    status = answer.split(b" ")[1].decode()
    answers[status] = answers.get(status, 0) + 1


def cycles(service, seconds):
    command = ["wrk", "-t1", "-c8", f"-d{seconds}s", "-s", str(HERE / "cycle.lua"), f"http://127.0.0.1:{service.public}",
               "--", "10240", "/runner", LOGIN]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return float(next(line for line in out.splitlines() if line.startswith("cycles/s")).split()[1])


def beside(service, kind, count, seconds):
    """Cycles/s while there are strangers."""
    context = multiprocessing.get_context("fork")
    ready, end = context.Queue(), context.Event()
    process = context.Process(target=strangers, args=(kind, service.public, count, ready, end))
    process.start()
    try:
        connected = ready.get(timeout=30)
        found = cycles(service, seconds)
        end.set()
        answers = ready.get(timeout=30)
        process.join(20)
    finally:
        end.set()
        if process.is_alive():
            process.kill()
    return found, connected, answers


def main():
    p = Arguments()
    p.add_argument("--queued", type=int, default=60000)
    p.add_argument("--seconds", type=int, default=6)
    p.add_argument("--rounds", type=int, default=3)
    a = p.parse_args()
    with serving(a, SETTINGS) as service:
        assert service.call("POST", "/admin/workers", {"name": "w1", "password": "secret1"})[0] == 201
        seed(service, a.queued)
        status, body = service.call("POST", "/active-runs", {"worker": "w1", "lease": True})
        assert status == 201, body
        held = json.loads(body)["id"]
        ratios = {}
        for _ in range(a.rounds):
            alone = cycles(service, a.seconds)
            print(f"alone: {alone:.0f} cycles/s")
            for kind, count in (("guesses", 300), ("silent", 500), ("stats", 16)):
                found, connected, answers = beside(service, kind, count, a.seconds)
                ratios.setdefault(kind, []).append(found / alone)
                print(f"beside {count} {kind} ({connected} connected, answers {answers}): {found:.0f} cycles/s, {found / alone:.2f} of alone", flush=True)
                status, body = service.call("POST", f"/active-runs/{held}/keepalive", {})
                assert status == 200, (status, body)
                time.sleep(1)
        for kind, found in ratios.items():
            print(f"{kind}: median {statistics.median(found):.2f} of alone")
        assert all(statistics.median(found) >= 0.6 for found in ratios.values()), "less than 60 % of alone"
        print("no lease was lost")


if __name__ == "__main__":
    main()
