#!/usr/bin/env python3
"""Packs a folder of golden files into tests/golden/expected.tar.xz.

    tools/pack_goldens.py FOLDER tests/golden/expected.tar.xz     (needs numpy)

FOLDER holds a/ and b/ with *.json and *.safetensors as transformers' run wrote them. Nothing is dropped.
One tensor changes its type: pixel_values, half of all bytes, goes from F32 to U8, because each of its values
is (u - 127.5) / 127.5 of a byte u; that the way back gives the same 32 bits is checked for every value.
The archive depends on the files' names and bytes alone: no times, no owners.
"""
import io
import json
import lzma
import pathlib
import struct
import sys
import tarfile

import numpy as np

# Most of the rest are floats that stand at multiples of 4: the position in a word predicts a byte better than
# the byte before it does. 6 % smaller than xz -9e.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 0, "lp": 2, "pb": 2}]


def to_bytes(data, where):
    x = np.frombuffer(data, "<f4")
    u = np.rint(x.astype(np.float64) * 127.5 + 127.5)
    if u.min() < 0 or u.max() > 255:
        sys.exit(f"{where}: a value outside [-1, 1]")
    back = (u.astype(np.float32) - np.float32(127.5)) / np.float32(127.5)
    if (back.view(np.uint32) != x.view(np.uint32)).any():
        sys.exit(f"{where}: a value that is no (u - 127.5) / 127.5")
    return u.astype(np.uint8).tobytes()


def repack(blob, where):
    size, = struct.unpack_from("<Q", blob)
    header = json.loads(blob[8:8 + size])
    out, body = {}, b""
    # The words first and the bytes last, so that every tensor is aligned.
    for name, t in sorted(header.items(), key=lambda item: (item[0] == "pixel_values", item[0])):
        begin, end = t["data_offsets"]
        data, dtype = blob[8 + size:][begin:end], t["dtype"]
        if name == "pixel_values":
            data, dtype = to_bytes(data, f"{where}: {name}"), "U8"
        out[name] = {"dtype": dtype, "shape": t["shape"], "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(out, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def main(folder, packed):
    folder = pathlib.Path(folder)
    files = [p for p in sorted(folder.glob("*/*")) if p.suffix in (".json", ".safetensors")]
    files.sort(key=lambda p: p.suffix)  # like beside like
    with lzma.open(packed, "wb", filters=FILTERS) as xz, tarfile.open(fileobj=xz, mode="w") as tar:
        for path in files:
            blob = path.read_bytes()
            if path.suffix == ".safetensors":
                blob = repack(blob, path)
            info = tarfile.TarInfo(str(path.relative_to(folder)))
            info.size = len(blob)
            tar.addfile(info, io.BytesIO(blob))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
