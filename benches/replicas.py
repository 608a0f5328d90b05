#!/usr/bin/env python3
"""Several server processes on one Postgres: is each item assigned exactly once? Standard library only.

  replicas.py [--binary PATH] [--servers 4] [--clients 64] [--items 10000] [--rounds 20]

Each round queues ITEMS, lets CLIENTS claim from all servers until each gets the response that the queue is empty, and counts.
Then two of the four are killed in the middle of a round: what they had acknowledged must be there, the rest is assigned once.
"""
import argparse, collections, http.client, json, pathlib, random, shutil, threading, time
from bench import Database, HERE, Service


def claim_all(port, got, responses):
    """Claims until the queue is empty or the server is gone; a claim counts when its response arrived."""
    c = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    while True:
        try:
            c.request("POST", "/active-runs", "{}", {"Content-Type": "application/json"})
            r = c.getresponse()
            body = json.loads(r.read())
        except (OSError, http.client.HTTPException, ValueError):
            responses.append("gone")
            return
        if r.status != 201:
            responses.append(body.get("reason", r.status))
            return
        got.append((body["queue_id"], body["id"]))


def round_of(services, clients, kill=0):
    got, responses = [], []
    threads = [threading.Thread(target=claim_all, args=(services[i % len(services)].port, got, responses)) for i in range(clients)]
    started = time.monotonic()
    for t in threads:
        t.start()
    for victim in random.sample(services, kill):
        time.sleep(random.uniform(0.2, 0.6))
        victim.process.kill()
        victim.process.wait()
    for t in threads:
        t.join()
    return got, collections.Counter(responses), time.monotonic() - started


def queue(service, name, items):
    names = [f"{name}-{i}" for i in range(items)]
    assert service.call("POST", "/codebases", [{"name": n} for n in names])[0] == 200
    status, body = service.call("POST", "/candidates", [{"codebase": n, "campaign": "gen"} for n in names])
    assert status == 200 and len(json.loads(body)["success"]) == items


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--binary", default=str(HERE.parent / "target/release/janitor-runner"))
    p.add_argument("--servers", type=int, default=4)
    p.add_argument("--clients", type=int, default=64)
    p.add_argument("--items", type=int, default=10000)
    p.add_argument("--rounds", type=int, default=20)
    a = p.parse_args()
    database = Database(a.binary)
    services, wrong = [], 0
    try:
        url = database.fresh()
        services = [Service(a.binary, url) for _ in range(a.servers)]
        for number in range(a.rounds):
            queue(services[0], f"round-{number}", a.items)
            got, responses, seconds = round_of(services, a.clients)
            items = collections.Counter(item for item, _ in got)
            exact = len(got) == a.items and len(items) == a.items
            wrong += not exact
            # The next round begins with nothing claimed.
            for text in ["delete from queue", "delete from runner_active_run", "vacuum queue", "vacuum runner_active_run"]:
                database.sql(url, text)
            print(f"round {number + 1}: {len(got)} claims of {len(items)} items, {len(got) / seconds:.0f} a second; {dict(responses)}"
                  f"{'' if exact else '  WRONG'}", flush=True)
        queue(services[0], "killed", a.items)
        got, responses, _ = round_of(services, a.clients, kill=2)
        alive = [s for s in services if s.process.poll() is None]
        more, _, _ = round_of(alive, a.clients)
        got += more
        active = {run["id"] for run in json.loads(alive[0].call("GET", "/active-runs")[1])}
        twice = [item for item, count in collections.Counter(item for item, _ in got).items() if count > 1]
        lost = [run for _, run in got if run not in active]
        missing = a.items - len(got)
        # A claim whose response was lost with its server stays active until its lease expires.
        wrong += bool(twice or lost) or missing > a.clients
        print(f"two of {a.servers} killed: {len(got)} claims acknowledged, {len(twice)} twice, {len(lost)} lost, {missing} claimed without a response ({dict(responses)})")
        print("exactly once" if not wrong else f"{wrong} rounds WRONG")
        raise SystemExit(bool(wrong))
    finally:
        for service in services:
            service.process.kill()
            shutil.rmtree(service.home, ignore_errors=True)
        database.stop()


if __name__ == "__main__":
    main()
