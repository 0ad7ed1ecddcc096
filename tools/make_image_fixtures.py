#!/usr/bin/env python3
"""Writes tests/golden/images/images.pack.xz: small pictures of many kinds, and what Pillow makes of
each; and patches.txt: grid and CRC-32 of the patches of every picture in tests/golden/media.

    python3 -m venv venv && venv/bin/pip install pillow==12.3.0 numpy
    venv/bin/python tools/make_image_fixtures.py

An entry of the pack is a line "NAME FILE_BYTES WIDTH HEIGHT TOLERANCE", the file, and
WIDTH * HEIGHT * 3 bytes of RGB. WIDTH 0 means that Pillow refuses the file. TOLERANCE is the largest
difference allowed: 0 but for AVIF, whose YUV is turned into RGB by other code.
"""

import io
import lzma
import math
import pathlib
import struct
import sys
import zlib

import numpy as np
import PIL
from PIL import Image

GOLDEN = pathlib.Path(__file__).resolve().parent.parent / "tests/golden"
OUT = GOLDEN / "images/images.pack.xz"


def reference(data):
    """The reference's conversion to RGB, or None."""
    try:
        im = Image.open(io.BytesIO(data))
        if im.mode == "RGBA":
            white = Image.new("RGB", im.size, (255, 255, 255))
            white.paste(im, mask=im.split()[3])
            return np.array(white)
        return np.array(im.convert("RGB"))
    except Exception as e:  # whatever it is, the reference gives up on the document
        print(f"    refused: {e}", file=sys.stderr)
        return None


