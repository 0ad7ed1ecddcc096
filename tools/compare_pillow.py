#!/usr/bin/env python3
"""Holds vlr's picture decoders against Pillow, on a thousand generated files of all kinds.

    python3 -m venv venv && venv/bin/pip install pillow==12.0.0 numpy
    cmake --build build/cpu --target decode_image
    venv/bin/python tools/compare_pillow.py build/cpu/tools/decode_image

What Pillow opens has to come out as the reference's conversion to RGB gives it: equal in every bit
for JPEG, PNG, BMP, GIF and WebP, within one level for TIFF, JPEG 2000 and PNM, within three for AVIF
(libyuv turns its planes into RGB with coefficients of few bits; vlr does not). A clear error instead of pixels is counted apart, and so
is the reverse: pixels from a file that Pillow refuses. Prints a table in Markdown; the exit status
is 1 when something differs by more. All seeds are fixed.
"""

import argparse
import collections
import io
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np
import PIL
from PIL import Image, ImageOps, features

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from make_image_fixtures import bmp, chunk, gif, lzw, picture, png, save  # noqa: E402

SIZES = (
    (1, 1),
    (1, 37),
    (53, 1),
    (2, 3),
    (7, 5),
    (16, 16),
    (17, 13),
    (31, 64),
    (100, 75),
    (641, 479),
)
SMALL = SIZES[:-1]
EXACT = ("jpeg", "png", "bmp", "gif", "webp")


def to_rgb(im):
    """The reference's conversion."""
    if im.mode == "RGBA":
        white = Image.new("RGB", im.size, (255, 255, 255))
        white.paste(im, mask=im.split()[3])
        return np.array(white)
    return np.array(im.convert("RGB"))


def in_mode(mode, size, seed):
    """A picture of the mode, with all that it can hold: transparency of all degrees, 16 bits..."""
    width, height = size
    rng = np.random.default_rng([seed, width, height])
    channels = {"LA": 2, "RGBA": 4, "CMYK": 4, "RGBX": 4}.get(mode, 3)
    pixels = picture(width, height, channels, seed)
    if mode == "1":
        return Image.fromarray(pixels[..., 0]).convert("1")
    if mode == "L":
        return Image.fromarray(pixels[..., 0])
    if mode in ("P", "PA"):
        im = Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8))
        im.putpalette(rng.integers(0, 256, 768, dtype=np.uint8).tobytes())
        return im.convert("PA") if mode == "PA" else im
    if mode == "I;16":
        return Image.fromarray((pixels[..., 0].astype(np.uint16) * 3))
    if mode == "I":
        return Image.fromarray(pixels[..., 0].astype(np.int32) * 3 - 60)
    if mode == "F":
        return Image.fromarray(pixels[..., 0].astype(np.float32) * 1.5 - 30)
    if mode in ("YCbCr", "LAB", "HSV"):
        return Image.frombytes(mode, size, pixels.tobytes())
    return Image.fromarray(pixels, mode) if mode in ("CMYK", "RGBX") else Image.fromarray(pixels)


def jpegs():
    for i, size in enumerate(SIZES):
        for name, subsampling in (("4:4:4", 0), ("4:2:2", 1), ("4:2:0", 2)):
            for quality in (30, 75, 90, 100):
                yield f"RGB {name}", save(
                    in_mode("RGB", size, i), "jpeg", quality=quality, subsampling=subsampling
                )
            yield f"RGB {name} progressive", save(
                in_mode("RGB", size, i), "jpeg", progressive=True, subsampling=subsampling
            )
        yield "RGB restarts", save(in_mode("RGB", size, i), "jpeg", restart_marker_blocks=3)
        yield "RGB stored", save(in_mode("RGB", size, i), "jpeg", keep_rgb=True)
        yield "L", save(in_mode("L", size, i), "jpeg")
        yield "L progressive", save(in_mode("L", size, i), "jpeg", progressive=True)
        yield "1", save(in_mode("1", size, i), "jpeg")
        yield "YCbCr", save(in_mode("YCbCr", size, i), "jpeg")
        for quality in (60, 95):
            cmyk = save(in_mode("CMYK", size, i), "jpeg", quality=quality)
            adobe = cmyk.index(b"Adobe")
            yield "CMYK", cmyk
            yield "YCCK", cmyk[: adobe + 11] + b"\2" + cmyk[adobe + 12 :]
            yield "CMYK without Adobe", cmyk[: adobe - 4] + cmyk[adobe + 12 :]
        yield "CMYK progressive", save(in_mode("CMYK", size, i), "jpeg", progressive=True)
    # Sampling factors that Pillow does not write: as many blocks in another order.
    for seed in range(6):
        for name, subsampling, before, after in (
            ("4:4:0", 1, 0x21, 0x12),
            ("4:1:1", 2, 0x22, 0x41),
            ("1x4", 2, 0x22, 0x14),
        ):
            data = bytearray(save(in_mode("RGB", (64, 64), seed), "jpeg", subsampling=subsampling))
            at = data.index(b"\xff\xc0") + 11
            assert data[at] == before
            data[at] = after
            yield f"RGB {name}", bytes(data)


