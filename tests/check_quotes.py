#!/usr/bin/env python3
"""Code that pages quote is the code of the files that they name. Prints what is not; exits with 1 then.

A block of code below a line <!-- quotes FILE --> has lines of that file, one below the other. A line // ... in it
stands for any that are left out."""
import pathlib
import re
import subprocess
import sys

QUOTE = re.compile(r"^<!-- quotes (\S+) -->\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def differs(block, lines):
    """The first line that is not where it should be; None: all are."""
    at = 0
    for piece in re.split(r"^\s*// \.\.\.\n", block, flags=re.MULTILINE):
        wanted = piece.splitlines()
        starts = [i for i in range(at, len(lines) - len(wanted) + 1) if lines[i:i + len(wanted)] == wanted]
        if not starts:
            missing = [line for line in wanted if line not in lines]
            return (missing or wanted)[0]
        at = starts[0] + len(wanted)
    return None


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    pages = subprocess.run(["git", "ls-files", "*.md"], cwd=root, check=True, capture_output=True, text=True).stdout
    quotes = wrong = 0
    for page in pages.split():
        text = (root / page).read_text()
        found = QUOTE.findall(text)
        quotes += len(found)
        if len(found) != text.count("<!-- quotes "):
            print(f"{page}: a block of code has to follow <!-- quotes FILE -->")
            wrong += 1
        for file, block in found:
            line = differs(block, (root / file).read_text().splitlines())
            if line is not None:
                print(f"{page}: not so in {file}: {line}")
                wrong += 1
    print(f"{quotes} quotes of files, {wrong} wrong")
    return 1 if wrong or not quotes else 0


if __name__ == "__main__":
    sys.exit(main())