def picture(width, height, channels=3, seed=0):
    """Smooth shapes with some noise, uint8 [height, width, channels]."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    c = np.arange(channels)
    base = 127 + 90 * np.sin(x[..., None] / 3 + c) + 60 * np.cos(y[..., None] / (2 + c))
    noise = np.random.default_rng(seed).integers(-20, 21, (height, width, channels))
    return np.clip(base + noise, 0, 255).astype(np.uint8)


def save(im, fmt, **options):
    out = io.BytesIO()
    im.save(out, fmt, **options)
    return out.getvalue()


# JPEG, WebP


def jpegs():
    for w, h in ((17, 13), (1, 1), (32, 16), (7, 33)):
        im = Image.fromarray(picture(w, h))
        for name, subsampling in (("444", 0), ("422", 1), ("420", 2)):
            yield f"jpeg_{name}_{w}x{h}", save(im, "jpeg", quality=80, subsampling=subsampling)
    im = Image.fromarray(picture(17, 13))
    baseline = save(im, "jpeg", quality=60)
    yield "jpeg_progressive", save(im, "jpeg", progressive=True)
    yield "jpeg_rgb", save(im, "jpeg", keep_rgb=True)
    yield "jpeg_restart", save(im, "jpeg", restart_marker_blocks=1)
    yield "jpeg_grey", save(im.convert("L"), "jpeg")
    yield "jpeg_trailing_bytes", baseline + b"more"
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "jpeg_exif_orientation_ignored", save(im, "jpeg", exif=exif)
    cmyk = save(Image.fromarray(picture(17, 13, 4), "CMYK"), "jpeg", quality=90)
    yield "jpeg_cmyk", cmyk
    adobe = cmyk.index(b"Adobe")
    yield "jpeg_ycck", cmyk[: adobe + 11] + b"\2" + cmyk[adobe + 12 :]
    yield "jpeg_cmyk_without_adobe", cmyk[: adobe - 4] + cmyk[adobe + 12 :]
    yield "jpeg_without_end_marker", baseline[:-2]
    yield "jpeg_truncated", baseline[:-40]
    yield "jpeg_progressive_truncated", save(im, "jpeg", progressive=True)[:-40]
    yield "jpeg_header_only", baseline[:100]
    yield "jpeg_three_bytes", baseline[:3]
    sof = baseline.index(b"\xff\xc0")
    yield "jpeg_no_height", baseline[: sof + 5] + b"\0\0" + baseline[sof + 7 :]


def webps():
    rgb, rgba = Image.fromarray(picture(17, 13)), Image.fromarray(picture(17, 13, 4))
    yield "webp_lossy", save(rgb, "webp", quality=50)
    yield "webp_lossy_40x30", save(Image.fromarray(picture(40, 30)), "webp", quality=80)
    yield "webp_lossless", save(rgb, "webp", lossless=True)
    yield "webp_lossy_alpha", save(rgba, "webp", quality=70)
    yield "webp_lossless_alpha", save(rgba, "webp", lossless=True, exact=True)
    frames = [Image.fromarray(picture(17, 13, 4, s)) for s in range(2)]
    yield "webp_animated", save(
        frames[0], "webp", save_all=True, append_images=frames[1:], lossless=True
    )
    yield "webp_truncated", save(rgb, "webp", quality=50)[:-20]
    yield "webp_header_only", save(rgb, "webp", quality=50)[:14]


# PNG


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(samples, depth, color_type, before=b"", interlace=False, after=chunk(b"IEND", b"")):
    """samples: integers [height, width, channels] of `depth` bits."""
    height, width, _ = samples.shape

    def rows(s):
        out = b""
        for i, row in enumerate(s):
            if depth == 16:
                data = row.astype(">u2").tobytes()
            elif depth == 8:
                data = row.astype(np.uint8).tobytes()
            else:
                bits = (row.reshape(-1, 1) >> np.arange(depth - 1, -1, -1)) & 1
                data = np.packbits(bits.astype(np.uint8)).tobytes()
            out += filtered(data, i % 3, max(1, depth * s.shape[2] // 8))
        return out

    def filtered(data, kind, step):  # 0 none, 1 difference to the left; 2 stands for none again
        if kind != 1:
            return b"\0" + data
        d = np.frombuffer(data, np.uint8)
        return (
            b"\1" + (d - np.concatenate([np.zeros(step, np.uint8), d[:-step]])[: len(d)]).tobytes()
        )

    if interlace:
        passes = (
            (0, 0, 8, 8),
            (0, 4, 8, 8),
            (4, 0, 8, 4),
            (0, 2, 4, 4),
            (2, 0, 4, 2),
            (0, 1, 2, 2),
            (1, 0, 2, 1),
        )
        raw = b"".join(
            rows(samples[y::dy, x::dx]) for y, x, dy, dx in passes if samples[y::dy, x::dx].size
        )
    else:
        raw = rows(samples)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlace))
        + before
        + chunk(b"IDAT", zlib.compress(raw))
        + after
    )


def pngs():
    rng = np.random.default_rng(3)
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
    depths = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
    kinds = {0: "grey", 2: "rgb", 3: "palette", 4: "grey_alpha", 6: "rgba"}
    for color_type, name in kinds.items():
        for depth in depths[color_type]:
            s = rng.integers(0, 1 << depth, (13, 17, channels[color_type]))
            if depth == 16 and color_type == 0:
                s[:6] //= 200  # values that survive the saturation
            plte = (
                chunk(b"PLTE", rng.integers(0, 256, 3 << depth, dtype=np.uint8).tobytes())
                if color_type == 3
                else b""
            )
            trns = {0: bytes(2), 2: bytes(6), 3: bytes([0, 128])}.get(color_type)
            yield f"png_{name}_{depth}", png(s, depth, color_type, plte)
            yield f"png_{name}_{depth}_interlaced", png(s, depth, color_type, plte, interlace=True)
            if trns:
                yield f"png_{name}_{depth}_transparent", png(
                    s, depth, color_type, plte + chunk(b"tRNS", trns)
                )
    s = rng.integers(0, 256, (5, 3, 1))
    short = chunk(b"PLTE", bytes(range(1, 31)))
    yield "png_short_palette", png(s, 8, 3, short)
    rgb = picture(17, 13).astype(int)
    good = png(rgb, 8, 2, chunk(b"gAMA", struct.pack(">I", 20000)))
    yield "png_gamma_ignored", good
    yield "png_without_end", png(rgb, 8, 2, after=b"")
    yield "png_trailing_bytes", good + b"more"
    yield "png_tiny_interlaced", png(rgb[:1, :2], 8, 2, interlace=True)
    idat = good.index(b"IDAT")
    end = idat + 4 + struct.unpack(">I", good[idat - 4 : idat])[0]
    flip = lambda data, at: data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
    yield "png_wrong_pixel_crc", flip(good, end)
    yield "png_wrong_adler", flip(good, end - 1)
    yield "png_wrong_header_crc", flip(good, 29)
    yield "png_wrong_gamma_crc", flip(good, good.index(b"gAMA") + 9)
    yield "png_truncated", good[: end - 60]
    yield "png_header_only", good[:33]
    yield "png_signature_only", good[:8]
    frames = [Image.fromarray(picture(17, 13, 3, s)) for s in range(2)]
    yield "png_animated", save(frames[0], "png", save_all=True, append_images=frames[1:])
    yield "png_bad_filter", good[:33] + chunk(b"IDAT", zlib.compress(b"\x09" + bytes(51)))


# GIF


def lzw(min_bits, codes, clear_every=None):
    """Packs codes of min_bits + 1 bits; clears the table before codes would grow wider."""
    clear, size = 1 << min_bits, min_bits + 1
    every = clear_every or (1 << min_bits) - 2
    stream = []
    for i, c in enumerate(codes):
        if i % every == 0:
            stream.append(clear)
        stream.append(c)
    stream.append(clear + 1)
    acc = n = 0
    out = bytearray()
    for c in stream:
        acc |= c << n
        n += size
        while n >= 8:
            out.append(acc & 255)
            acc >>= 8
            n -= 8
    out.append(acc & 255)
    return (
        bytes([min_bits])
        + b"".join(
            bytes([len(out[i : i + 255])]) + bytes(out[i : i + 255])
            for i in range(0, len(out), 255)
        )
        + b"\0"
    )


def gif(
    width,
    height,
    data,
    palette=b"",
    local=b"",
    at=(0, 0),
    size=None,
    before=b"",
    interlace=False,
    end=b";",
):
    flags = lambda p: 128 | (len(p) // 3).bit_length() - 2 if p else 0
    size = size or (width, height)
    return (
        b"GIF89a"
        + struct.pack("<HHBBB", width, height, flags(palette), 1, 0)
        + palette
        + before
        + b","
        + struct.pack("<HHHHB", *at, *size, flags(local) | (64 if interlace else 0))
        + local
        + data
        + end
    )


def gifs():
    rng = np.random.default_rng(5)
    control = lambda index, disposal=0: b"!\xf9\4" + bytes([1 | disposal << 2, 0, 0, index]) + b"\0"
    im = Image.fromarray(picture(17, 13))
    yield "gif_rgb", save(im, "gif")
    yield "gif_grey", save(im.convert("L"), "gif")
    yield "gif_bilevel", save(im.convert("1"), "gif")
    noise = Image.fromarray(rng.integers(0, 256, (80, 80), dtype=np.uint8))
    noise.putpalette(rng.integers(0, 256, 768, dtype=np.uint8).tobytes())
    yield "gif_full_code_table", save(noise, "gif")  # more than 4096 strings
    yield "gif_flat", save(Image.new("P", (100, 100), 7), "gif")  # codes that complete themselves
    frames = [Image.fromarray(picture(17, 13, 3, s)) for s in range(3)]
    yield "gif_animated", save(
        frames[0], "gif", save_all=True, append_images=frames[1:], disposal=2
    )
    palette = rng.integers(0, 256, 12, dtype=np.uint8).tobytes()
    other = rng.integers(0, 256, 12, dtype=np.uint8).tobytes()
    pixels = rng.integers(0, 4, 12 * 11).tolist()
    data = lzw(2, pixels)
    yield "gif_4_colors", gif(12, 11, data, palette)
    yield "gif_interlaced", gif(12, 11, data, palette, interlace=True)
    yield "gif_interlaced_one_row", gif(132, 1, data, palette, interlace=True)
    yield "gif_local_palette", gif(12, 11, data, palette, other)
    yield "gif_local_palette_alone", gif(12, 11, data, b"", other)
    yield "gif_no_palette", gif(12, 11, data)
    yield "gif_transparent", gif(12, 11, data, palette, before=control(2))
    yield "gif_smaller_frame", gif(20, 15, data, palette, at=(3, 2), size=(12, 11))
    yield "gif_smaller_frame_transparent", gif(
        20, 15, data, palette, at=(3, 2), size=(12, 11), before=control(2, 2)
    )
    yield "gif_frame_beyond_screen", gif(5, 20, data, palette, at=(3, 2), size=(12, 11))
    ramp = bytes([0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3])
    high = lzw(8, rng.integers(0, 256, 132).tolist())
    yield "gif_index_beyond_palette", gif(12, 11, high, palette)
    yield "gif_index_beyond_ramp", gif(12, 11, high, ramp)
    yield "gif_index_beyond_local_ramp", gif(12, 11, high, palette, ramp)
    yield "gif_comment", gif(
        12,
        11,
        data,
        palette,
        before=b"!\xfe\3abc\2de\0" + control(1) + b"!\xff\x0bNETSCAPE2.0\3\1\0\0\0",
    )
    yield "gif_without_end", gif(12, 11, data, palette, end=b"")
    yield "gif_too_many_pixels", gif(4, 4, data, palette)
    yield "gif_too_few_pixels", gif(13, 11, data, palette)
    yield "gif_truncated", gif(12, 11, data, palette)[:-25]
    yield "gif_no_frame", b"GIF89a" + struct.pack("<HHBBB", 3, 3, 0, 0, 0) + b";"
    yield "gif_header_only", gif(12, 11, data, palette)[:10]
    yield "gif_code_not_in_use", gif(12, 11, lzw(2, [1, 2, 7, 3, 3]), palette)
    yield "gif_code_size_13", gif(12, 11, b"\x0d\4\1\2\3\4\0", palette)
    yield "gif_no_area", gif(12, 0, data, palette)


# BMP


def bmp(
    width,
    height,
    bits,
    pixels,
    compression=0,
    colors=0,
    palette=b"",
    masks=b"",
    header=40,
    offset=None,
    top_down=False,
):
    body = struct.pack(
        "<iiHHIIiiII",
        width,
        -height if top_down else height,
        1,
        bits,
        compression,
        len(pixels),
        2835,
        2835,
        colors,
        0,
    )
    if header == 12:
        body = struct.pack("<HHHH", width, height, 1, bits)
    else:
        body = (body + (masks if header > 40 else b"")).ljust(header - 4, b"\0")
    extra = masks if header == 40 else b""
    at = 14 + header + len(extra) + len(palette) if offset is None else offset
    data = struct.pack("<I", header) + body + extra + palette + pixels
    return b"BM" + struct.pack("<IHHI", 14 + len(data), 0, 0, at) + data


def bmps():
    rng = np.random.default_rng(9)
    noise = lambda n: rng.integers(0, 256, n, dtype=np.uint8).tobytes()
    w, h = 17, 13
    stride = lambda bits: (w * bits + 31) // 32 * 4
    for bits in (1, 4, 8, 16, 24, 32):
        pixels, palette = noise(stride(bits) * h), noise(4 << bits) if bits <= 8 else b""
        yield f"bmp_{bits}", bmp(w, h, bits, pixels, palette=palette)
        yield f"bmp_{bits}_top_down", bmp(w, h, bits, pixels, palette=palette, top_down=True)
        yield f"bmp_{bits}_truncated", bmp(w, h, bits, pixels[:-5], palette=palette)
        yield f"bmp_{bits}_v5", bmp(w, h, bits, pixels, palette=palette, header=124)
        if bits <= 24:
            os2 = noise(3 << bits) if bits <= 8 else b""
            yield f"bmp_{bits}_os2", bmp(w, h, bits, pixels, palette=os2, header=12)
    grey = lambda n: b"".join(bytes([i, i, i, 0]) for i in range(n))
    yield "bmp_8_grey", bmp(w, h, 8, noise(stride(8) * h), palette=grey(256))
    yield "bmp_8_grey_100_colors", bmp(w, h, 8, noise(stride(8) * h), palette=grey(100), colors=100)
    yield "bmp_8_10_colors", bmp(w, h, 8, noise(stride(8) * h), palette=noise(40), colors=10)
    yield "bmp_8_300_colors", bmp(w, h, 8, noise(stride(8) * h), palette=noise(1200), colors=300)
    yield "bmp_1_black_white", bmp(
        w, h, 1, noise(stride(1) * h), palette=bytes([0, 0, 0, 0, 255, 255, 255, 0])
    )
    yield "bmp_1_white_black", bmp(
        w, h, 1, noise(stride(1) * h), palette=bytes([255, 255, 255, 0, 0, 0, 0, 0])
    )
    yield "bmp_8_black_white", bmp(
        w, h, 8, noise(stride(8) * h), palette=bytes([0, 0, 0, 0, 255, 255, 255, 0]), colors=2
    )
    yield "bmp_4_ramp", bmp(w, h, 4, noise(stride(4) * h), palette=grey(16))
    yield "bmp_2", bmp(w, h, 2, noise(stride(2) * h), palette=noise(16))
    for name, masks in (
        ("bgrx", (0xFF0000, 0xFF00, 0xFF, 0)),
        ("xbgr", (0xFF000000, 0xFF0000, 0xFF00, 0)),
        ("bgxr", (0xFF000000, 0xFF00, 0xFF, 0)),
        ("abgr", (0xFF000000, 0xFF0000, 0xFF00, 0xFF)),
        ("rgba", (0xFF, 0xFF00, 0xFF0000, 0xFF000000)),
        ("bgra", (0xFF0000, 0xFF00, 0xFF, 0xFF000000)),
        ("bgar", (0xFF000000, 0xFF00, 0xFF, 0xFF0000)),
        ("zero", (0, 0, 0, 0)),
        ("odd", (0xFF0000, 0xFF00, 0xFE, 0)),
    ):
        packed = struct.pack("<IIII", *masks)
        yield f"bmp_32_masks_{name}", bmp(
            w, h, 32, noise(stride(32) * h), 3, masks=packed, header=56
        )
    yield "bmp_32_masks_v3", bmp(
        w, h, 32, noise(stride(32) * h), 3, masks=struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
    )
    yield "bmp_32_masks_v4", bmp(
        w,
        h,
        32,
        noise(stride(32) * h),
        3,
        header=52,
        masks=struct.pack("<III", 0xFF000000, 0xFF0000, 0xFF00),
    )
    yield "bmp_24_masks", bmp(
        w, h, 24, noise(stride(24) * h), 3, masks=struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)
    )
    for name, masks in (
        ("565", (0xF800, 0x7E0, 0x1F)),
        ("555", (0x7C00, 0x3E0, 0x1F)),
        ("444", (0xF00, 0xF0, 0xF)),
    ):
        yield f"bmp_16_masks_{name}", bmp(
            w, h, 16, noise(stride(16) * h), 3, masks=struct.pack("<III", *masks)
        )
    palette = noise(1024)
    rle8 = b""
    for _ in range(h):
        rle8 += b"\5\7" + b"\0\5abcde\0" + b"\0\4wxyz" + b"\3\x99" + b"\0\0"
    yield "bmp_rle8", bmp(w, h, 8, rle8 + b"\0\1", 1, palette=palette)
    yield "bmp_rle8_grey", bmp(w, h, 8, rle8 + b"\0\1", 1, palette=grey(256))
    yield "bmp_rle8_short_rows", bmp(w, h, 8, b"\3\7\0\0" * h + b"\0\1", 1, palette=palette)
    yield "bmp_rle8_skip", bmp(w, h, 8, b"\3\7\0\2\4\2" + b"\x20\7\0\0" * h, 1, palette=palette)
    yield "bmp_rle8_long_run", bmp(w, h, 8, b"\xff\7\0\0" * h, 1, palette=palette)
    yield "bmp_rle8_too_short", bmp(w, h, 8, rle8[:60] + b"\0\1", 1, palette=palette)
    yield "bmp_rle8_cut", bmp(w, h, 8, rle8[:-9], 1, palette=palette)
    rle4 = (b"\7\x5a" + b"\0\6\x12\x34\x56\0" + b"\4\xf0" + b"\0\0") * h
    yield "bmp_rle4", bmp(w, h, 4, rle4 + b"\0\1", 2, palette=noise(64))
    yield "bmp_rle4_odd_literal", bmp(
        w, h, 4, b"\x0c\x5a\0\5\x12\x34\0\0" * h + b"\0\1", 2, palette=noise(64)
    )
    yield "bmp_rle8_of_24_bits", bmp(w, h, 24, rle8, 1)
    yield "bmp_compression_4", bmp(w, h, 24, noise(stride(24) * h), 4)
    yield "bmp_header_16", bmp(w, h, 24, noise(stride(24) * h), header=16)
    yield "bmp_offset_beyond_end", bmp(w, h, 24, noise(stride(24) * h), offset=100000)
    yield "bmp_offset_zero", bmp(w, h, 24, noise(stride(24) * h), offset=0)
    yield "bmp_8_offset_zero", bmp(w, h, 8, noise(stride(8) * h), palette=palette, offset=0)
    yield "bmp_8_offset_at_palette", bmp(w, h, 8, noise(stride(8) * h), palette=palette, offset=54)
    yield "bmp_no_width", bmp(0, h, 24, noise(100))
    yield "bmp_negative_width", bmp(-w, h, 24, noise(stride(24) * h))
    yield "bmp_header_only", bmp(w, h, 24, b"")[:30]
    yield "bmp_two_bytes", b"BM"


# Through FFmpeg


def others():
    rgb, rgba = Image.fromarray(picture(17, 13)), Image.fromarray(picture(17, 13, 4))
    for name, compression in (
        ("raw", None),
        ("lzw", "tiff_lzw"),
        ("deflate", "tiff_adobe_deflate"),
        ("packbits", "packbits"),
    ):
        yield f"tiff_{name}", save(rgb, "tiff", compression=compression)
    yield "tiff_rgba", save(rgba, "tiff")
    yield "tiff_grey", save(rgb.convert("L"), "tiff")
    yield "tiff_bilevel", save(rgb.convert("1"), "tiff")
    yield "tiff_palette", save(rgb.quantize(50), "tiff")
    grey16 = picture(17, 13, 1)[..., 0].astype(np.uint16) * 2
    yield "tiff_grey_16", save(Image.fromarray(grey16), "tiff")
    yield "tiff_grey_alpha", save(rgba.convert("LA"), "tiff")
    yield "tiff_second_page_ignored", save(rgb, "tiff", save_all=True, append_images=[rgba])
    for orientation in range(1, 9):
        yield f"tiff_orientation_{orientation}", save(rgb, "tiff", tiffinfo={274: orientation})
    yield "tiff_no_directory", b"MM\0*" + struct.pack(">IH", 8, 0)
    yield "tiff_truncated", save(rgb, "tiff", compression="tiff_lzw")[:60]
    yield "pnm_rgb", save(rgb, "ppm")
    yield "pnm_grey", save(rgb.convert("L"), "ppm")
    yield "pnm_16", b"P5 3 2 65535\n" + bytes([0, 0, 0, 1, 0, 200, 1, 0, 2, 55, 255, 255])
    yield "pnm_bilevel_text", b"P1\n3 2\n1 0 1 0 1 0\n"
    yield "pnm_truncated", save(rgb, "ppm")[:-30]
    yield "jpeg2000_lossless", save(rgb, "jpeg2000", irreversible=False)
    yield "jpeg2000_rgba", save(rgba, "jpeg2000", irreversible=False)
    yield "jpeg2000_grey_alpha", save(rgba.convert("LA"), "jpeg2000", irreversible=False)
    yield "jpeg2000_truncated", save(rgb, "jpeg2000", irreversible=False)[:-20]
    for subsampling in ("4:4:4", "4:2:0", "4:0:0"):
        yield f"avif_{subsampling.replace(':', '')}", save(
            Image.fromarray(picture(40, 32)), "avif", quality=90, subsampling=subsampling
        )
    yield "avif_limited_range", save(rgb, "avif", range="limited", subsampling="4:4:4")
    yield "avif_truncated", save(rgb, "avif")[:-20]
    for subsampling in ("4:4:4", "4:2:0"):
        yield f"avif_rgba_{subsampling.replace(':', '')}", save(
            rgba, "avif", quality=90, subsampling=subsampling
        )
    yield "avif_grey_alpha", save(rgba.convert("LA"), "avif", subsampling="4:0:0")
    frames = [Image.fromarray(picture(17, 13, 4, s)) for s in range(2)]
    exif = Image.Exif()
    for orientation in range(2, 9):  # Pillow writes irot and imir
        exif[0x0112] = orientation
        yield f"avif_orientation_{orientation}_ignored", save(rgb, "avif", exif=exif)
    yield "avif_animated", save(frames[0], "avif", save_all=True, append_images=frames[1:])


def patches(rgb, min_pixels=4 * 1024, max_pixels=1800 * 1024):
    """RGB [H, W, 3] -> uint8 [h * w, 1536], resized as the reference does; and (h, w)."""
    height, width = rgb.shape[:2]
    h, w = max(32, 32 * round(height / 32)), max(32, 32 * round(width / 32))
    if h * w > max_pixels:
        beta = math.sqrt(height * width / max_pixels)
        h, w = 32 * math.floor(height / beta / 32), 32 * math.floor(width / beta / 32)
    elif h * w < min_pixels:
        beta = math.sqrt(min_pixels / (height * width))
        h, w = 32 * math.ceil(height * beta / 32), 32 * math.ceil(width * beta / 32)
    x = np.array(Image.fromarray(rgb).resize((w, h), Image.BICUBIC))
    blocks = x.reshape(h // 32, 2, 16, w // 32, 2, 16, 3).transpose(
        0, 3, 1, 4, 6, 2, 5
    )  # ..., colour, y, x
    frames = np.repeat(blocks[:, :, :, :, :, None], 2, 5)  # ..., colour, time, y, x
    return np.ascontiguousarray(frames).reshape(-1, 1536), (h // 16, w // 16)


def main():
    lines = []
    for path in sorted((GOLDEN / "media").iterdir()):
        data, (h, w) = patches(reference(path.read_bytes()))
        lines.append(f"{path.name} {h} {w} {zlib.crc32(data.tobytes()):08x}\n")
    (GOLDEN / "images/patches.txt").write_text("".join(lines))

    pack, seen = b"", set()
    for source in (jpegs, webps, pngs, gifs, bmps, others):
        for name, data in source():
            print(f"{name} ({len(data)} bytes)", file=sys.stderr)
            assert name not in seen
            seen.add(name)
            rgb = reference(data)
            height, width = rgb.shape[:2] if rgb is not None else (0, 0)
            tolerance = 2 if name.startswith("avif") else 0
            pack += f"{name} {len(data)} {width} {height} {tolerance}\n".encode() + data
            pack += rgb.tobytes() if rgb is not None else b""
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_bytes(lzma.compress(pack, preset=9 | lzma.PRESET_EXTREME, check=lzma.CHECK_CRC32))
    print(f"{OUT}: {len(seen)} pictures by Pillow {PIL.__version__}, {OUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
