"""Changes copies of `schemas/` in one way each, and asks `ops/contract/changes` what it makes of it.

Usage: python mutations.py CHANGES SCHEMAS
"""

import json
import runpy
import shutil
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

CHANGES, SCHEMAS = sys.argv[1], Path(sys.argv[2])
changes = runpy.run_path(CHANGES)["changes"]
COMMANDS = "/v1/streams/{stream}/"
REFERENCE = {"application/json": {"schema": {"$ref": "#/components/schemas/ShipOrder"}}}


def schema(name, change):
    """Changes a schema of the OpenAPI document."""

    def mutate(document):
        change(document["components"]["schemas"][name])

    return "openapi.json", mutate


def drop(name):
    def change(schema):
        del schema["properties"][name]
        schema["required"] = [member for member in schema.get("required", []) if member != name]

    return change


def member(name, required=False):
    def change(schema):
        schema["properties"][name] = {"type": "string"}
        if required:
            schema.setdefault("required", []).append(name)

    return change


def put(name, **keywords):
    return lambda schema: schema["properties"][name].update(keywords)


def enum(name, change):
    return lambda schema: change(schema["properties"][name]["enum"])


def nullable(properties, name):
    properties[name] = {"anyOf": [properties[name], {"type": "null"}]}


def post(name, change):
    return "openapi.json", lambda document: change(document["paths"][name]["post"])


def event(change):
    return "events/order/OrderPlaced.v1.json", change


def set_of(name, value):
    return lambda schema: schema.__setitem__(name, value)


# What breaks somebody. Each change is named by what it does.
BREAKING = {
    "a member of an answer is gone": schema("CommandAnswer", drop("repeated")),
    "a member of an answer may be absent": schema("CommandAnswer", lambda s: s["required"].remove("repeated")),
    "a member of an answer may be null": schema("CommandAnswer", put("version", type=["integer", "null"])),
    "an object of an answer may be null": schema("DatedOrderPlaced", lambda s: nullable(s["properties"], "facts")),
    "a command takes longer texts only": schema("Money", put("currency", minLength=9)),
    "a member of an answer has another type": schema("CommandAnswer", put("version", type="string")),
    "an answer has a new value": schema("CommandOutcome", enum("outcome", lambda e: e.append("lost"))),
    "a column is gone": schema("OrderSummaryRow", drop("items_minor")),
    "a fact of a refusal is gone": schema("OrderNotApprovedRefusal", drop("placed_at")),
    "a form of a choice is gone": ("openapi.json", lambda d: d["components"]["schemas"]["RecordedEvent"]["anyOf"].pop(0)),
    "a command needs a new member": schema("PlaceOrder", member("gift", required=True)),
    "a command loses a member": schema("ReviewOrder", drop("comment")),
    "a command takes fewer values": schema("CapturePayment", enum("method", lambda e: e.pop())),
    "a command takes smaller numbers": schema("Money", put("amount_minor", maximum=1)),
    "a command takes fewer items": schema("PlaceOrder", put("items", maxItems=1)),
    "a command takes other texts": schema("Money", put("currency", pattern="^BRL$")),
    "an object takes no further member": schema("CommandRejection", set_of("additionalProperties", False)),
    "a command is gone": ("openapi.json", lambda d: d["paths"].pop(COMMANDS + "ShipOrder")),
    "a command needs a body": post(COMMANDS + "ShipOrder", lambda o: o["requestBody"].update(required=True)),
    "a body may not be null": post(COMMANDS + "ShipOrder", lambda o: o["requestBody"]["content"].update(REFERENCE)),
    "a parameter is required": post(COMMANDS + "ShipOrder", lambda o: o["parameters"][1].update(required=True)),
    "a parameter is gone": post(COMMANDS + "ShipOrder", lambda o: o["parameters"].pop(1)),
    "a media type is gone": post("/v1/commands", lambda o: o["requestBody"]["content"].pop("application/x-ndjson")),
    "success has another status": post("/v1/commands", lambda o: o["responses"].update({"202": o["responses"].pop("200")})),
    "an operation has another name": post("/v1/commands", lambda o: o.update(operationId="batch")),
    "an event's member is gone": event(drop("currency")),
    "an event needs a new member": event(member("gift", required=True)),
    "an event's member has another type": event(put("currency", type="integer")),
    "a command's schema takes less": ("commands/order/CancelOrder.v1.json", put("reason", maxLength=1)),
    "a commit's member is gone": ("commit.json", drop("recorded_at")),
    "a claim's member has another type": ("claim.json", put("node", type="integer")),
    "a header is gone": ("asyncapi.json", lambda d: drop("annals-kind")(d["components"]["messages"]["commit"]["headers"])),
    "the key has another form": (
        "asyncapi.json",
        lambda d: d["components"]["messages"]["commit"]["bindings"]["kafka"]["key"].update(type="integer"),
    ),
    "the topic is compacted": ("asyncapi.json", lambda d: d["channels"]["log"].update(address="other")),
}

# What breaks nobody, and is said all the same.
COMPATIBLE = {
    "an answer has a new member": schema("CommandAnswer", member("more")),
    "a command takes a new member": schema("PlaceOrder", member("gift")),
    "a command takes more values": schema("CapturePayment", enum("method", lambda e: e.append("gold"))),
    "a choice has a new form": (
        "openapi.json",
        lambda d: d["components"]["schemas"]["RecordedEvent"]["anyOf"].insert(0, {"$ref": "#/components/schemas/Actor"}),
    ),
    "there is a new command": (
        "openapi.json",
        lambda d: d["paths"].update({COMMANDS + "X": {"post": {**d["paths"][COMMANDS + "ShipOrder"]["post"], "operationId": "x"}}}),
    ),
    "an event has a new member": event(member("gift")),
    "there is a new parameter": post(
        "/v1/commands", lambda o: o["parameters"].append({"name": "Annals-New", "in": "header", "schema": {"type": "string"}})
    ),
}

# What no program sees.
SILENT = {
    "other words": schema("CommandAnswer", set_of("description", "Other words.")),
    "another example": schema("PlaceOrder", set_of("examples", [])),
}


def seen(named):
    """The kind of a change: breaking, compatible or silent."""
    name, (file, mutate) = named
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "schemas"
        shutil.copytree(SCHEMAS, copy)
        before = (copy / file).read_text()
        document = json.loads(before)
        mutate(document)
        if document == json.loads(before):
            return name, "not made", []
        (copy / file).write_text(json.dumps(document))
        breaking, compatible = changes(SCHEMAS, copy)
        kind = "breaking" if breaking else "compatible" if compatible else "silent"
        return name, kind, breaking + compatible


wrong = []
for kind, mutations in (("breaking", BREAKING), ("compatible", COMPATIBLE), ("silent", SILENT)):
    with ThreadPoolExecutor(4) as pool:
        for name, found, lines in pool.map(seen, mutations.items()):
            if found != kind:
                wrong.append(f"{name}: {found} instead of {kind}: {lines}")
print("\n".join(wrong) or f"{len(BREAKING)} {len(COMPATIBLE)} {len(SILENT)}")
sys.exit(bool(wrong))
