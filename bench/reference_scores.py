#!/usr/bin/env python3
"""Log-odds of the synthetic 2b and 8b against transformers in fp32, on one GPU.

  vlr bench --synthetic 8b --workload text100 --workload images1 --scores scores.json
  bench/reference_scores.py --size 8b --scores scores.json --json distances.json

The weights are made here from their names (the rules are in model/synthetic.h) and the pictures from
their places, so nothing but token ids and scores travels. Prints the distance of vlr's log-odds, and
of transformers' own in bf16, from transformers' in fp32.
"""
import argparse
import json
import math
import time

import torch
import transformers
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

YES, NO = 9693, 2152  # the tokenizer's ids
SIZES = {
    "2b": (dict(hidden_size=2048, intermediate_size=6144, num_hidden_layers=28, num_attention_heads=16),
           dict(depth=24, hidden_size=1024, intermediate_size=4096, num_heads=16, out_hidden_size=2048,
                deepstack_visual_indexes=[5, 11, 17]), True),
    "8b": (dict(hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32),
           dict(depth=27, hidden_size=1152, intermediate_size=4304, num_heads=16, out_hidden_size=4096,
                deepstack_visual_indexes=[8, 16, 24]), False),
}


def fnv1a64(text):
    h = 0xCBF29CE484222325
    for byte in text.encode():
        h = (h ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return h


def signed(v):
    v &= (1 << 64) - 1
    return v - (1 << 64) if v >> 63 else v


def shift_right(z, bits):  # logical, on int64
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def splitmix64(z):
    z = z + signed(0x9E3779B97F4A7C15)
    z = (z ^ shift_right(z, 30)) * signed(0xBF58476D1CE4E5B9)
    z = (z ^ shift_right(z, 27)) * signed(0x94D049BB133111EB)
    return z ^ shift_right(z, 31)


@torch.no_grad()
def fill(parameter, name):
    """The values that the synthetic checkpoint has under this name."""
    flat = parameter.data.view(-1)
    per_row = flat.numel() // parameter.shape[0]
    scale = 2.0 ** round(math.log2(math.sqrt(3 / per_row)))
    base = signed(fnv1a64(name))
    for begin in range(0, flat.numel(), 1 << 26):
        end = min(begin + (1 << 26), flat.numel())
        z = splitmix64(torch.arange(begin, end, device=flat.device) + base)
        u = (2 * shift_right(z, 57).double() - 127) / 128
        if "norm" in name and name.endswith("weight"):
            value = 1 + shift_right(z, 61).double() / 32
        elif name.endswith("bias"):
            value = u / 8
        elif "embed_tokens" in name or name == "lm_head.weight":
            value = u / 4
        elif "pos_embed" in name:
            value = u
        else:
            value = u * scale
        flat[begin:end] = value.to(flat.dtype)


def make_model(size, dtype):
    text, vision, tied = SIZES[size]
    config = Qwen3VLConfig(
        tie_word_embeddings=tied,
        text_config=dict(**text, num_key_value_heads=8, head_dim=128, vocab_size=151936, rms_norm_eps=1e-6,
                         max_position_embeddings=262144, tie_word_embeddings=tied,
                         rope_parameters=dict(rope_type="default", rope_theta=5e6, mrope_section=[24, 20, 20],
                                              mrope_interleaved=True)),
        vision_config=vision)
    torch.set_default_dtype(dtype)
    with torch.device("cuda"):
        model = Qwen3VLForConditionalGeneration._from_config(config, attn_implementation="sdpa", dtype=dtype)
    torch.set_default_dtype(torch.float32)
    for name, parameter in model.named_parameters():
        fill(parameter, name)
    return model.eval()


@torch.no_grad()
def log_odds(model, case):
    ids = torch.tensor([case["ids"]], device="cuda")
    arguments = dict(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    if case.get("patches"):
        first, count = case["patches"]
        places = torch.arange(first * 1536, (first + count) * 1536, device="cuda")
        pixels = shift_right(splitmix64(places), 56).float()
        arguments["pixel_values"] = ((pixels - 127.5) / 127.5).view(count, 1536).to(model.dtype)
        arguments["image_grid_thw"] = torch.tensor([case["grid"]], device="cuda")
        arguments["mm_token_type_ids"] = (ids == model.config.image_token_id).int()
    hidden = model.model(**arguments).last_hidden_state[0, -1].float()
    head = model.get_output_embeddings().weight
    return (hidden @ (head[YES].float() - head[NO].float())).item()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, required=True)
    parser.add_argument("--scores", nargs="+", required=True, help="files of vlr bench --scores")
    parser.add_argument("--pairs", type=int, default=8, help="at most so many of a workload")
    parser.add_argument("--json")
    a = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    cases = []
    for path in a.scores:
        with open(path) as f:
            for case in json.load(f)["cases"]:
                if sum(c["workload"] == case["workload"] and c["file"] == path for c in cases) < a.pairs:
                    cases.append(dict(case, file=path))
    values = {}
    for dtype in (torch.float32, torch.bfloat16):
        start = time.time()
        model = make_model(a.size, dtype)
        made = time.time()
        values[dtype] = [log_odds(model, case) for case in cases]
        print(f"{dtype}: made in {made - start:.1f} s, scored in {time.time() - made:.1f} s", flush=True)
        del model
        torch.cuda.empty_cache()
    rows = [dict(file=c["file"], workload=c["workload"], pair=c["pair"], tokens=len(c["ids"]), vlr=c["log_odds"],
                 fp32=exact, bf16=half) for c, exact, half in zip(cases, values[torch.float32], values[torch.bfloat16])]
    print(f"{'workload':16} {'pair':>4} {'tokens':>6} {'fp32':>9} {'vlr':>9} {'off':>8} {'bf16 off':>8}")
    for r in rows:
        print(f"{r['workload']:16} {r['pair']:4} {r['tokens']:6} {r['fp32']:9.4f} {r['vlr']:9.4f} "
              f"{r['vlr'] - r['fp32']:8.4f} {r['bf16'] - r['fp32']:8.4f}")
    rms = lambda key: math.sqrt(sum((r[key] - r["fp32"]) ** 2 for r in rows) / len(rows))
    print(f"rms: vlr {rms('vlr'):.4f}, transformers in bf16 {rms('bf16'):.4f}")
    if a.json:
        with open(a.json, "w") as f:
            json.dump(dict(size=a.size, device=torch.cuda.get_device_name(), torch=torch.__version__,
                           transformers=transformers.__version__, rms_vlr=rms("vlr"), rms_bf16=rms("bf16"),
                           cases=rows), f, indent=1)


if __name__ == "__main__":
    main()
