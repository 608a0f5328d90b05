#!/usr/bin/env python3
"""The demo on the stores of a production deployment: Postgres, Redis and a fake GCS, started for it alone and stopped after it.

  demo_production.py [--binary PATH]      (make demo-production builds and installs what it needs)
"""
import argparse, json, pathlib, subprocess, sys, tempfile, urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
SETTINGS = """store = "{database}"
events = "{redis}"
coordination = "{redis}"
artifacts = "gs://janitor-artifacts/"
logs = "gs://janitor-logs/"
backup_directory = "{backup}"
gcs = {{ endpoint = "{gcs}", credentials = "anonymous" }}
"""


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--binary", default=str(ROOT / "target/release/janitor-runner"))
    a = p.parse_args()
    servers = subprocess.Popen([sys.executable, ROOT / "tests/servers.py", "private", "postgres", "redis", "gcs"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        found = json.loads(servers.stdout.readline())
        gcs = found["gcs"]["url"]
        for bucket in ["janitor-artifacts", "janitor-logs"]:
            body = json.dumps({"name": bucket}).encode()
            urllib.request.urlopen(urllib.request.Request(f"{gcs}/storage/v1/b", body, {"Content-Type": "application/json"})).close()
        with tempfile.TemporaryDirectory(prefix="janitor-demo-") as home:
            settings = pathlib.Path(home, "production.toml")
            settings.write_text(SETTINGS.format(database=found["postgres"]["url"], redis=found["redis"]["url"], gcs=gcs, backup=home + "/backup"))
            print(f"Postgres at port {found['postgres']['port']}, Redis at {found['redis']['port']}, a fake GCS at {found['gcs']['port']}.", flush=True)
            for command in [["migrate", "--config", settings], ["check", "--config", settings], ["demo", "--config", settings]]:
                print("\n$ janitor-runner " + " ".join(map(str, command)), flush=True)
                code = subprocess.run([a.binary, *command], cwd=home).returncode
                if code != 0:
                    raise SystemExit(code)
            objects = json.load(urllib.request.urlopen(f"{gcs}/storage/v1/b/janitor-artifacts/o"))["items"]
            print(f"In the bucket janitor-artifacts: {len(objects)} objects, such as {objects[0]['name']}.")
    finally:
        servers.stdin.close()
        servers.wait(30)


if __name__ == "__main__":
    main()