def pngs():
    rng = np.random.default_rng(1)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
    names = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}
    depths = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
    for width, height in SMALL:
        for kind, name in names.items():
            for depth in depths[kind]:
                samples = rng.integers(0, 1 << depth, (height, width, channels[kind]))
                if depth == 16 and kind == 0:
                    samples[: height // 2] //= 200
                colors = rng.integers(0, 256, 3 << depth, dtype=np.uint8).tobytes()
                palette = chunk(b"PLTE", colors) if kind == 3 else b""
                yield f"{name} {depth} bits", png(samples, depth, kind, palette)
                yield f"{name} {depth} bits interlaced", png(
                    samples, depth, kind, palette, interlace=True
                )
                trns = {0: bytes(2), 2: bytes(6), 3: bytes([0, 128])}.get(kind)
                if trns:
                    yield f"{name} {depth} bits tRNS", png(
                        samples, depth, kind, palette + chunk(b"tRNS", trns)
                    )
    for i, size in enumerate(SIZES):
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I"):
            yield f"{mode} by Pillow", save(in_mode(mode, size, i), "png")
    frames = [in_mode("RGBA", (20, 30), s) for s in range(3)]
    yield "RGBA animated", save(frames[0], "png", save_all=True, append_images=frames[1:])


def webps():
    for i, size in enumerate(SIZES):
        for mode in ("L", "RGB", "RGBA"):
            for quality in (20, 75, 95):
                yield f"{mode} lossy", save(in_mode(mode, size, i), "webp", quality=quality)
            yield f"{mode} lossless", save(in_mode(mode, size, i), "webp", lossless=True)
            yield f"{mode} lossless exact", save(
                in_mode(mode, size, i), "webp", lossless=True, exact=True
            )
        for mode, lossless in (("RGB", False), ("RGBA", False), ("RGBA", True)):
            frames = [in_mode(mode, size, s) for s in range(3)]
            yield f"{mode} animated", save(
                frames[0], "webp", save_all=True, append_images=frames[1:], lossless=lossless
            )


def gifs():
    rng = np.random.default_rng(2)
    control = lambda index, disposal: b"!\xf9\4" + bytes([1 | disposal << 2, 0, 0, index]) + b"\0"
    for i, size in enumerate(SIZES):
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
            for interlace in (0, 1):
                yield f"{mode}{' interlaced' if interlace else ''}", save(
                    in_mode(mode, size, i), "gif", interlace=interlace
                )
        frames = [in_mode("RGB", size, s) for s in range(3)]
        yield "RGB animated", save(
            frames[0], "gif", save_all=True, append_images=frames[1:], disposal=2
        )
        width, height = size
        if width * height <= 10000:
            palette = rng.integers(0, 256, 12, dtype=np.uint8).tobytes()
            other = rng.integers(0, 256, 12, dtype=np.uint8).tobytes()
            data = lzw(2, rng.integers(0, 4, width * height).tolist())
            for disposal in range(4):
                yield "P transparent", gif(
                    width, height, data, palette, before=control(2, disposal)
                )
            yield "P local palette", gif(width, height, data, palette, other)
            yield "P smaller frame", gif(
                width + 9, height + 4, data, palette, at=(3, 2), size=size, before=control(1, 2)
            )
            yield "P frame beyond the screen", gif(
                width, height, data, palette, at=(2, 1), size=size
            )


def bmps():
    rng = np.random.default_rng(3)
    noise = lambda n: rng.integers(0, 256, n, dtype=np.uint8).tobytes()
    for width, height in SMALL:
        stride = lambda bits: (width * bits + 31) // 32 * 4
        for bits in (1, 4, 8, 16, 24, 32):
            pixels, palette = noise(stride(bits) * height), noise(4 << bits) if bits <= 8 else b""
            yield f"{bits} bits", bmp(width, height, bits, pixels, palette=palette)
            yield f"{bits} bits top down", bmp(
                width, height, bits, pixels, palette=palette, top_down=True
            )
            yield f"{bits} bits V5", bmp(width, height, bits, pixels, palette=palette, header=124)
        for masks in ((0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F)):
            yield "16 bits masks", bmp(
                width, height, 16, noise(stride(16) * height), 3, masks=struct.pack("<III", *masks)
            )
        for masks in (
            (0xFF0000, 0xFF00, 0xFF, 0),
            (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
            (0xFF, 0xFF00, 0xFF0000, 0xFF000000),
            (0xFF0000, 0xFF00, 0xFF, 0xFF000000),
        ):
            yield "32 bits masks", bmp(
                width,
                height,
                32,
                noise(stride(32) * height),
                3,
                masks=struct.pack("<IIII", *masks),
                header=56,
            )
        runs = b"".join(
            (
                bytes([min(width - x, 200), int(rng.integers(256))])
                if x + 200 >= width
                else bytes([200, int(rng.integers(256))])
            )
            for _ in range(height)
            for x in range(0, width, 200)
        )
        yield "8 bits RLE", bmp(width, height, 8, runs + b"\0\1", 1, palette=noise(1024))
        yield "4 bits RLE", bmp(width, height, 4, runs + b"\0\1", 2, palette=noise(64))
    for i, size in enumerate(SIZES):
        for mode in ("1", "L", "P", "RGB", "RGBA"):
            yield f"{mode} by Pillow", save(in_mode(mode, size, i), "bmp")


def tiffs():
    for i, size in enumerate(SIZES):
        for mode in (
            "1",
            "L",
            "LA",
            "P",
            "PA",
            "RGB",
            "RGBA",
            "RGBX",
            "CMYK",
            "YCbCr",
            "LAB",
            "I;16",
            "I",
            "F",
        ):
            for compression in (None, "tiff_lzw", "tiff_adobe_deflate"):
                yield mode, save(in_mode(mode, size, i), "tiff", compression=compression)
        for mode in ("L", "RGB"):
            yield f"{mode} packbits", save(in_mode(mode, size, i), "tiff", compression="packbits")
            yield f"{mode} JPEG", save(in_mode(mode, size, i), "tiff", compression="jpeg")
        for kind in (0, 1, 2):
            yield f"RGBA extra sample {kind}", save(
                in_mode("RGBA", size, i), "tiff", tiffinfo={338: (kind,)}
            )
        yield "1 group4", save(in_mode("1", size, i), "tiff", compression="group4")


def avifs():
    for i, size in enumerate(SMALL):
        for mode in ("L", "RGB", "RGBA", "LA"):
            for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
                yield f"{mode} {subsampling}", save(
                    in_mode(mode, size, i), "avif", quality=80, subsampling=subsampling, speed=9
                )
        yield "RGB limited range", save(in_mode("RGB", size, i), "avif", range="limited", speed=9)
    frames = [in_mode("RGBA", (20, 30), s) for s in range(3)]
    yield "RGBA animated", save(frames[0], "avif", save_all=True, append_images=frames[1:], speed=9)


def jpeg2000s():
    for i, size in enumerate(SMALL):
        for mode in ("L", "LA", "RGB", "RGBA", "YCbCr", "I;16"):
            yield mode, save(in_mode(mode, size, i), "jpeg2000", irreversible=False)
        yield "RGB irreversible", save(in_mode("RGB", size, i), "jpeg2000", irreversible=True)
        yield "RGB codestream", save(
            in_mode("RGB", size, i), "jpeg2000", irreversible=False, no_jp2=True
        )


def pnms():
    for i, size in enumerate(SIZES):
        for mode in ("1", "L", "I;16", "I", "RGB"):
            yield mode, save(in_mode(mode, size, i), "ppm")
        width, height = size
        values = np.random.default_rng(i).integers(0, 100, 3 * width * height)
        text = " ".join(map(str, values[: width * height]))
        yield "L text", f"P2\n# comment\n{width} {height}\n99\n{text}\n".encode()
        yield "L maxval 99", f"P5 {width} {height} 99\n".encode() + values[: width * height].astype(
            np.uint8
        ).tobytes()
        yield "RGB maxval 99", f"P6 {width} {height} 99\n".encode() + values.astype(
            np.uint8
        ).tobytes()


FORMATS = {
    "jpeg": jpegs,
    "png": pngs,
    "webp": webps,
    "gif": gifs,
    "bmp": bmps,
    "tiff": tiffs,
    "avif": avifs,
    "jpeg2000": jpeg2000s,
    "pnm": pnms,
}


def exifs():
    """Files whose EXIF has any orientation, whole or damaged; none that makes Pillow itself throw."""
    rng = np.random.default_rng(4)
    im = in_mode("RGB", (17, 13), 0)
    for fmt in ("jpeg", "png", "webp", "avif"):
        for orientation in range(0, 10):
            exif = Image.Exif()
            exif[0x010F] = "maker of some length"
            exif[0x0112] = orientation
            whole = exif.tobytes()
            yield fmt, save(im, fmt, exif=whole)
            if fmt == "avif":  # which keeps it outside of EXIF
                continue
            for _ in range(12):
                bad = bytearray(whole)
                at = int(rng.integers(14, len(bad)))  # behind "Exif\0\0" and the header
                bad[at] = int(rng.integers(256))
                yield f"{fmt} damaged", save(im, fmt, exif=bytes(bad))


def decode_all(program, files, *options):
    """RGB or the message of an error, for each file's bytes."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for i, data in enumerate(files):
            paths.append(f"{folder}/{i}")
            pathlib.Path(paths[-1]).write_bytes(data)
        out = io.BytesIO(
            subprocess.run([program, *options, *paths], check=True, capture_output=True).stdout
        )
    for _ in files:
        head = out.readline().decode().rstrip("\n")
        if head.startswith("ok "):
            width, height = map(int, head.split()[1:])
            rgb = np.frombuffer(out.read(3 * width * height), np.uint8)
            results.append(rgb.reshape(height, width, 3))
        else:
            results.append(head)
    return results


class Count:
    files = equal = refused = only_pillow_refuses = 0
    largest = differing = values = 0
    errors = ()


def compare(program, source, *options, convert=to_rgb):
    """mode -> Count"""
    table = collections.defaultdict(Count)
    kinds, files = zip(*source)
    for kind, data, ours in zip(kinds, files, decode_all(program, files, *options)):
        count = table[kind]
        count.files += 1
        try:
            theirs = convert(Image.open(io.BytesIO(data)))
        except Exception:
            theirs = None
        if isinstance(ours, str):
            count.refused += theirs is not None
            count.equal += theirs is None
            count.errors = {*count.errors, ours} if theirs is not None else count.errors
        elif theirs is None:
            count.only_pillow_refuses += 1
        elif ours.shape != theirs.shape:
            count.largest = 255
        else:
            distance = np.abs(ours.astype(int) - theirs)
            count.equal += not distance.any()
            count.largest = max(count.largest, int(distance.max()))
            count.differing += int(np.count_nonzero(distance))
            count.values += distance.size
    return table


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("decode_image", help="the program")
    parser.add_argument("--only", choices=FORMATS, help="one format")
    args = parser.parse_args()
    versions = ", ".join(
        f"{name} {features.version(name)}" for name in ("libjpeg_turbo", "webp", "avif", "libtiff")
    )
    print(f"Pillow {PIL.__version__} with {versions}\n")
    print("| format | kinds | files | equal | largest difference | values that differ |")
    print("|---|---|---|---|---|---|")
    total = Count()
    failed = []
    messages = set()
    sources = {f: make for f, make in FORMATS.items() if args.only in (None, f)}
    tables = [(f, compare(args.decode_image, make())) for f, make in sources.items()]
    if args.only is None:
        upright = lambda im: to_rgb(ImageOps.exif_transpose(im))
        tables.append(("EXIF", compare(args.decode_image, exifs(), "--exif", convert=upright)))
    for fmt, table in tables:
        rows = collections.defaultdict(list)  # kinds that came out alike share a row
        for kind, c in sorted(table.items()):
            rows[c.largest, c.refused == c.files, c.only_pillow_refuses].append((kind, c))
            total.files += c.files
            total.equal += c.equal
            total.refused += c.refused
            messages |= set(c.errors)
            allowed = 3 if "avif" in (fmt, kind) else 0 if fmt in (*EXACT, "EXIF") else 1
            if c.largest > allowed or (fmt in (*EXACT, "EXIF") and c.refused):
                failed.append(f"{fmt} {kind}")
        for (largest, refused, only_pillow), same in sorted(rows.items()):
            files, equal, differing, values, errors = (
                sum(getattr(c, of) for _, c in same)
                for of in ("files", "equal", "differing", "values", "refused")
            )
            share = f"{100 * differing / values:.2f} %" if differing else ""
            outcome = largest if not refused else "an error instead"
            if errors and not refused:
                outcome = f"{largest}; {errors} an error instead"
            if only_pillow:
                outcome = f"{outcome}; Pillow refuses {only_pillow}"
            kinds = ", ".join(kind for kind, _ in same)
            print(f"| {fmt} | {kinds} | {files} | {equal} | {outcome} | {share} |")
    print(f"\n{total.files} files: {total.equal} equal, {total.refused} refused with an error")
    for message in sorted(messages):
        print("   ", message)
    if failed:
        sys.exit("too far from Pillow: " + ", ".join(failed))


if __name__ == "__main__":
    main()
