#!/usr/bin/env python3
"""Writes the outcomes of tests/it/faults/workers into docs/faults.md; `make faults` runs it after these tests."""
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- made by the tests: begin -->", "<!-- made by the tests: end -->"


def main():
    rows = [path.read_text() for path in sorted((ROOT / "target/fault-rows").iterdir())]
    if not rows:
        raise SystemExit("the tests left no rows: run `make faults`")
    table = "| broken | how | store | the run |\n| --- | --- | --- | --- |\n" + "".join(rows)
    page = ROOT / "docs/faults.md"
    before, after = page.read_text().split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table}{END}{after.split(END)[1]}")


if __name__ == "__main__":
    main()
