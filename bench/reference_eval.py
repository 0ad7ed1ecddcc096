#!/usr/bin/env python3
"""vlr against transformers, on the same requests, in the same run, on the same number of threads.

    pip install torch torchvision transformers tokenizers pillow numpy
    bench/reference_eval.py                                  # 4 requests a file, 2 rounds
    bench/reference_eval.py --lines 40 --rounds 3 --json bench/results/reference_eval.json

Takes evenly spread requests of each evaluation file. A round is, file by file, transformers and then vlr, twice:

  transformers  fp32 on the CPU, one pair at a time as the official wrapper does it: prompt, media, forward pass
  vlr           `vlr eval --json`: all requests of the file in one call
  vlr, alone    the same with every pair whole and in a batch of its own, as transformers has it

All times hold reading and decoding media, tokenising and scoring; none holds loading the model. The expected
log-odds that vlr is compared with are those that transformers gave in this run. For quiet numbers let nothing else
run on the machine.
"""
import argparse
import json
import math
import os
import platform
import statistics
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import tokenizers
import torch
import torchvision.transforms.functional as vision
from PIL import Image
from transformers import Qwen3VLForConditionalGeneration
from transformers.utils import logging

ROOT = Path(__file__).resolve().parent.parent

# What the official wrapper asks and allows.
SYSTEM = ("Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
          'Note that the answer can only be "yes" or "no".')
INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."
MAX_LENGTH = 10240            # tokens, without the five that end the prompt
MIN_PIXELS, MAX_PIXELS = 4 * 1024, 1800 * 1024
FRAME_PIXELS = 128 * 1024, 768 * 1024, 7680 * 1024  # of a frame, at least and at most; of all frames together
MAX_FRAMES = 64
IMAGE, VIDEO = "<|image_pad|>", "<|video_pad|>"


def smart_resize(height, width, low, high, factor=32):
    if max(height, width) / min(height, width) > 200:
        raise ValueError("one side is more than 200 times the other")
    h, w = (max(factor, round(side / factor) * factor) for side in (height, width))
    if h * w > high:
        shrink = math.sqrt(height * width / high)
        h, w = (math.floor(side / shrink / factor) * factor for side in (height, width))
    elif h * w < low:
        grow = math.sqrt(low / (height * width))
        h, w = (math.ceil(side * grow / factor) * factor for side in (height, width))
    return h, w


def load_image(path, low=MIN_PIXELS, high=MAX_PIXELS):
    """[H, W, 3] u8"""
    image = Image.open(path)
    if image.mode == "RGBA":
        white = Image.new("RGB", image.size, (255, 255, 255))
        white.paste(image, mask=image.split()[3])
        image = white
    else:
        image = image.convert("RGB")
    h, w = smart_resize(image.size[1], image.size[0], low, high)
    return np.array(image.resize((w, h)))


def load_frames(paths):
    """[T, H, W, 3] u8, T even"""
    if len(paths) > MAX_FRAMES:
        paths = [paths[i] for i in np.linspace(0, len(paths) - 1, MAX_FRAMES, dtype=int)]
    frames = [load_image(path, 4 * 1024, 16384 * 1024) for path in paths]
    if len(frames) % 2:
        frames.append(frames[-1])
    x = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    low, most, total = FRAME_PIXELS
    high = max(min(most, total / len(frames) * 2), int(low * 1.05))
    size = smart_resize(x.shape[2], x.shape[3], low, high)
    x = vision.resize(x, list(size), interpolation=vision.InterpolationMode.BICUBIC, antialias=True)
    return x.permute(0, 2, 3, 1).numpy()


