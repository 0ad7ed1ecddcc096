#!/usr/bin/env python3
"""Bench results side by side: a row for each shape, a column for each implementation.

    bench/table.py lab.json --op linear
    bench/table.py lab.json --op attention --counter ratio --columns flash_wgmma,torch_cudnn --hide heads,kv_heads
    bench/table.py --update docs/benchmarking.md
    bench/table.py --check docs/benchmarking.md

Takes the JSON of `vlr lab time`, of vlr bench and of reference_gpu.py. Of repeated runs it shows the median, and after it, where the
runs differ by more than 2 %, half the distance from the fastest to the slowest. A bench that failed is FAILED, and a row
of fewer than three runs is refused (--few shows it).

In a page, "<!-- table ARGUMENTS -->" stands in front of the table that these arguments print, files relative to
bench/results. --update writes such tables anew; --check ends with 1 if one is another than its files say.
"""
import argparse
import json
import math
import re
import shlex
import statistics
import sys
from collections import defaultdict
from pathlib import Path

FAILED = math.nan
LEAST_RUNS = 3
MICROSECONDS = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}
RESULTS = Path(__file__).resolve().parent / "results"
LAB_COUNTERS = {"TFLOP/s": "tflops", "GB/s": "gbytes_per_s", "W": "watts", "MHz": "sm_mhz"}


class Refused(Exception):
    pass


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
            cell += value if isinstance(value, list) else [value] * LEAST_RUNS
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
        if counter in MICROSECONDS:
            value = row["real_time"] * MICROSECONDS[row["time_unit"]] / MICROSECONDS[counter]
        else:
            value = row.get(counter)
        if row.get("error_occurred"):
            value = FAILED
        if value is not None:
            cells[op, shape][implementation].append(value)
    return cells


def show(values, counter):
    if not values:
        return "-"
    if any(math.isnan(value) for value in values):
        return "FAILED"
    if counter in ("ratio", "control"):
        return f"{values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]"
    median = statistics.median(values)
    spread = (max(values) - min(values)) / 2
    digits = 0 if median >= 1000 else 1 if median >= 10 else 2
    return f"{median:.{digits}f}" + (f" ±{spread:.{digits}f}" if spread > 0.01 * median else "")


def parser():
    out = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    out.add_argument("files", nargs="*", type=Path)
    out.add_argument("--counter", type=lambda text: text.split(","), default=["us"],
                     help="us, ms, TFLOP/s, GB/s, roof_pct, ratio, W, pairs/s, ..., or several; us")
    out.add_argument("--op", action="append", help="only this one; may be given again")
    out.add_argument("--row", help="only shapes in which this regular expression is found")
    out.add_argument("--columns", type=lambda text: text.split(","), help="only these implementations, in this order")
    out.add_argument("--hide", type=lambda text: text.split(","), default=[], help="axes that shapes are shown without")
    out.add_argument("--few", action="store_true", help=f"show rows of fewer than {LEAST_RUNS} runs, too")
    out.add_argument("--update", nargs="+", type=Path, metavar="PAGE", help="write the tables of pages anew")
    out.add_argument("--check", nargs="+", type=Path, metavar="PAGE", help="are the tables of pages those of their files?")
    return out


def tables(options):
    cells = defaultdict(lambda: defaultdict(list))  # (op, shape) -> (counter, implementation) -> figures
    for counter in options.counter:
        for path in options.files:
            for row, implementations in read(path, counter).items():
                if options.op and row[0] not in options.op or options.row and not re.search(options.row, row[1]):
                    continue
                for implementation, values in implementations.items():
                    if not options.columns or implementation in options.columns:
                        cells[row][counter, implementation] += values
    few = [f"{op}/{i}/{shape}: {len(v)}" for (op, shape), c in cells.items() for (_, i), v in c.items() if 0 < len(v) < LEAST_RUNS]
    if few and not options.few:
        raise Refused(f"{len(few)} rows of fewer than {LEAST_RUNS} runs (--benchmark_repetitions), as {few[0]}")
    out = []
    for op in dict.fromkeys(op for op, _ in cells):
        rows = {shape: c for (o, shape), c in cells.items() if o == op}
        columns = sorted(dict.fromkeys(i for c in rows.values() for i, values in c.items() if values), key=lambda i: options.counter.index(i[0]))
        if options.columns:
            columns = [(counter, name) for counter in options.counter for name in options.columns if (counter, name) in columns]
        one = len(options.counter) == 1
        heads = [name if one else f"{name}, {counter}" for counter, name in columns]
        lines = [f"| {op}, {options.counter[0]} |" if one else f"| {op} |", "|" + "---|" * (len(columns) + 1)]
        lines[0] += "".join(f" {head} |" for head in heads)
        for shape, c in rows.items():
            hidden = re.sub(f",?({'|'.join(options.hide)})=[^,]*", "", shape) if options.hide else shape
            lines.append(f"| {hidden} | " + " | ".join(show(c.get(i), i[0]) for i in columns) + " |")
        out.append("\n".join(lines))
    return "\n\n".join(out)


def page_with_tables(path):
    def table(match):
        options = parser().parse_args(shlex.split(match[2]))
        options.files = [RESULTS / file for file in options.files]
        return match[1] + tables(options) + "\n"
    return re.sub(r"(<!-- table (.*?) -->\n)(?:\|.*\n)*", table, path.read_text())


def main():
    options = parser().parse_args()
    try:
        if not options.update and not options.check:
            print("\n" + tables(options))
        for page in options.update or []:
            page.write_text(page_with_tables(page))
        others = [str(page) for page in options.check or [] if page.read_text() != page_with_tables(page)]
    except Refused as why:
        sys.exit(str(why))
    if others:
        sys.exit(f"{', '.join(others)}: a table is not what its files say; bench/table.py --update writes it anew")


if __name__ == "__main__":
    main()
