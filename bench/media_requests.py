#!/usr/bin/env python3
"""Pictures as photographs are, and requests over them for `vlr score --usage`.

    bench/media_requests.py FOLDER      writes FOLDER/*.jpg, images8.jsonl and two_queries.jsonl

images8.jsonl    20 requests of 8 pictures each, 1280 x 960 pixels, JPEG 4:2:0 at quality 90: the
                 images8 workload of `vlr bench` as files
two_queries.jsonl  two queries over the same 200 of them

Needs Pillow and NumPy.
"""
import json
import multiprocessing
import pathlib
import sys

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


def main():
    folder = pathlib.Path(sys.argv[1]).resolve()
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


if __name__ == "__main__":
    main()