def patchify(frames):
    """[T, H, W, 3] u8 -> [t * h * w, 1536] f32, (t, h, w)"""
    x = (frames.astype(np.float32) - np.float32(127.5)) / np.float32(127.5)
    t, h, w = x.shape[0] // 2, x.shape[1] // 16, x.shape[2] // 16
    x = x.reshape(t, 2, h // 2, 2, 16, w // 2, 2, 16, 3).transpose(0, 2, 5, 3, 6, 8, 1, 4, 7)
    return np.ascontiguousarray(x.reshape(t * h * w, 1536)), (t, h, w)


def as_list(value):
    return [] if value is None else value if isinstance(value, list) else [value]


def render_side(side):
    """A query or a document -> its text with a placeholder for each medium, images, videos."""
    videos = as_list(side.get("video"))
    if videos and isinstance(videos[0], str):
        videos = [videos]
    images, texts = as_list(side.get("image")), as_list(side.get("text"))
    if not videos and not images and not texts:
        return "NULL", [], []
    pads = [VIDEO] * len(videos) + [IMAGE] * len(images)
    return "".join(f"<|vision_start|>{pad}<|vision_end|>" for pad in pads) + "".join(texts), images, videos


def positions(ids, images, videos, image_id, video_id):
    """[3, S]: a text token moves all axes on by one; a picture counts rows and columns of its merged patches."""
    out = np.zeros((3, len(ids)), np.int64)
    image_grids = iter(grid[1:] for _, grid in images)
    video_grids = iter(grid[1:] for _, grid in videos for _ in range(grid[0]))
    next_position = begin = 0
    while begin < len(ids):
        if ids[begin] not in (image_id, video_id):
            out[:, begin] = next_position
            next_position += 1
            begin += 1
            continue
        h, w = next(image_grids if ids[begin] == image_id else video_grids)
        rows, columns = np.divmod(np.arange(h // 2 * (w // 2)), w // 2)
        out[:, begin:begin + len(rows)] = next_position + np.stack([np.zeros_like(rows), rows, columns])
        begin += len(rows)
        next_position += max(h, w) // 2
    return out


class Reference:
    """transformers behind the official pre-processing."""

    def __init__(self, folder):
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.specials = {i for i, token in self.tokenizer.get_added_tokens_decoder().items() if token.special}
        self.model = Qwen3VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
        head = self.model.lm_head.weight.double()
        self.head = (head[self.tokenizer.token_to_id("yes")] - head[self.tokenizer.token_to_id("no")]).detach()

    def prepare(self, request, document, media):
        """-> token ids, images, videos; of the media patches and grid"""
        query, query_images, query_videos = render_side(request["query"])
        text, images, videos = render_side(document)
        prompt = (f"<|im_start|>system\n{SYSTEM}<|im_end|>\n<|im_start|>user\n"
                  f"<Instruct>: {request.get('instruction') or INSTRUCTION}<Query>:{query}\n<Document>:{text}<|im_end|>\n"
                  "<|im_start|>assistant\n")
        images = [patchify(np.repeat(load_image(media / path)[None], 2, 0)) for path in query_images + images]
        videos = [patchify(load_frames([media / path for path in paths])) for paths in query_videos + videos]
        for _, (_, h, w) in images:
            prompt = prompt.replace(IMAGE, "<|@|>" * (h * w // 4), 1)
        prompt = prompt.replace("<|@|>", IMAGE)
        for _, (t, h, w) in videos:  # two frames a second, two frames a temporal patch
            frames = "".join(f"<{k + 0.25:.1f} seconds><|vision_start|>{'<|@|>' * (h * w // 4)}<|vision_end|>" for k in range(t))
            prompt = prompt.replace(f"<|vision_start|>{VIDEO}<|vision_end|>", frames, 1)
        ids = self.tokenizer.encode(prompt.replace("<|@|>", VIDEO), add_special_tokens=False).ids
        return self.truncate(ids[:-5]) + ids[-5:], images, videos

    def truncate(self, ids):
        """Special tokens stay; the last of the others go."""
        room = MAX_LENGTH - sum(i in self.specials for i in ids)
        out = []
        for i in ids:
            if i in self.specials:
                out.append(i)
            elif room > 0:
                out.append(i)
                room -= 1
        return out if len(ids) > MAX_LENGTH else ids

    def log_odds(self, request, document, media):
        ids, images, videos = self.prepare(request, document, media)
        image_id, video_id = self.tokenizer.token_to_id(IMAGE), self.tokenizer.token_to_id(VIDEO)
        x = torch.tensor([ids])
        inputs = {"input_ids": x, "attention_mask": torch.ones_like(x), "use_cache": False,
                  "position_ids": torch.from_numpy(positions(ids, images, videos, image_id, video_id))[:, None],
                  "mm_token_type_ids": (x == image_id).int() + 2 * (x == video_id).int()}
        for name, grid_name, loaded in (("pixel_values", "image_grid_thw", images),
                                        ("pixel_values_videos", "video_grid_thw", videos)):
            if loaded:
                inputs[name] = torch.from_numpy(np.concatenate([patches for patches, _ in loaded]))
                inputs[grid_name] = torch.tensor([grid for _, grid in loaded])
        with torch.no_grad():
            hidden = self.model.model(**inputs).last_hidden_state[0, -1]
        return (hidden.double() @ self.head).item()


def run_reference(reference, requests, media):
    """-> seconds, log-odds by request"""
    start = time.perf_counter()
    log_odds = [[reference.log_odds(r, d, media) for d in r["documents"]] for r in requests]
    return time.perf_counter() - start, log_odds


ALONE = ("--no-share-prefix", "--batch-tokens", "1")


def run_vlr(options, requests, log_odds, media, *arguments):
    """-> the file's row of `vlr eval --json`; distances are to log_odds"""
    with tempfile.TemporaryDirectory() as folder:
        sample, table = Path(folder, "sample.jsonl"), Path(folder, "table.json")
        sample.write_text("".join(json.dumps(r | {"log_odds": o}) + "\n" for r, o in zip(requests, log_odds)))
        subprocess.run([options.vlr, "eval", "-m", options.model, "--threads", str(options.threads), "--media-root", media,
                        "--json", table, *arguments, sample], check=True, stdout=subprocess.DEVNULL)
        row = json.loads(table.read_text())["files"][0]
    if row["failed"]:
        raise SystemExit(f"vlr could not score {row['failed']} pairs")
    return row


def cpu_name():
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def commit():
    git = ["git", "-C", ROOT]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
        changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], check=True, capture_output=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head + ("-changed" if changed else "")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, default=sorted((ROOT / "demo/eval").glob("*.jsonl")),
                        help="evaluation files, their media in media/ beside them; demo/eval/*.jsonl")
    parser.add_argument("--model", type=Path, default=ROOT / "demo/model")
    parser.add_argument("--vlr", type=Path, default=ROOT / "build/cpu/tools/vlr")
    parser.add_argument("--lines", type=int, default=4, help="requests of each file; 0: all")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--json", type=Path, help="write the result here")
    options = parser.parse_args()

    logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    reference = Reference(options.model)
    sets = {}
    for path in options.files:
        requests = [json.loads(line) for line in path.read_text().splitlines() if line.strip()]
        count = min(options.lines or len(requests), len(requests))
        sets[path.name] = ([requests[i * len(requests) // count] for i in range(count)], path.parent / "media")

    rows = {name: {"file": name, "requests": len(requests), "pairs": sum(len(r["documents"]) for r in requests),
                   "transformers_seconds": [], "vlr_seconds": [], "vlr_alone_seconds": [], "max_distance": 0.0,
                   "order_changes": 0}
            for name, (requests, _) in sets.items()}
    for requests, media in sets.values():  # both warm: code paths, page cache
        run_vlr(options, requests[:1], run_reference(reference, requests[:1], media)[1], media)
    for _ in range(options.rounds):
        for name, (requests, media) in sets.items():
            row = rows[name]
            seconds, log_odds = run_reference(reference, requests, media)
            row["transformers_seconds"].append(seconds)
            for key, arguments in (("vlr_seconds", ()), ("vlr_alone_seconds", ALONE)):
                ours = run_vlr(options, requests, log_odds, media, *arguments)
                row[key].append(ours["seconds"])
                row["max_distance"] = max(row["max_distance"], ours["max_distance"])
                row["order_changes"] = max(row["order_changes"], ours["order_changes"])

    everything = {"file": "all", "max_distance": max(r["max_distance"] for r in rows.values())}
    for key in ("requests", "pairs", "order_changes"):
        everything[key] = sum(r[key] for r in rows.values())
    for key in ("transformers_seconds", "vlr_seconds", "vlr_alone_seconds"):
        everything[key] = [sum(times) for times in zip(*(r[key] for r in rows.values()))]
    table = [*rows.values(), everything]
    for row in table:  # the median round
        for name in ("transformers", "vlr", "vlr_alone"):
            row[f"{name}_pairs_per_second"] = row["pairs"] / statistics.median(row[f"{name}_seconds"])
        row["ratio"] = row["vlr_pairs_per_second"] / row["transformers_pairs_per_second"]
        row["ratio_alone"] = row["vlr_alone_pairs_per_second"] / row["transformers_pairs_per_second"]

    packages = ("torch", "torchvision", "transformers", "tokenizers", "pillow", "numpy")
    result = {"machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "threads": options.threads},
              "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
              "commit": commit(), "model": os.path.relpath(options.model, ROOT), "dtype": "f32", "rounds": options.rounds, "files": table}
    print(f"{result['machine']['cpu']}, {options.threads} threads; transformers {result['versions']['transformers']}, "
          f"torch {result['versions']['torch']}; vlr {result['commit']}; median of {options.rounds} rounds\n")
    print(f"{'file':<16} {'requests':>8} {'pairs':>6} {'transformers':>13} {'vlr':>8} {'ratio':>6} {'vlr, alone':>11} {'ratio':>6} "
          f"{'max dist':>9} {'order*':>6}")
    for r in table:
        print(f"{r['file']:<16} {r['requests']:>8} {r['pairs']:>6} {r['transformers_pairs_per_second']:>13.1f} "
              f"{r['vlr_pairs_per_second']:>8.1f} {r['ratio']:>6.2f} {r['vlr_alone_pairs_per_second']:>11.1f} {r['ratio_alone']:>6.2f} "
              f"{r['max_distance']:>9.2e} {r['order_changes']:>6}")
    print("\nPairs a second. dist: of log-odds. *: requests whose order of documents differs.")
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
