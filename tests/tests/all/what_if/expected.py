"""Which commands another rule would decide differently, worked out from the commits alone.

Reads the lines of `annals log dump --accepted` and knows nothing of Annals' code: it follows the
recorded events of each order. Its first argument names the rule:

cancel  a delivered order may still be cancelled
strict  an order of more than two items is refused
"""

import json
import sys

rule = sys.argv[1]
streams = {}
differences, following = [], []

for line in sys.stdin:
    line = json.loads(line)
    commit = line["commit"]
    stream = commit["stream"]
    if not stream.startswith("order-"):
        continue
    order = streams.setdefault(stream, {"events": set(), "changed": False})
    command = commit["command"]
    kind = command["type"]
    code = commit.get("rejection", {}).get("code")
    events = [event["type"] for event in commit.get("events", [])]
    is_digest = "$digest" in command["data"]
    found = [stream, commit["from_version"], command["id"], line["partition"], line["position"]]

    if order["changed"]:
        if is_digest:
            pass
        elif rule == "cancel":
            # Now the order is cancelled, and has one event more.
            if "expected_version" in command or code == "order_already_delivered":
                following.append(found)
        elif code != "order_not_placed":
            # Now the order was never placed.
            following.append(found)
    elif rule == "cancel" and kind == "CancelOrder" and not events:
        is_open = not order["events"] & {"OrderCanceled", "OrderMarkedUnavailable"}
        if "OrderDelivered" in order["events"] and is_open:
            differences.append(found)
            order["changed"] = True
    elif rule == "strict" and "OrderPlaced" in events and len(command["data"]["items"]) > 2:
        differences.append(found)
        order["changed"] = True
    order["events"].update(events)

json.dump({"differences": differences, "following": following}, sys.stdout)
