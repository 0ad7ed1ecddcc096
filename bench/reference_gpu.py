#!/usr/bin/env python3
"""PyTorch and transformers on a GPU, on the shapes and workloads of our own benches.

    bench/reference_gpu.py workloads --size 8b --json workloads_transformers.json
    bench/reference_gpu.py tuned --json workloads_tuned.json
    vlr lab time attention --rival 'bench/reference_gpu.py rival' --json attention.json

  rival      attention and linear for the lab, which times them in turns with ours: it is asked by lines of JSON
             (docs/kernel-lab.md). torch's scaled_dot_product_attention by its FlashAttention-2 and its cuDNN backend,
             FlashAttention-2's varlen form where lengths differ or keys are not queries; F.linear
  workloads  the models as users have them: transformers, sdpa, bf16, one pair at a time as the official wrapper runs
             them, and padded batches
  tuned      what a day of work makes of PyTorch for the 8B: packed ragged batches, fused weights, torch.compile,
             cuDNN or FlashAttention-2 varlen attention, a CUDA graph for the short pair; text and vision

Weights are random, which costs the same as trained ones; every run works out hidden states of all tokens and scores of
the last ones. Results have the shape of Google Benchmark's JSON, and the names of our benches:
op/implementation/dtype/shape, workload/implementation/dtype/model/workload. Seconds are medians. --budget is in seconds, start and compilation included: what
would begin after it is left out, and is listed under "skipped". GPU clocks are left as they are.
"""
import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

STARTED = time.perf_counter()
ROOT = Path(__file__).resolve().parent
CUDA, BF16 = "cuda", torch.bfloat16

TEXT = {"8b": dict(hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8),
        "2b": dict(hidden_size=2048, intermediate_size=6144, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8)}
VISION = {"8b": dict(depth=27, hidden_size=1152, intermediate_size=4304, num_heads=16, out_hidden_size=4096, deepstack_visual_indexes=[8, 16, 24]),
          "2b": dict(depth=24, hidden_size=1024, intermediate_size=4096, num_heads=16, out_hidden_size=2048, deepstack_visual_indexes=[5, 11, 17])}
HEAD_DIM, VOCAB_SIZE, PATCH_DIM, THETA, EPS = 128, 151936, 1536, 5e6, 1e-6
VISION_START, VISION_END, IMAGE = 151652, 151653, 151655
GRID = (60, 80)  # patches of an image of 1280 x 960 pixels
IMAGE_TOKENS, PATCHES = GRID[0] * GRID[1] // 4, GRID[0] * GRID[1]
TEXT_BEFORE, TEXT_AFTER = 40, 40  # of an image document, the vision tokens among them


def text100_lengths():
    return json.loads((ROOT / "text100_lengths.json").read_text())


# ---------------------------------------------------------------------------------------------------------- measuring

class Results:
    def __init__(self, options):
        self.options, self.rows, self.skipped = options, [], []
        p = torch.cuda.get_device_properties(0)
        self.context = {"date": datetime.now().astimezone().isoformat(timespec="seconds"), "host_name": platform.node(),
                        "executable": "bench/reference_gpu.py " + options.what, "num_cpus": os.cpu_count(),
                        "gpu": p.name, "gpu_sms": str(p.multi_processor_count), "driver": driver(),
                        "cuda_runtime": torch.version.cuda, "cudnn": str(torch.backends.cudnn.version()),
                        "torch": torch.__version__, "commit": options.commit}

    def wants(self, workload):
        return not self.options.workload or workload in self.options.workload

    def out_of_time(self, name):
        late = time.perf_counter() - STARTED > self.options.budget
        if late:
            self.skipped.append(name)
            print(f"{name:<72} skipped: out of time", flush=True)
        return late

    def add(self, name, seconds, unit="us", flops=0.0, **counters):
        """seconds: median, 10th and 90th percentile."""
        scale = {"us": 1e6, "ms": 1e3}[unit]
        row = {"name": name, "run_name": name, "run_type": "iteration", "repetitions": 1, "repetition_index": 0, "threads": 1,
               "iterations": 1, "real_time": seconds[0] * scale, "cpu_time": seconds[0] * scale, "time_unit": unit,
               "TFLOP/s": flops / seconds[0] * 1e-12, "p10_" + unit: seconds[1] * scale, "p90_" + unit: seconds[2] * scale} | counters
        if mhz := sm_mhz():
            row["sm_mhz"] = mhz
        self.rows.append(row)
        extra = "".join(f"  {key}={value:.4g}" for key, value in counters.items())
        print(f"{name:<72} {row['real_time']:>12.1f} {unit}  {row['TFLOP/s']:>7.1f} TFLOP/s{extra}", flush=True)

    def save(self):
        if self.skipped:
            self.context["skipped"] = ", ".join(self.skipped)
        self.context["seconds"] = f"{time.perf_counter() - STARTED:.1f}"
        if self.options.json:
            self.options.json.parent.mkdir(parents=True, exist_ok=True)
            self.options.json.write_text(json.dumps({"context": self.context, "benchmarks": self.rows}, indent=1) + "\n")


