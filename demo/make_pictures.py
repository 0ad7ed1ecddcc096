#!/usr/bin/env python3
"""Draws the pictures of demo/documents (needs Pillow).

    demo/make_pictures.py demo/documents

Each is drawn four times as large as it is saved and scaled down, which smooths the edges.
"""
import math
import pathlib
import sys

from PIL import Image, ImageDraw

SIZE, SCALE = 128, 4


def points(centre, radii, count, turn=-math.pi / 2):
    """count corners around centre, their distances taken from radii in turn."""
    x, y = centre
    for i in range(count):
        a, r = turn + 2 * math.pi * i / count, radii[i % len(radii)]
        yield x + r * math.cos(a), y + r * math.sin(a)


def disc(d, x, y, r, colour):
    d.ellipse((x - r, y - r, x + r, y + r), fill=colour)


def moon(d):
    disc(d, 256, 256, 190, "#ffcc32")
    disc(d, 345, 200, 165, "white")


def sun(d):
    d.polygon(list(points((256, 256), (230, 150), 24)), fill="#ffa000")
    disc(d, 256, 256, 135, "#fdd835")


def star(d):
    d.polygon(list(points((256, 270), (230, 95), 10)), fill="#fdd835")


def heart(d):
    disc(d, 166, 186, 104, "#e53935")
    disc(d, 346, 186, 104, "#e53935")
    d.polygon([(79, 243), (433, 243), (256, 450)], fill="#e53935")


def house(d):
    d.rectangle((116, 240, 396, 450), fill="#ffe0b2")
    d.polygon([(70, 250), (256, 70), (442, 250)], fill="#c62828")
    d.rectangle((220, 330, 292, 450), fill="#6d4c41")
    d.rectangle((140, 280, 196, 336), fill="#4fc3f7")
    d.rectangle((316, 280, 372, 336), fill="#4fc3f7")


def blue_square(d):
    d.rectangle((0, 0, 512, 512), fill="orange")
    d.rectangle((136, 136, 376, 376), fill="blue")


PICTURES = {"moon.png": moon, "sun.png": sun, "star.png": star, "heart.png": heart, "house.jpg": house,
            "square.webp": blue_square}


def main(folder):
    for name, draw in PICTURES.items():
        image = Image.new("RGB", (SIZE * SCALE, SIZE * SCALE), "white")
        draw(ImageDraw.Draw(image))
        image = image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        image.save(pathlib.Path(folder) / name, **({"quality": 92} if name.endswith(".jpg") else {}))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
