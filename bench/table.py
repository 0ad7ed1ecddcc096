#!/usr/bin/env python3
"""Bench results side by side: a row for each shape, a column for each implementation.

    bench/table.py lab.json --op linear
    bench/table.py lab.json attention_torch.json --op attention --counter TFLOP/s

Takes the JSON of `vlr lab time`, of vlr bench and of reference_gpu.py. Of repeated runs it shows the median, and after it, where the
runs differ by more than 2 %, half the distance from the fastest to the slowest. A bench that failed is FAILED, and a row
of fewer than three runs is refused (--few shows it).
"""
import argparse
import json
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path

FAILED = math.nan
LEAST_RUNS = 3
MICROSECONDS = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}


LAB_COUNTERS = {"TFLOP/s": "tflops", "GB/s": "gbytes_per_s", "roof_pct": "roof_pct", "W": "watts", "MHz": "sm_mhz"}


def read_lab(rows, counter):
    """A row of the lab is the median of many samples with its interval: the three are its runs."""
    cells = defaultdict(lambda: defaultdict(list))
    for row in rows:
        label = f"{row['label']}/" if row["label"] else ""
        cell = cells[row["op"], f"{row['dtype']}/{label}{row['name'].rsplit('/', 1)[-1]}"][row["impl"]]
        if "error" in row:
            cell += [FAILED] * LEAST_RUNS
        elif counter == "us":
            cell += row["us"]
        elif (value := row.get(LAB_COUNTERS.get(counter, counter))) is not None:
            cell += [value] * LEAST_RUNS
    return cells


def read(path, counter):
    """-> (op, shape) -> implementation -> one figure a run"""
    cells = defaultdict(lambda: defaultdict(list))
    results = json.loads(path.read_text())
    if "rows" in results:
        return read_lab(results["rows"], counter)
    for row in results["benchmarks"]:
        if row.get("run_type") != "iteration":
            continue
        name = row["name"].removesuffix("/manual_time").removesuffix("/iterations:1").removesuffix("/real_time")
        op, implementation, shape = name.split("/", 2)
        value = row["real_time"] * MICROSECONDS[row["time_unit"]] if counter == "us" else row.get(counter)
        if row.get("error_occurred"):
            value = FAILED
        if value is not None:
            cells[op, shape][implementation].append(value)
    return cells


def show(values):
    if not values:
        return "-"
    if any(math.isnan(value) for value in values):
        return "FAILED"
    median = statistics.median(values)
    spread = (max(values) - min(values)) / 2
    digits = 0 if median >= 1000 else 1 if median >= 10 else 2
    return f"{median:.{digits}f}" + (f" ±{spread:.{digits}f}" if spread > 0.01 * median else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--counter", default="us", help="us, TFLOP/s, GB/s, roof_pct, pairs/s, ...; us")
    parser.add_argument("--op", action="append", help="only this one; may be given again")
    parser.add_argument("--few", action="store_true", help=f"show rows of fewer than {LEAST_RUNS} runs, too")
    options = parser.parse_args()
    cells = defaultdict(lambda: defaultdict(list))
    for path in options.files:
        for row, implementations in read(path, options.counter).items():
            if options.op and row[0] not in options.op:
                continue
            for implementation, values in implementations.items():
                cells[row][implementation] += values
    few = [f"{op}/{i}/{shape}: {len(v)}" for (op, shape), c in cells.items() for i, v in c.items() if len(v) < LEAST_RUNS]
    if few and not options.few:
        sys.exit(f"{len(few)} rows of fewer than {LEAST_RUNS} runs (--benchmark_repetitions), as {few[0]}")
    for op in dict.fromkeys(op for op, _ in cells):
        rows = {shape: c for (o, shape), c in cells.items() if o == op}
        columns = list(dict.fromkeys(i for c in rows.values() for i in c))
        print(f"\n| {op}, {options.counter} | " + " | ".join(columns) + " |\n|" + "---|" * (len(columns) + 1))
        for shape, c in rows.items():
            print(f"| {shape} | " + " | ".join(show(c.get(i)) for i in columns) + " |")


if __name__ == "__main__":
    main()