def driver():
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "-i", "0"]
    try:
        return subprocess.run(ask, check=True, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def sm_mhz():
    try:
        return torch.cuda.clock_rate()  # through NVML's Python package, where it is installed
    except Exception:  # whatever is missing: the clock is a note beside the result, never the reason to have none
        return 0


def summary(times):
    times = sorted(times)
    return [times[round(share * (len(times) - 1))] for share in (0.5, 0.1, 0.9)]


def work_seconds(run, repetitions):
    """Seconds from call to result; the first run warms up."""
    times = []
    for _ in range(repetitions + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return summary(times[1:])


def operand_sets(l2, num_bytes, make):
    """As many sets of operands as move five times the L2, at least two."""
    return [make() for _ in range(min(64, max(2, math.ceil(5 * l2 / num_bytes))))]


# ---------------------------------------------------------------------------------------------------------- attention

def normal(*shape, dtype=BF16):
    return torch.randn(*shape, device=CUDA, dtype=dtype)


def varlen(q, k, v, offsets, longest, causal):
    """FlashAttention-2 on packed sequences: q [T, H, D], k and v [K, Hkv, D]; of q and of k offsets [B + 1] and the longest."""
    return torch.ops.aten._flash_attention_forward(q, k, v, *offsets, *longest, 0.0, causal, False, scale=q.shape[-1] ** -0.5)[0]


def offsets_of(lengths):
    return torch.tensor([0, *lengths], device=CUDA).cumsum(0).to(torch.int32)


def visible_mean(q, k, v, sees):
    """What one query is worth, [H, D], plainly: q [H, D], the first `sees` of k and v [L, Hkv, D]."""
    group = q.shape[0] // k.shape[1]
    k, v = (t[:sees].float().repeat_interleave(group, 1) for t in (k, v))
    weights = (torch.einsum("hd,lhd->hl", q.float(), k) * q.shape[-1] ** -0.5).softmax(-1)
    return torch.einsum("hl,lhd->hd", weights, v)


class RivalAttention:
    """Implementations at one shape: of each a call on a set of operands, and its result."""

    def __init__(self, shape, dtype, sets_for):
        repeated = lambda values, n: values * n if len(values) == 1 else values
        q = shape["q"]
        own = [k or n for k, n in zip(repeated(shape["k"], len(q)), q)]
        prefix = [shape["prefix"][i] for i in repeated(shape["prefix_of"], len(q))]
        count = shape["count"][0]
        self.q, self.k = q * count, [k + p for k, p in zip(own, prefix)] * count  # a prefix is copied in front of each
        self.heads, self.kv_heads, self.dim = (shape[key][0] for key in ("heads", "kv_heads", "head_dim"))
        self.causal = shape["mask"] == "causal"
        num_bytes = 2 * 2 * self.dim * (sum(self.q) * self.heads + sum(self.k) * self.kv_heads)
        equal = len({*self.q, *self.k}) == 1
        lengths = lambda n: (len(n), n[0]) if equal else (sum(n),)
        self.sets = sets_for(num_bytes, lambda: [normal(*lengths(n), h, self.dim, dtype=dtype)
                                                 for n, h in ((self.q, self.heads), (self.k, self.kv_heads), (self.k, self.kv_heads))])
        if equal:
            backends = {"torch_cudnn": SDPBackend.CUDNN_ATTENTION, "torch_flash2": SDPBackend.FLASH_ATTENTION}
            self.calls = {name: lambda s, b=backend: self.dense(s, b) for name, backend in backends.items()}
        else:
            offsets, longest = [offsets_of(n) for n in (self.q, self.k)], (max(self.q), max(self.k))
            self.calls = {"torch_flash2_varlen": lambda s: varlen(*s, offsets, longest, self.causal)}

    def dense(self, operands, backend):
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(*(t.transpose(1, 2) for t in operands), is_causal=self.causal,
                                                  enable_gqa=self.heads != self.kv_heads).transpose(1, 2)

    def verify(self, result, operands):
        """First and last query of the last sequence."""
        q, k, v = (t.reshape(-1, *t.shape[-2:]) for t in operands)
        first, keys = len(q) - self.q[-1], self.k[-1]
        for i in (0, self.q[-1] - 1):
            sees = keys - self.q[-1] + 1 + i if self.causal else keys
            want = visible_mean(q[first + i], k[-keys:], v[-keys:], sees)
            torch.testing.assert_close(result.reshape(-1, *want.shape)[first + i].float(), want, atol=0.02, rtol=0.02)


class RivalLinear:
    def __init__(self, shape, dtype, sets_for):
        m, n, k = (shape[key][0] for key in "mnk")
        has_bias = shape["bias"][0] != 0
        self.sets = sets_for(2 * (m * k + n * k + m * n), lambda: (normal(m, k, dtype=dtype), normal(n, k, dtype=dtype),
                                                                  normal(n, dtype=dtype) if has_bias else None))
        self.calls = {"torch": lambda s: F.linear(*s)}

    def verify(self, result, operands):
        x, w, bias = operands
        want = x[-1].float() @ w.float().T + (0 if bias is None else bias.float())
        torch.testing.assert_close(result[-1].float(), want, atol=0.02 * x.shape[1] ** 0.5, rtol=0.02)


class RivalServer:
    """Answers the lab."""

    def __init__(self):
        self.at, self.windows = None, {}

    def open(self, op, dtype, shape, warm):
        self.at, self.windows = None, {}
        torch.cuda.empty_cache()
        dtypes = {"bf16": BF16, "f16": torch.float16}
        fused = op == "linear" and (shape["residual"][0] != 0 or shape["activation"] != "none")
        kinds = {"attention": RivalAttention, "linear": RivalLinear}
        if op not in kinds or dtype not in dtypes or fused:
            return {"implementations": []}
        l2 = torch.cuda.get_device_properties(0).L2_cache_size
        sets_for = lambda num_bytes, make: [make()] if warm else operand_sets(l2, num_bytes, make)
        self.at = kinds[op](shape, dtypes[dtype], sets_for)
        return {"implementations": list(self.at.calls)}

    def verify(self, implementation):
        operands = self.at.sets[-1]
        self.at.verify(self.at.calls[implementation](operands), operands)
        return {}

    def record(self, implementation, rounds):
        """A CUDA graph of rounds of all sets, as the lab's own windows are."""
        call, sets = self.at.calls[implementation], self.at.sets
        stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
        with torch.cuda.stream(stream):
            call(sets[0])  # what a library does at its first call may not be captured
        torch.cuda.synchronize()
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(rounds):
                for operands in sets:
                    call(operands)
        self.windows[implementation] = graph, rounds * len(sets)
        self.run(implementation)

    def window(self, implementation, seconds):
        self.record(implementation, 1)
        self.record(implementation, max(1, round(seconds / (self.run(implementation)["seconds"] * len(self.at.sets)))))
        return {"launches": self.windows[implementation][1]}

    def run(self, implementation):
        graph, launches = self.windows[implementation]
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        stop.record()
        stop.synchronize()
        return {"seconds": start.elapsed_time(stop) * 1e-3 / launches}


def rival():
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever libraries print is no answer
    say = lambda answer: print(json.dumps(answer), file=answers, flush=True)
    server = RivalServer()
    say({"torch": torch.__version__, "cuda": torch.version.cuda, "cudnn": str(torch.backends.cudnn.version()), "driver": driver()})
    for line in sys.stdin:
        request = json.loads(line)
        try:
            say(getattr(server, request.pop("do"))(**request))
        except Exception as error:  # the lab says it of this implementation, and goes on
            say({"error": f"{type(error).__name__}: " + " ".join(str(error).split())[:300]})


# ---------------------------------------------------------------------------------------------- the models' own FLOPs

def text_flops(size, lengths):
    t = TEXT[size]
    q, kv = t["num_attention_heads"] * HEAD_DIM, t["num_key_value_heads"] * HEAD_DIM
    weights = t["hidden_size"] * (2 * q + 2 * kv + 3 * t["intermediate_size"])
    return t["num_hidden_layers"] * sum(2 * weights * n + 4 * q * n * (n + 1) / 2 for n in lengths)


def vision_flops(size, images):
    v = VISION[size]
    weights = v["hidden_size"] * (4 * v["hidden_size"] + 2 * v["intermediate_size"])
    wide = 4 * v["hidden_size"]
    mergers = (1 + len(v["deepstack_visual_indexes"])) * wide * (wide + v["out_hidden_size"])
    blocks = v["depth"] * (2 * weights * PATCHES + 4 * v["hidden_size"] * PATCHES**2)
    return images * (blocks + 2 * mergers * IMAGE_TOKENS + 2 * PATCH_DIM * v["hidden_size"] * PATCHES)


def add_workload(results, implementation, size, name, run, lengths, images=0, repetitions=5):
    full_name = f"workload/{implementation}/bf16/{size}/{name}"
    if not results.wants(name) or results.out_of_time(full_name):
        return
    torch.cuda.reset_peak_memory_stats()
    try:
        seconds = work_seconds(run, repetitions)
    except torch.cuda.OutOfMemoryError:
        torch.cuda.empty_cache()
        results.skipped.append(full_name + " (out of memory)")
        return
    results.add(full_name, seconds, "ms", text_flops(size, lengths) + vision_flops(size, images),
                **{"pairs/s": len(lengths) / seconds[0], "tokens/s": sum(lengths) / seconds[0],
                   "peak_gib": torch.cuda.max_memory_allocated() / 2**30})


# ------------------------------------------------------------------------------------------------------- transformers

def workloads(results):
    import transformers
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    size = results.options.size
    rope = dict(rope_type="default", rope_theta=THETA, mrope_section=[24, 20, 20], mrope_interleaved=True)
    text = TEXT[size] | dict(head_dim=HEAD_DIM, vocab_size=VOCAB_SIZE, max_position_embeddings=262144, rms_norm_eps=EPS, rope_parameters=rope)
    config = Qwen3VLConfig(text_config=text, vision_config=VISION[size], tie_word_embeddings=size == "2b")
    torch.manual_seed(0)
    torch.set_default_dtype(BF16)
    with torch.device(CUDA):
        whole = Qwen3VLForConditionalGeneration._from_config(config, attn_implementation="sdpa", dtype=BF16).eval()
    torch.set_default_dtype(torch.float32)
    results.context |= {"transformers": transformers.__version__, "attn_implementation": "sdpa"}
    head = (whole.lm_head.weight[9693] - whole.lm_head.weight[2152]).detach()

    @torch.no_grad()
    def score(inputs):
        hidden = whole.model(use_cache=False, **inputs).last_hidden_state[:, -1]
        return torch.sigmoid(hidden @ head).cpu()

    generator = torch.Generator().manual_seed(2)

    def padded(lengths):
        """Random ids on the right, padding on the left."""
        ids, mask = torch.full((len(lengths), max(lengths)), 151643), torch.zeros(len(lengths), max(lengths), dtype=torch.long)
        for row, n in enumerate(lengths):
            ids[row, -n:] = torch.randint(0, 150000, (n,), generator=generator)
            mask[row, -n:] = 1
        return {"input_ids": ids.to(CUDA), "attention_mask": mask.to(CUDA)}

    def images(count):
        before = torch.randint(0, 150000, (TEXT_BEFORE,), generator=generator)
        after = torch.randint(0, 150000, (TEXT_AFTER - 2,), generator=generator)
        row = torch.cat([before, torch.tensor([VISION_START]), torch.full((IMAGE_TOKENS,), IMAGE), torch.tensor([VISION_END]), after])
        ids = row.repeat(count, 1).to(CUDA)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "mm_token_type_ids": (ids == IMAGE).int(),
                "pixel_values": normal(count * PATCHES, PATCH_DIM), "image_grid_thw": torch.tensor([[1, *GRID]] * count, device=CUDA)}

    def add(name, inputs, lengths, num_images=0, repetitions=3):
        add_workload(results, "transformers", size, name, lambda: [score(i) for i in inputs], lengths, num_images, repetitions)

    lengths, image_length = text100_lengths(), TEXT_BEFORE + IMAGE_TOKENS + TEXT_AFTER
    add("1x128", [padded([128])], [128], repetitions=15)
    add("text100", [padded([n]) for n in lengths], lengths, repetitions=2)
    add("text100_batches_of_8", [padded(lengths[i:i + 8]) for i in range(0, 100, 8)], lengths)
    add("text100_batches_of_32", [padded(lengths[i:i + 32]) for i in range(0, 100, 32)], lengths)
    add("32x512", [padded([512] * 32)], [512] * 32)
    add("1x8192", [padded([8192])], [8192])
    add("images1", [images(1)], [image_length], 1)
    add("images8", [images(1) for _ in range(8)], [image_length] * 8, 8)
    add("images8_one_batch", [images(8)], [image_length] * 8, 8)
    add("1x32768", [padded([32768])], [32768], repetitions=2)


# -------------------------------------------------------------------------------------------------------------- tuned

def weight(rows, columns):
    return torch.empty(rows, columns, device=CUDA, dtype=BF16).normal_(0, columns ** -0.5)


def rms_norm(x, gain):
    wide = x.float()
    return (wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + EPS)).to(BF16) * gain


