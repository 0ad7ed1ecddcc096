#!/usr/bin/env python3
"""Writes tests/golden/quant: linear layers as bitsandbytes stores them, and what it reads from them.
With --read, checks that bitsandbytes reads what `vlr quantize` wrote.

    python3 -m venv venv && venv/bin/pip install torch==2.15.0 bitsandbytes==0.50.2 safetensors numpy
    venv/bin/python tools/make_quant_fixtures.py
    build/cpu/tools/vlr quantize -m demo/model --out OUT --quant nf4
    venv/bin/python tools/make_quant_fixtures.py --read OUT --original demo/model

    original.safetensors  NAME.weight bf16 [N, K]
    nf4.safetensors       the state_dict of Linear4bit: nf4, absmax quantised as well
    int8.safetensors      the state_dict of Linear8bitLt
    values.safetensors    NAME.nf4.bf16, NAME.nf4.f32, NAME.int8.f32: the values of those, [N, K]
    versions.json         what wrote them, and the seed
"""

import argparse
import json
import pathlib
import platform
import sys

import bitsandbytes as bnb
import numpy as np
import safetensors
import torch
from safetensors.torch import load_file, save_file

OUT = pathlib.Path(__file__).resolve().parent.parent / "tests/golden/quant"
SEED = 20250117

# Two groups of 256 blocks; blocks of 64 that straddle rows; a block a row; a block of 22 at the end.
SHAPES = {"wide": (96, 256), "straddling": (40, 72), "narrow": (7, 64), "tail": (3, 50)}

# Largest relative L2 of a weight: a normal one has 0.09 and 0.01, outliers make it more.
LARGEST_ERROR = {"nf4": 0.15, "int8": 0.03}

NF4_STATE = ".quant_state.bitsandbytes__nf4"


def originals():
    """Weights of the size of a trained model's, one of them with an outlier and a block of zeros."""
    generator = torch.Generator().manual_seed(SEED)
    weights = {
        name: (torch.randn(shape, generator=generator) * 0.02).to(torch.bfloat16)
        for name, shape in SHAPES.items()
    }
    weights["wide"][5, 17] = 0.75
    weights["wide"][11, 64:128] = 0
    return weights


def linear_nf4(weight):
    n, k = weight.shape
    module = bnb.nn.Linear4bit(k, n, bias=False, quant_type="nf4", compress_statistics=True)
    module.weight = bnb.nn.Params4bit(
        weight, quant_type="nf4", compress_statistics=True, module=module
    )
    return module.to("cpu")  # which quantises


def linear_int8(weight):
    n, k = weight.shape
    module = bnb.nn.Linear8bitLt(k, n, bias=False, has_fp16_weights=False)
    module.weight = bnb.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    return module.to("cpu")


def nf4_values(codes, state, dtype):
    """bitsandbytes' values of a weight, in any dtype."""
    state.dtype = dtype
    return bnb.functional.dequantize_4bit(codes, state)


def write_fixtures():
    OUT.mkdir(exist_ok=True)
    weights = originals()
    nf4, int8, values = {}, {}, {}
    for name, weight in weights.items():
        module = linear_nf4(weight)
        nf4 |= {f"{name}.{key}": t for key, t in module.state_dict().items()}
        for dtype, suffix in ((torch.bfloat16, "bf16"), (torch.float32, "f32")):
            values[f"{name}.nf4.{suffix}"] = nf4_values(
                module.weight.data, module.weight.quant_state, dtype
            )
        module = linear_int8(weight)
        int8 |= {f"{name}.{key}": t for key, t in module.state_dict().items()}
        values[f"{name}.int8.f32"] = bnb.functional.int8_vectorwise_dequant(
            module.weight.data, module.weight.SCB
        )
    files = {
        "original": {f"{name}.weight": weight for name, weight in weights.items()},
        "nf4": nf4,
        "int8": int8,
        "values": values,
    }
    for name, tensors in files.items():
        save_file({key: t.contiguous() for key, t in tensors.items()}, OUT / f"{name}.safetensors")
    versions = {
        "bitsandbytes": bnb.__version__,
        "torch": torch.__version__,
        "safetensors": safetensors.__version__,
        "python": platform.python_version(),
        "device": "cpu",
        "seed": SEED,
    }
    (OUT / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


def load_folder(folder):
    return {k: t for file in sorted(folder.glob("*.safetensors")) for k, t in load_file(file).items()}


def decode_nf4(tensors, name):
    """The definition, in f32, each operation rounded once."""
    state = json.loads(bytes(tensors[name + NF4_STATE].tolist()))
    array = lambda suffix: tensors[name + suffix].numpy()
    blocks = np.arange(array(".absmax").size)
    absmax = array(".nested_quant_map")[array(".absmax")] * array(".nested_absmax")[blocks // 256]
    absmax = absmax + np.float32(state["nested_offset"])
    packed = tensors[name].numpy().ravel()
    codes = np.stack([packed >> 4, packed & 15], axis=1).ravel()
    values = array(".quant_map")[codes] * absmax[np.arange(codes.size) // 64]
    assert values.dtype == np.float32
    return torch.from_numpy(values.reshape(state["shape"]))


def read(folder, original):
    """Every nf4 and int8 weight of a checkpoint by bitsandbytes, against what it was made from."""
    tensors, before = load_folder(folder), load_folder(original)
    errors, inexact = {"nf4": [], "int8": []}, 0
    for name in sorted(tensors):
        if name + NF4_STATE in tensors:
            # What transformers hands over: all that begins with the weight's name.
            stats = {k: t for k, t in tensors.items() if k.startswith(name + ".")}
            weight = bnb.nn.Params4bit.from_prequantized(tensors[name], stats, device="cpu")
            values = nf4_values(weight.data, weight.quant_state, torch.float32)
            own, form = decode_nf4(tensors, name), "nf4"
            exact = torch.equal(values, own) and torch.equal(
                nf4_values(weight.data, weight.quant_state, torch.bfloat16), own.bfloat16()
            )
            inexact += not exact
        elif tensors[name].dtype == torch.int8:
            n, k = tensors[name].shape
            module = name.removesuffix(".weight")
            linear = linear_int8(torch.ones(n, k))
            keys = ("weight", "SCB", "weight_format")
            linear.load_state_dict({key: tensors[f"{module}.{key}"] for key in keys})
            values = bnb.functional.int8_vectorwise_dequant(linear.weight.data, linear.weight.SCB)
            form = "int8"
        else:
            continue
        want = before[name].float()
        errors[form].append(((values - want).norm() / want.norm()).item())
    for form, distances in errors.items():
        if distances:
            print(
                f"{form}: {len(distances)} weights read by bitsandbytes {bnb.__version__}, relative"
                f" L2 from the original {min(distances):.4f} to {max(distances):.4f}"
            )
    if errors["nf4"]:
        exact = len(errors["nf4"]) - inexact
        print(f"nf4: {exact} of them, in f32 and in bf16, bit for bit as the definition says")
    good = any(errors.values()) and inexact == 0
    return good and all(max(d, default=0) <= LARGEST_ERROR[form] for form, d in errors.items())


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--read", type=pathlib.Path, help="folder that `vlr quantize` wrote")
    parser.add_argument("--original", type=pathlib.Path, help="the checkpoint that it read")
    args = parser.parse_args()
    if not args.read:
        write_fixtures()
    elif not args.original:
        parser.error("--read needs --original")
    elif not read(args.read, args.original):
        sys.exit("bitsandbytes does not read this checkpoint as it should")


if __name__ == "__main__":
    main()
