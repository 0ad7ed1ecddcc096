#!/usr/bin/env python3
"""Pictures as photographs are, requests over them, and what `vlr score` takes for those.

    bench/media_requests.py FOLDER      writes FOLDER/*.jpg, images8.jsonl and two_queries.jsonl
    bench/media_requests.py FOLDER --vlr build/cuda/tools/vlr --model DIR --json OUT
                                        scores them with and without a vision cache, in turns, and
                                        holds the scores against each other

images8.jsonl    20 requests of 8 pictures each, 1280 x 960 pixels, JPEG 4:2:0 at quality 90: the
                 images8 workload of `vlr bench` as files
two_queries.jsonl  two queries over the same 200 of them

Needs Pillow and NumPy.
"""
import argparse
import json
import multiprocessing
import pathlib
import re
import subprocess

import numpy
from PIL import Image

WIDTH, HEIGHT, COUNT = 1280, 960, 200
# 63 tokens of text and 1200 of the picture make a document, as in the workload.
TEXT = "A photograph from the archive of the town hall, taken in the autumn of 1987."


def photograph(seed):
    """Noise of several scales: edges, gradients and grain."""
    rng = numpy.random.default_rng(seed)
    picture = numpy.zeros((HEIGHT, WIDTH, 3))
    for step, strength in ((240, 90), (60, 50), (12, 25), (3, 10)):
        coarse = rng.normal(0, 1, (HEIGHT // step + 2, WIDTH // step + 2, 3)).astype("float32")
        for c in range(3):
            layer = Image.fromarray(coarse[:, :, c]).resize((WIDTH, HEIGHT), Image.BICUBIC)
            picture[:, :, c] += strength * numpy.asarray(layer)
    picture += rng.normal(128, 3, (HEIGHT, WIDTH, 1))
    return Image.fromarray(picture.clip(0, 255).astype("uint8"))


def save(seed, path):
    photograph(seed).save(path, quality=90)


USAGE = re.compile(
    r"(?P<requests>\d+) requests in (?P<total>[\d.]+) s: media (?P<media>[\d.]+), "
    r"prompts (?P<prompts>[\d.]+), vision (?P<vision>[\d.]+), text (?P<text>[\d.]+); "
    r"(?P<tokens>\d+) tokens in (?P<batches>\d+) batches, (?P<image_tokens>\d+) image tokens in "
    r"(?P<vision_batches>\d+); (?P<decoded>\d+) media decoded, (?P<cached>\d+) cached")


def score(vlr, model, requests, cache, at_once):
    """Usage of every group of requests, and what was printed."""
    run = subprocess.run([vlr, "score", "-m", model, "-r", requests, "--usage", "--at-once",
                          str(at_once), "--vision-cache-memory", cache],
                         capture_output=True, text=True, check=True)
    usage = [{k: float(v) for k, v in m.groupdict().items()} for m in USAGE.finditer(run.stderr)]
    return usage, run.stdout


def measure(folder, vlr, model):
    runs, printed = [], {}
    plan = [("images8.jsonl", cache, 256) for cache in ("0", "8GB")] * 2
    plan += [("two_queries.jsonl", cache, 1) for cache in ("0", "12GB")] * 2
    for name, cache, at_once in plan:
        usage, out = score(vlr, model, folder / name, cache, at_once)
        assert printed.setdefault(name, out) == out, f"{name}: the cache changes scores"
        runs.append({"requests": name, "vision_cache": cache, "usage": usage})
        print(name, cache, *(f"{u['total']:.3f} s" for u in usage), flush=True)
    return runs


def describe_gpu():
    fields = "name,driver_version,power.limit,clocks.max.sm,clocks.max.mem"
    query = subprocess.run(["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"],
                           capture_output=True, text=True, check=True)
    return dict(zip(fields.split(","), (x.strip() for x in query.stdout.split(","))))


def make(folder):
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i:03}.jpg" for i in range(COUNT)]
    with multiprocessing.Pool() as pool:
        pool.starmap(save, [(i, folder / name) for i, name in enumerate(names)])
    document = lambda i: {"text": TEXT, "image": names[i % COUNT]}
    with open(folder / "images8.jsonl", "w") as out:
        for r in range(20):
            request = {"query": {"text": f"an autumn in the town, {r}"},
                       "documents": [document(8 * r + i) for i in range(8)]}
            print(json.dumps(request), file=out)
    with open(folder / "two_queries.jsonl", "w") as out:
        for query in ("a market day", "a bridge over the river"):
            request = {"query": {"text": query}, "documents": [document(i) for i in range(COUNT)]}
            print(json.dumps(request), file=out)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--vlr", help="the command; without it files are made only")
    parser.add_argument("--model")
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--commit", default="")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if not (folder / "two_queries.jsonl").exists():
        make(folder)
    if not arguments.vlr:
        return
    result = {"gpu": describe_gpu(), "commit": arguments.commit,
              "what": f"{WIDTH} x {HEIGHT} JPEGs, seconds of score()",
              "runs": measure(folder, arguments.vlr, arguments.model)}
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
