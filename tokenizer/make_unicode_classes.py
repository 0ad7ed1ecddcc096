#!/usr/bin/env python3
"""Prints unicode_classes.inc. Needs the Unicode 16.0 database: pip install unicodedata2==16.0.0"""
import sys

import unicodedata2

assert unicodedata2.unidata_version == "16.0.0"

ranges = []  # [first, last, "L" or "N"]
for code in range(sys.maxunicode + 1):
    major = unicodedata2.category(chr(code))[0]
    if major not in "LN":
        continue
    if ranges and ranges[-1][1] == code - 1 and ranges[-1][2] == major:
        ranges[-1][1] = code
    else:
        ranges.append([code, code, major])

line = ""
for first, last, major in ranges:
    item = f"{{0x{first:X}, 0x{last:X}, {major}}},"
    if len(line) + 1 + len(item) > 100:
        print(line)
        line = ""
    line += (" " if line else "") + item
print(line)
