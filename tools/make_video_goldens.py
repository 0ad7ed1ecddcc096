#!/usr/bin/env python3
"""Writes tests/golden/video: small video files and what decord 0.6.0 reads from them, as qwen-vl-utils' reader asks it to.

    pip install decord==0.6.0 numpy
    tools/make_video_goldens.py tests/golden/video        # needs the ffmpeg command, with libx264, libx265 and libvpx

expected.txt has a line a file: its name, the number of frames, their average rate, width and height, then for each frame
that the official sampling takes `index:crc32`, the CRC-32 of its RGB bytes.

vp8_hidden.webm is not in it: 75 frames in more packets, since some pictures are only referred to. decord counts those.
"""
import pathlib
import subprocess
import sys
import zlib

import decord
import numpy as np

X264 = "-c:v libx264 -x264-params threads=1 -bf 3 -g 12 -crf 38"
FILES = {
    "h264.mp4": f"{X264} -pix_fmt yuv420p",
    "h264_bt709_full.mp4": f"{X264} -vf scale=out_color_matrix=bt709:out_range=full -pix_fmt yuv420p -colorspace bt709 -color_range pc",
    "h264_422.mkv": f"{X264} -pix_fmt yuv422p",
    "h264_444.mp4": f"{X264} -pix_fmt yuv444p",
    "h264_10bit.mp4": f"{X264} -pix_fmt yuv420p10le",
    "h264_23976.mp4": f"-r 24000/1001 {X264} -pix_fmt yuv420p",
    "hevc.mp4": "-c:v libx265 -x265-params log-level=-1:pools=none:frame-threads=1 -crf 38 -pix_fmt yuv420p",
    "vp9.webm": "-c:v libvpx-vp9 -crf 50 -b:v 0 -pix_fmt yuv420p",
    "mpeg4.avi": "-c:v mpeg4 -g 12 -q:v 20 -pix_fmt yuv420p",
    "odd_size.mkv": "-frames:v 6 -vf scale=33:47 -c:v ffv1 -pix_fmt yuv420p",
}


def official(num_frames, rate, fps=1.0, max_frames=64):
    n = min(max(num_frames / rate * fps, 4), max_frames // 2 * 2, num_frames)
    n = int(n // 2 * 2)
    last = np.float32(num_frames - 1)
    step = np.float32(last / np.float32(n - 1))
    at = [step * np.float32(i) if i < n // 2 else last - step * np.float32(n - 1 - i) for i in range(n)]
    return [int(np.rint(x)) for x in at]


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    ffmpeg = ["ffmpeg", "-v", "error", "-y"]
    source = ["-f", "lavfi", "-i", "testsrc2=size=96x64:rate=12:duration=2.5"]
    exact = ["-fflags", "+bitexact", "-flags:v", "+bitexact"]
    names = list(FILES)
    for name, options in FILES.items():
        subprocess.run(ffmpeg + source + options.split() + exact + [folder / name], check=True)
    for degrees in 90, 180, 270:
        names.append(f"rotate{degrees}.mp4")
        turn = ["-c", "copy", "-metadata:s:v", f"rotate={degrees}"]
        subprocess.run(ffmpeg + ["-i", folder / "h264.mp4"] + turn + exact + [folder / names[-1]], check=True)
    for two_pass in "1", "2":  # the encoder hides pictures in its second pass only
        options = "-c:v libvpx -deadline good -auto-alt-ref 1 -lag-in-frames 25 -g 200 -b:v 100k".split()
        options += ["-pass", two_pass, "-passlogfile", folder / "passes", "-t", "3", "-r", "25"]
        subprocess.run(ffmpeg + ["-f", "lavfi", "-i", "testsrc2=size=64x48:rate=25"] + options + exact
                       + [folder / "vp8_hidden.webm"], check=True)
    (folder / "passes-0.log").unlink()
    lines = []
    for name in names:
        reader = decord.VideoReader(str(folder / name))
        rate = reader.get_avg_fps()
        indices = official(len(reader), rate)
        frames = reader.get_batch(indices).asnumpy()
        crcs = " ".join(f"{i}:{zlib.crc32(f.tobytes()):08x}" for i, f in zip(indices, frames))
        lines.append(f"{name} {len(reader)} {rate!r} {frames.shape[2]} {frames.shape[1]} {crcs}\n")
    (folder / "expected.txt").write_text("".join(lines))


main()
