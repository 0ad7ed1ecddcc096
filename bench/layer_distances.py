#!/usr/bin/env python3
"""How far two models' residual streams are apart, layer by layer, as relative L2.

    vlr bench --synthetic 8b --workload 1x128 --layers bf16.f32
    vlr bench --synthetic 8b --workload 1x128 --layers nf4.f32 --quant nf4
    bench/layer_distances.py --layers 36 --hidden 4096 bf16.f32 nf4.f32 [--json FILE]

The files hold f32 rows of `hidden` values: all tokens behind each layer but the last, then its final tokens.
"""
import argparse
import json

import numpy as np


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, required=True)
    parser.add_argument("--hidden", type=int, required=True)
    parser.add_argument("--json")
    parser.add_argument("original")
    parser.add_argument("others", nargs="+")
    args = parser.parse_args()

    def read(path):
        values = np.fromfile(path, np.float32).reshape(-1, args.hidden).astype(np.float64)
        # rows = (layers - 1) * tokens + finals; with one sequence a final is one row
        tokens = (len(values) - 1) // (args.layers - 1)
        finals = len(values) - (args.layers - 1) * tokens
        ends = [tokens * (i + 1) for i in range(args.layers - 1)]
        assert finals >= 1, f"{path}: {len(values)} rows are not {args.layers} layers"
        return np.split(values, ends)

    original = read(args.original)
    table = {}
    for path in args.others:
        table[path] = [
            float(np.linalg.norm(a - b) / np.linalg.norm(b)) for a, b in zip(read(path), original)
        ]
    print("layer  " + "  ".join(f"{p:>12}" for p in table))
    for i in range(args.layers):
        print(f"{i:>5}  " + "  ".join(f"{d[i]:>12.4f}" for d in table.values()))
    if args.json:
        with open(args.json, "w") as f:
            json.dump({"original": args.original, "relative_l2": table}, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
