#!/usr/bin/env python3
"""Puts what the tests of tests/it/faults/workers.rs came to into docs/faults.md; run by `make faults` after them."""
import pathlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- made by the tests: begin -->", "<!-- made by the tests: end -->"


def main():
    rows = [path.read_text() for path in sorted((ROOT / "target/fault-rows").iterdir())]
    if not rows:
        raise SystemExit("the tests left no rows: run `make faults`")
    table = "| broken | how | store | the run |\n| --- | --- | --- | --- |\n" + "".join(rows)
    page = ROOT / "docs/faults.md"
    before, rest = page.read_text().split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n{table}{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
