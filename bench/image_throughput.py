#!/usr/bin/env python3
"""How fast a JPEG becomes patches on one core: vlr's load_image() and Pillow + NumPy doing the same.

    python3 -m venv venv && venv/bin/pip install pillow==12.0.0 numpy
    tools/configure.sh cpu -DVLR_BUILD_BENCH=ON && cmake --build build/cpu --target image_bench
    venv/bin/python bench/image_throughput.py build/cpu/bench/image_bench --out bench/results/cpu_images.json

The work: decode, to RGB, Pillow's bicubic resize to the reference's size, patches [N, 1536]. vlr's
patches are 8 bits a value, for the model's first layer to scale; Pillow + NumPy end as
Qwen2VLImageProcessor does, with (v - 127.5) / 127.5 in float32 and the transposition of both equal
frames. "decode" is the decoding alone.

The patches are compared first and have to be equal, value by value, before the scaling. Then both
sides take turns on one pinned core. Times are CPU time of the process, so other processes disturb
them little; the smallest and the median of all repetitions are kept.
"""

import argparse
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import PIL
from PIL import Image, features

SIZES = ((1280, 800), (2464, 1648), (4000, 3000))


def photo(width, height):
    """Noise of several scales and gradients: what JPEG makes of it is as long as of a photograph."""
    rng = np.random.default_rng(width)
    out = np.zeros((height, width, 3), np.float32)
    for cells, amplitude in ((8, 60), (32, 40), (128, 25), (512, 12)):
        shape = (max(2, height * cells // 2048 + 2), max(2, width * cells // 2048 + 2), 3)
        noise = rng.normal(0, 1, shape).astype(np.float32)
        for c in range(3):
            plane = Image.fromarray(noise[..., c]).resize((width, height), Image.BICUBIC)
            out[..., c] += amplitude * np.asarray(plane)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    out += 127 + 40 * (x / width - 0.5)[..., None] + 30 * (y / height - 0.5)[..., None]
    out += rng.normal(0, 3, (height, width, 1)).astype(np.float32)  # of a sensor
    file = io.BytesIO()
    image = Image.fromarray(np.clip(out, 0, 255).astype(np.uint8))
    image.save(file, "jpeg", quality=90, subsampling=2)
    return file.getvalue()


def patches_of(pixels):
    """[H, W, 3] -> [N, 1536], as Qwen2VLImageProcessor reshapes a picture twice."""
    height, width, _ = pixels.shape
    frames = pixels.transpose(2, 0, 1)[None]
    frames = np.concatenate([frames, frames])
    frames = frames.reshape(1, 2, 3, height // 32, 2, 16, width // 32, 2, 16)
    return frames.transpose(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, 1536)


def decode(data):
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def load(data, size):
    image = decode(data).convert("RGB")
    if image.size != size:
        image = image.resize(size, Image.BICUBIC)
    pixels = np.asarray(image).astype(np.float32)
    pixels -= np.float32(127.5)
    pixels /= np.float32(127.5)
    return patches_of(pixels)


def cpu_times(repetitions, work):
    times = []
    for _ in range(repetitions):
        start = time.process_time()
        work()
        times.append(1e3 * (time.process_time() - start))
    return times


def summary(times):
    return {
        "min_ms": round(min(times), 2),
        "median_ms": round(statistics.median(times), 2),
        "samples": len(times),
    }


def cpu_model():
    with open("/proc/cpuinfo") as f:
        return next(line.split(":")[1].strip() for line in f if line.startswith("model name"))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("bench", help="the program image_bench")
    parser.add_argument("--out", help="where the JSON goes")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--repetitions", type=int, default=5, help="of each side in a round")
    parser.add_argument("--core", type=int, default=max(os.sched_getaffinity(0)))
    args = parser.parse_args()
    os.sched_setaffinity(0, {args.core})

    results = []
    for width, height in SIZES:
        data = photo(width, height)
        with tempfile.TemporaryDirectory() as folder:
            path, out = folder + "/photo.jpg", folder + "/patches"
            with open(path, "wb") as f:
                f.write(data)
            run = lambda *more: json.loads(
                subprocess.run(
                    [args.bench, str(args.repetitions), path, *more],
                    check=True,
                    capture_output=True,
                ).stdout
            )
            grid = run(out)
            size = (16 * grid["grid_w"], 16 * grid["grid_h"])
            ours = np.fromfile(out, np.uint8).reshape(-1, 1536)
            image = decode(data).convert("RGB")
            theirs = patches_of(np.asarray(image.resize(size, Image.BICUBIC)))
            if not np.array_equal(ours, theirs):
                sys.exit(f"{width}x{height}: {np.sum(ours != theirs)} of {ours.size} values differ")
            times = {"vlr": [], "vlr_decode": [], "pillow_numpy": [], "pillow_decode": []}
            for _ in range(args.rounds):
                r = run()
                times["vlr"] += r["load_ms"]
                times["vlr_decode"] += r["decode_ms"]
                times["pillow_numpy"] += cpu_times(args.repetitions, lambda: load(data, size))
                times["pillow_decode"] += cpu_times(args.repetitions, lambda: decode(data))
        entry = {"width": width, "height": height, "resized": list(size), "jpeg_bytes": len(data)}
        entry |= {name: summary(t) for name, t in times.items()}
        for of in ("min_ms", "median_ms"):
            entry["times_faster_" + of[:-3]] = round(
                entry["pillow_numpy"][of] / entry["vlr"][of], 2
            )
        results.append(entry)
        print(
            f"{width}x{height}: vlr {entry['vlr']['median_ms']} ms (decode"
            f" {entry['vlr_decode']['median_ms']}), Pillow + NumPy"
            f" {entry['pillow_numpy']['median_ms']} ms (decode"
            f" {entry['pillow_decode']['median_ms']}): {entry['times_faster_median']} times"
        )
    report = {
        "cpu": cpu_model(),
        "what": "CPU time of the process in ms, one pinned core of a machine shared with other work",
        "python": platform.python_version(),
        "pillow": PIL.__version__,
        "pillow_libjpeg_turbo": features.version("libjpeg_turbo"),
        "numpy": np.__version__,
        "vlr_libjpeg_turbo": subprocess.run(
            ["pkg-config", "--modversion", "libjpeg"], capture_output=True, text=True
        ).stdout.strip(),
        "results": results,
    }
    if args.out:
        with open(args.out, "w") as f:
            json.dump(report, f, indent=1)
            f.write("\n")


if __name__ == "__main__":
    main()
