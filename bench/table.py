#!/usr/bin/env python3
"""Bench results side by side: a row for each shape, a column for each implementation.

    bench/table.py lab.json --op linear
    bench/table.py lab.json --op attention --counter ratio --columns flash_wgmma,torch_cudnn --hide heads,kv_heads
    bench/table.py --update docs/benchmarking.md
    bench/table.py --check docs/benchmarking.md

Takes the JSON of `vlr lab time`, of vlr bench and of reference_gpu.py. Of repeated runs it shows the median, and after it, where the
runs differ by more than 2 %, half the distance from the fastest to the slowest. A bench that failed is FAILED, and a row
of fewer than three runs is refused (--few shows it); of the lab's rows `samples` are the runs. So is what is asked for and is not
there, and an implementation that has the same shape twice.

In a page, "<!-- table ARGUMENTS -->" on a line of its own stands in front of the one table that these arguments print, files relative
to bench/results. --update writes such tables anew; --check ends with 1 if one is another than its files say.
"""
import argparse
import json
import math
import re
import shlex
import statistics
import sys
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

FAILED = math.nan
LEAST_RUNS = 3
MICROSECONDS = {"ns": 1e-3, "us": 1.0, "ms": 1e3, "s": 1e6}
RESULTS = Path(__file__).resolve().parent / "results"
LAB_COUNTERS = {"TFLOP/s": "tflops", "GFLOP/s": "gflops", "GB/s": "gbytes_per_s", "W": "watts", "MHz": "sm_mhz"}


class Refused(Exception):
    pass


@dataclass
class Cell:
    """Figures of one implementation at one shape."""
    values: list = field(default_factory=list)
    runs: int = 0
    is_ratio: bool = False  # value, low, high
    repetitions: set = field(default_factory=set)

    def failed(self):
        return any(math.isnan(value) for value in self.values)


def figure(value):
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{json.dumps(value)[:80]} is no figure")
    return float(value)


def read_lab(rows, counter):
    """A row of the lab is the median of many samples with its interval."""
    for row in rows:
        label = f"{row['label']}/" if row["label"] else ""
        key = row["op"], f"{row['dtype']}/{label}{row['name'].rsplit('/', 1)[-1]}", row["impl"]
        if "tflops" in row:
            row["gflops"] = figure(row["tflops"]) * 1e3
        values = []
        if "error" in row:
            values = [FAILED]
        elif counter in MICROSECONDS:
            values = [figure(us) / MICROSECONDS[counter] for us in row["us"]]
        elif (value := row.get(LAB_COUNTERS.get(counter, counter))) is not None:
            values = [figure(v) for v in value] if isinstance(value, list) else [figure(value)]
        is_ratio = counter in ("ratio", "control") and len(values) == 3
        yield key, None, Cell(values, int(row.get("samples", LEAST_RUNS)), is_ratio)


def read_runs(rows, counter):
    """A row of Google Benchmark's form is one run."""
    for number, row in enumerate(rows):
        if row.get("run_type") != "iteration":
            continue
        name = row["name"].removesuffix("/manual_time").removesuffix("/iterations:1").removesuffix("/real_time")
        op, implementation, shape = name.split("/", 2)
        if row.get("error_occurred"):
            value = FAILED
        elif counter in MICROSECONDS:
            value = figure(row["real_time"]) * MICROSECONDS[row["time_unit"]] / MICROSECONDS[counter]
        else:
            value = row.get(counter)
        values = [] if value is None else [figure(value)]
        yield (op, shape, implementation), row.get("repetition_index", number), Cell(values, len(values))


def read(path, counter):
    """-> (op, shape, implementation) -> its cell"""
    cells = {}
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        lab = "rows" in results
        for key, repetition, one in (read_lab if lab else read_runs)(results["rows" if lab else "benchmarks"], counter):
            cell = cells.setdefault(key, Cell(is_ratio=one.is_ratio))
            if repetition in cell.repetitions:
                raise ValueError(f"{'/'.join(key)} is there twice")
            cell.repetitions.add(repetition)
            cell.values += one.values
            cell.runs += one.runs
    except KeyError as why:
        raise Refused(f"{path}: {why} is missing") from why
    except OSError as why:
        raise Refused(f"{path}: {why.strerror}") from why
    except (ValueError, TypeError, AttributeError, RecursionError) as why:
        raise Refused(f"{path}: {why}") from why
    return cells


def show(cell):
    if cell is None or not cell.values:
        return "-"
    values = cell.values
    if cell.failed():
        return "FAILED"
    if cell.is_ratio:
        return f"{values[0]:.3f} [{values[1]:.3f}, {values[2]:.3f}]"
    median = statistics.median(values)
    spread = (max(values) - min(values)) / 2
    digits = 0 if median >= 1000 else 1 if median >= 10 else 2
    return f"{median:.{digits}f}" + (f" ±{spread:.{digits}f}" if spread > 0.01 * median else "")


class Parser(argparse.ArgumentParser):
    def error(self, message):
        raise Refused(message)


def pattern(text):
    try:
        return re.compile(text)
    except re.error as why:
        raise argparse.ArgumentTypeError(f"'{text}' is no regular expression: {why}") from why


def names(text):
    return text.split(",")


