#!/usr/bin/env python3
"""Prints the log-odds of every document of all golden requests, by models a, b and demo and by every
quantisation, as text from which their bits come back: what a change that must move no bit is held against.

usage: score_bits.py VLR [ARGUMENT OF vlr score ...] > bits.txt
"""
import json
import pathlib
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
MODES = ["none", "nf4", "int8", "int8-weight", "llm-int8", "llm-int8-batch", "fp8"]


def main():
    vlr, more = sys.argv[1], sys.argv[2:]
    requests = {f.stem: json.loads(f.read_text()) for f in sorted((HERE / "requests").glob("*.json"))}
    demo = json.loads((ROOT / "demo/request.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        models = {"demo": ROOT / "demo/model"}
        for name in ["a", "b"]:
            models[name] = f"{folder}/{name}"
            subprocess.run([vlr, "checkpoint", "make", name, "--out", models[name], "--tokenizer",
                            ROOT / "demo/model/tokenizer.json"], check=True, stdout=subprocess.DEVNULL)
        for what, lines, media in [("golden", requests, HERE / "media"), ("demo", {"demo": demo}, ROOT / "demo")]:
            text = "\n".join(json.dumps(r) for r in lines.values()) + "\n"
            file = pathlib.Path(folder) / f"{what}.jsonl"
            file.write_text(text if len(lines) > 1 else text * 2)
            for model, path in models.items():
                for mode in MODES:
                    out = subprocess.run([vlr, "score", "-m", path, "-r", file, "--media-root", media, "--quant", mode,
                                          "--at-once", "1", "--allow-special", *more],
                                         check=True, capture_output=True, text=True).stdout
                    for name, line in zip(lines, out.splitlines()):
                        for i, r in enumerate(json.loads(line)["results"]):
                            print(model, mode, name, i, r["status"], r.get("log_odds"))


if __name__ == "__main__":
    main()