def rotate(x, cosine, sine):
    """[T, heads, D] by [T, 1, D / 2]"""
    first, second = x.float().chunk(2, -1)
    return torch.cat([first * cosine - second * sine, second * cosine + first * sine], -1).to(BF16)


class Equal:
    """`count` sequences of one length, side by side."""

    def __init__(self, count, length, backend=SDPBackend.CUDNN_ATTENTION):
        self.count, self.lengths, self.backend = count, [length] * count, backend

    def attend(self, q, k, v, causal):
        split = [t.unflatten(0, (self.count, -1)).transpose(1, 2) for t in (q, k, v)]
        out = F.scaled_dot_product_attention(*split, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])
        return out.transpose(1, 2).flatten(0, 1)


class Ragged:
    """Sequences of any lengths, packed."""

    backend = SDPBackend.FLASH_ATTENTION

    def __init__(self, lengths):
        self.lengths, self.offsets, self.longest = lengths, offsets_of(lengths), max(lengths)

    def attend(self, q, k, v, causal):
        return varlen(q, k, v, (self.offsets, self.offsets), (self.longest, self.longest), causal)


class TunedText:
    def __init__(self, size):
        t = TEXT[size]
        self.heads, self.kv_heads, self.hidden = t["num_attention_heads"], t["num_key_value_heads"], t["hidden_size"]
        c, f = self.hidden, t["intermediate_size"]
        q, kv = self.heads * HEAD_DIM, self.kv_heads * HEAD_DIM
        gain = lambda n: torch.ones(n, device=CUDA, dtype=BF16)
        self.layers = [(gain(c), weight(q + 2 * kv, c), gain(HEAD_DIM), gain(HEAD_DIM), weight(c, q), gain(c), weight(2 * f, c), weight(c, f))
                       for _ in range(t["num_hidden_layers"])]
        self.table, self.norm, self.head = weight(VOCAB_SIZE, c), gain(c), weight(1, c)[0]
        self.frequencies = THETA ** (-torch.arange(HEAD_DIM // 2, device=CUDA) / (HEAD_DIM / 2))
        # What surrounds attention is compiled; attention is a library's, and who calls it changes with the batch.
        self.before = torch.compile(self.before_attention, dynamic=False)
        self.after = torch.compile(self.after_attention, dynamic=False)

    def before_attention(self, x, norm, qkv, q_norm, k_norm, cosine, sine):
        q, k, v = F.linear(rms_norm(x, norm), qkv).unflatten(-1, (-1, HEAD_DIM)).split([self.heads, self.kv_heads, self.kv_heads], 1)
        return rotate(rms_norm(q, q_norm), cosine, sine), rotate(rms_norm(k, k_norm), cosine, sine), v

    def after_attention(self, x, attended, out, norm, gate_up, down):
        x = x + F.linear(attended.flatten(1), out)
        gate, up = F.linear(rms_norm(x, norm), gate_up).chunk(2, -1)
        return x + F.linear(F.silu(gate) * up, down)

    def forward(self, ids, positions, last, batch, visual=None):
        """visual: rows of the image tokens, their embeddings, the DeepStack levels"""
        x = F.embedding(ids, self.table)
        if visual:
            rows, embedded, levels = visual
            x[rows] = embedded
        angles = positions[:, None, None] * self.frequencies
        cosine, sine = angles.cos(), angles.sin()
        for i, (norm, qkv, q_norm, k_norm, out, post_norm, gate_up, down) in enumerate(self.layers):
            q, k, v = self.before(x, norm, qkv, q_norm, k_norm, cosine, sine)
            x = self.after(x, batch.attend(q, k, v, True), out, post_norm, gate_up, down)
            if visual and i < len(levels):
                x[rows] += levels[i]
        return torch.sigmoid(rms_norm(x[last], self.norm) @ self.head)


class TunedVision:
    def __init__(self, size):
        v = VISION[size]
        c, f, self.heads, self.depth = v["hidden_size"], v["intermediate_size"], v["num_heads"], v["depth"]
        self.hidden, self.deepstack = c, v["deepstack_visual_indexes"]
        bias, gain = (lambda n: torch.randn(n, device=CUDA).mul(0.1).to(BF16)), (lambda n: torch.ones(n, device=CUDA, dtype=BF16))
        self.patch, self.patch_bias = weight(c, PATCH_DIM), bias(c)
        self.blocks = [(gain(c), bias(c), weight(3 * c, c), bias(3 * c), weight(c, c), bias(c), gain(c), bias(c), weight(f, c), bias(f), weight(c, f), bias(c))
                       for _ in range(self.depth)]
        self.mergers = [(weight(4 * c, 4 * c), bias(4 * c), weight(v["out_hidden_size"], 4 * c), bias(v["out_hidden_size"]))
                        for _ in range(1 + len(self.deepstack))]
        self.before = torch.compile(self.before_attention, dynamic=False)
        self.after = torch.compile(self.after_attention, dynamic=False)
        self.merge = torch.compile(self.merge_patches, dynamic=False)

    def before_attention(self, x, norm, norm_bias, qkv, qkv_bias, cosine, sine):
        q, k, v = F.linear(F.layer_norm(x, (self.hidden,), norm, norm_bias, EPS), qkv, qkv_bias).unflatten(-1, (3, self.heads, -1)).unbind(1)
        return rotate(q, cosine, sine), rotate(k, cosine, sine), v

    def after_attention(self, x, attended, out, out_bias, norm, norm_bias, up, up_bias, down, down_bias):
        x = x + F.linear(attended.flatten(1), out, out_bias)
        h = F.layer_norm(x, (self.hidden,), norm, norm_bias, EPS)
        return x + F.linear(F.gelu(F.linear(h, up, up_bias), approximate="tanh"), down, down_bias)

    def merge_patches(self, x, up, up_bias, down, down_bias):
        wide = F.layer_norm(x, (self.hidden,)).view(-1, 4 * self.hidden)
        return F.linear(F.gelu(F.linear(wide, up, up_bias)), down, down_bias)

    def forward(self, pixels, cosine, sine, batch):
        x, levels = F.linear(pixels, self.patch, self.patch_bias), []
        for i, (norm, norm_bias, qkv, qkv_bias, *rest) in enumerate(self.blocks):
            q, k, v = self.before(x, norm, norm_bias, qkv, qkv_bias, cosine, sine)
            x = self.after(x, batch.attend(q, k, v, False), *rest)
            if i in self.deepstack:
                levels.append(self.merge(x, *self.mergers[len(levels)]))
        return self.merge(x, *self.mergers[-1]), levels


def tuned(results):
    size = results.options.size
    torch._dynamo.config.recompile_limit = 64
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        text = TunedText(size)

        def inputs(lengths):
            ids = torch.randint(0, 150000, (sum(lengths),), generator=generator).to(CUDA)
            positions = torch.cat([torch.arange(n) for n in lengths]).float().to(CUDA)
            return ids, positions, torch.tensor(lengths, device=CUDA).cumsum(0) - 1

        def add(name, batch, repetitions=5, graph=False, images=0, run=None):
            if not results.wants(name) or results.out_of_time(f"workload/tuned_torch/bf16/{size}/{name}"):
                return
            if run is None:
                arguments = inputs(batch.lengths)
                run = lambda: text.forward(*arguments, batch)
            context = sdpa_kernel(batch.backend) if isinstance(batch, Equal) else nullcontext()
            with context:
                call = captured(run) if graph else lambda: run().cpu()
                add_workload(results, "tuned_torch", size, name, call, batch.lengths, images, repetitions)

        # Dearest compilations last: each number of tokens is compiled on its own.
        add("1x128", Equal(1, 128), 30, graph=True)
        add("text100", Ragged(text100_lengths()))
        add("32x512", Equal(32, 512))
        add("1x8192", Equal(1, 8192))
        if results.wants("images8") and not results.out_of_time(f"workload/tuned_torch/bf16/{size}/images8"):
            add("images8", Equal(8, TEXT_BEFORE + IMAGE_TOKENS + TEXT_AFTER), images=8, run=tuned_images(text, size, 8, inputs))
        add("1x32768", Equal(1, 32768), 3)


def tuned_images(text, size, count, inputs):
    """Vision tower and decoder of `count` documents of one image."""
    vision, length = TunedVision(size), TEXT_BEFORE + IMAGE_TOKENS + TEXT_AFTER
    batch, patches = Equal(count, length), Equal(count, PATCHES)
    ids, positions, last = inputs(batch.lengths)
    pixels = normal(count * PATCHES, PATCH_DIM)
    # Rows and columns turn half of the pairs each, as in the tower; the order of patches costs nothing.
    pairs = vision.hidden // vision.heads // 2
    frequencies = 1e4 ** (-torch.arange(pairs // 2, device=CUDA) / (pairs / 2))
    at = torch.arange(PATCHES, device=CUDA).repeat(count)
    angles = torch.cat([(at // GRID[1])[:, None] * frequencies, (at % GRID[1])[:, None] * frequencies], -1)[:, None]
    cosine, sine = angles.cos(), angles.sin()
    rows = (torch.arange(count, device=CUDA)[:, None] * length + TEXT_BEFORE + torch.arange(IMAGE_TOKENS, device=CUDA)).flatten()

    def run():
        embedded, levels = vision.forward(pixels, cosine, sine, patches)
        return text.forward(ids, positions, last, batch, (rows, embedded, levels))
    return run


def captured(run):
    """The same run as one CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        scores = run()

    def replay():
        graph.replay()
        return scores.cpu()
    return replay


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    whats = {f.__name__: f for f in (workloads, tuned)}
    parser.add_argument("what", choices=[*whats, rival.__name__])
    parser.add_argument("--size", choices=TEXT, default="8b", help="of workloads and tuned; 8b")
    parser.add_argument("--budget", type=float, default=120, help="seconds; 120")
    parser.add_argument("--workload", action="append", help="only this one of workloads or tuned; may be given again")
    parser.add_argument("--json", type=Path, help="write the result here")
    parser.add_argument("--commit", default=os.environ.get("VLR_COMMIT", "unknown"), help="for the result's context")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("no GPU")
    torch.manual_seed(0)
    if options.what == rival.__name__:
        return rival()
    results = Results(options)
    try:
        whats[options.what](results)
    finally:
        results.save()


if __name__ == "__main__":
    main()