def parser(of_page=False):
    out = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, add_help=not of_page)
    out.add_argument("files", nargs="*", type=Path)
    out.add_argument("--counter", type=names, default=["us"],
                     help="us, ms, GFLOP/s, TFLOP/s, GB/s, roof_pct, ratio, W, pairs/s, ..., or several; us")
    out.add_argument("--op", action="append", help="only this one; may be given again")
    out.add_argument("--row", type=pattern, help="only shapes in which this regular expression is found")
    out.add_argument("--columns", type=names, help="only these implementations, in this order")
    out.add_argument("--hide", type=names, default=[], help="axes that shapes are shown without")
    out.add_argument("--few", action="store_true", help=f"show rows of fewer than {LEAST_RUNS} runs, too")
    if not of_page:
        out.add_argument("--update", nargs="+", type=Path, metavar="PAGE", help="write the tables of pages anew")
        out.add_argument("--check", nargs="+", type=Path, metavar="PAGE", help="are the tables of pages those of their files?")
    return out


def expect_all_found(options, found):
    """Whoever asks for what is not there made a mistake. `found`: (op, implementation, counter, cell) of what is."""
    if options.row and not found:
        raise Refused(f"--row: no shape has '{options.row.pattern}'")
    for flag, asked, place in (("--op", options.op, 0), ("--columns", options.columns, 1)):
        for name in asked or []:
            if not any(f[place] == name for f in found):
                raise Refused(f"{flag}: there is no '{name}'")
    for counter in options.counter:  # what failed has a time, but not everything that somebody may ask for
        if not any(c == counter and cell.values and (counter in MICROSECONDS or not cell.failed()) for _, _, c, cell in found):
            raise Refused(f"--counter: there are no figures of '{counter}'")


def tables(options):
    """One of each op."""
    if not options.files:
        raise Refused("files are wanted")
    cells = defaultdict(dict)  # (op, shape) -> (counter, implementation) -> cell
    found, read_from = [], {}
    for counter in options.counter:
        for path in options.files:
            for (op, shape, implementation), cell in read(path, counter).items():
                if options.op and op not in options.op or options.row and not options.row.search(shape):
                    continue
                if options.columns and implementation not in options.columns:
                    continue
                if (counter, implementation) in cells[op, shape]:
                    raise Refused(f"{path}: {op}/{implementation}/{shape} is in {read_from[op, shape, implementation]}, too")
                cells[op, shape][counter, implementation] = cell
                read_from[op, shape, implementation] = path
                found.append((op, implementation, counter, cell))
    expect_all_found(options, found)
    few = [f"{op}/{i}/{shape}: {cell.runs}" for (op, shape), c in cells.items() for (_, i), cell in c.items()
           if cell.values and not cell.failed() and cell.runs < LEAST_RUNS]
    if few and not options.few:
        raise Refused(f"{len(few)} rows of fewer than {LEAST_RUNS} runs, as {few[0]}")
    out = []
    for op in dict.fromkeys(op for op, _ in cells):
        rows = {shape: c for (o, shape), c in cells.items() if o == op}
        columns = sorted(dict.fromkeys(i for c in rows.values() for i, cell in c.items() if cell.values),
                         key=lambda i: options.counter.index(i[0]))
        if options.columns:
            columns = [(counter, name) for counter in options.counter for name in options.columns if (counter, name) in columns]
        one = len(options.counter) == 1
        heads = [name if one else f"{name}, {counter}" for counter, name in columns]
        lines = [f"| {op}, {options.counter[0]} |" if one else f"| {op} |", "|" + "---|" * (len(columns) + 1)]
        lines[0] += "".join(f" {head} |" for head in heads)
        for shape, c in rows.items():
            hidden = re.sub(f",?({'|'.join(map(re.escape, options.hide))})=[^,]*", "", shape) if options.hide else shape
            lines.append(f"| {hidden} | " + " | ".join(show(c.get(i)) for i in columns) + " |")
        out.append("\n".join(lines))
    return out


def page_with_tables(path):
    """-> its text, and the text with its tables made anew"""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as why:
        raise Refused(f"{path}: {why.strerror}") from why
    except ValueError as why:
        raise Refused(f"{path}: {why}") from why
    place = lambda match: f"{path}:{text.count(chr(10), 0, match.start()) + 1}"
    comment = re.compile(r"^(<!-- table (.*) -->)\n(?:\|.*(?:\n|\Z))*", re.MULTILINE)
    for match in re.finditer(r"<!--\s*table\b", text, re.IGNORECASE):
        if not comment.match(text, match.start()):
            raise Refused(f"{place(match)}: expected a line \"<!-- table ARGUMENTS -->\"")

    def table(match):
        try:
            options = parser(of_page=True).parse_args(shlex.split(match[2]))
            options.files = [RESULTS / file for file in options.files]
            made = tables(options)
            if len(made) > 1:
                raise Refused(f"it makes {len(made)} tables, and one can stand below it: --op")
        except (Refused, ValueError) as why:
            raise Refused(f"{place(match)}: {why}") from why
        return f"{match[1]}\n{made[0]}\n"
    return text, comment.sub(table, text)


def main():
    try:
        options = parser().parse_args()
        if options.files and (options.update or options.check):
            raise Refused("files are of a table, and --update and --check of pages")
        if not options.update and not options.check:
            print("\n" + "\n\n".join(tables(options)))
        made = [(page, page_with_tables(page)[1]) for page in options.update or []]
        for page, text in made:
            try:
                page.write_text(text, encoding="utf-8")
            except OSError as why:
                raise Refused(f"{page}: {why.strerror}") from why
        others = [str(page) for page in options.check or [] if len(set(page_with_tables(page))) > 1]
    except Refused as why:
        sys.exit(" ".join(str(why).split()))
    if others:
        sys.exit(f"{', '.join(others)}: a table is not what its files say; bench/table.py --update writes it anew")


if __name__ == "__main__":
    main()
