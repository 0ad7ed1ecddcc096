"""A rival for the lab's tests: implementations of "twice" that sleep, or go wrong in one way each."""
import json
import os
import sys
import time

LAUNCH = 2e-3
launches = {}
print(json.dumps({"library": "sleep", "version": "1"}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    name, answer = request.get("implementation"), {}
    if request["do"] == "open":
        if request["shape"]["rows"] == [7]:
            answer = {"error": "seven rows are too many"}
        else:
            of_twice = request["op"] == "twice" and request["dtype"] == "f32" and request["shape"]["dim"] == [9]
            answer = {"implementations": sys.argv[1:] if of_twice else []}
    elif request["do"] == "verify" and name == "wrong":
        answer = {"error": "wrong: row 0 differs"}
    elif request["do"] == "verify" and name == "no_words":
        answer = {"error": ""}
    elif request["do"] == "verify" and name == "prints_bytes":
        sys.stdout.buffer.write(b"not \xff\x1btext\n")
        sys.stdout.flush()
        continue
    elif request["do"] == "verify" and name == "late":
        time.sleep(60)
    elif request["do"] == "window":
        launches[name] = max(1, round(request["seconds"] / LAUNCH))
        answer = {"launches": launches[name]}
    elif request["do"] == "run":
        if name == "dies":
            os._exit(1)
        start = time.perf_counter()
        time.sleep(LAUNCH * launches[name])
        answer = {"seconds": "long" if name == "babbles" else (time.perf_counter() - start) / launches[name]}
    if name == "impossible":
        answer["seconds"] = 1e-15
    print(json.dumps(answer), flush=True)
