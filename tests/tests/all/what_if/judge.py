#!/usr/bin/env python3
"""A program that judges badly: how is in FLAW. It answers five commands, and then does that."""

import json
import os
import sys
import time

flaw = os.environ["FLAW"]


def say(value):
    print(value if isinstance(value, str) else json.dumps(value), flush=True)


hello = {"exchange": 1, "program": "fake", "version": "1", "categories": ["order"]}
if flaw == "garbage first":
    say("hello")
elif flaw == "other version":
    hello["exchange"] = 99
    say(hello)
elif flaw == "silent first":
    time.sleep(60)
else:
    say(hello)

for number, line in enumerate(sys.stdin):
    asked = json.loads(line)
    answer = {name: asked[name] for name in ("partition", "position")}
    answer["verdict"] = "same"
    if number < 5:
        say(answer)
    elif flaw == "crash":
        print("the rules of the shop are lost", file=sys.stderr)
        sys.exit(3)
    elif flaw == "garbage":
        say("oops")
    elif flaw == "other place":
        answer["position"] += 1
        say(answer)
    elif flaw == "no reason":
        answer["verdict"] = "not_judgeable"
        say(answer)
    elif flaw == "silent":
        time.sleep(60)
