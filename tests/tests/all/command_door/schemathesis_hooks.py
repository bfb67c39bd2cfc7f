"""What the generator of requests has to be told; loaded by schemathesis.toml."""

import base64
import json
import zlib

import schemathesis
from schemathesis.core import NotSet
from schemathesis.core.parameters import ParameterLocation
from schemathesis.specs.openapi.checks import negative_data_rejection


@schemathesis.serializer("application/x-ndjson")
def ndjson(_context, value):
    """Any value as lines: a text as it is, everything else as JSON."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return json.dumps(value).encode()


@schemathesis.check
def refuses_what_is_malformed(context, response, case):
    """The check `negative_data_rejection`, but for headers.

    The generator takes unknown headers and whitespace around a value for violations; HTTP has
    servers ignore both. Malformed headers are tested by hand (hostile.rs). When a hook has changed a
    query, the generator compares it anew with the document, and takes a list that is sent as one text
    (`sort=a,b`) for a text: what was made as a good request stays one.
    """
    if getattr(case.meta and case.meta.phase.data, "description", "") == "Positive test case":
        return None
    components = case.meta.components if case.meta is not None else {}
    negative = {where for where, how in components.items() if how.mode.is_negative}
    if negative - {ParameterLocation.HEADER}:
        return negative_data_rejection(context, response, case)
    return None


@schemathesis.hook
def before_call(_context, case, _kwargs):
    """What the document says in words of good requests.

    An empty value stands where no value for a pattern was found: none is sent. A business time is one
    that there is. A request without a body has an id. A position token ends with a check sum. A feed is
    one that ends.
    """
    if case.meta is None or not case.meta.generation.mode.is_positive:
        return
    for name in [name for name, value in (case.headers or {}).items() if value == ""]:
        del case.headers[name]
    if "Annals-Occurred-At" in (case.headers or {}):
        case.headers["Annals-Occurred-At"] = "2018-06-04T16:44:48Z"
    if case.method.upper() == "POST" and isinstance(case.body, NotSet):
        case.headers["Idempotency-Key"] = "without-a-body"
    if case.path == "/v1/events":
        # A feed that follows has no end; tests by hand follow it. A place is one that there is.
        case.query = {k: v for k, v in (case.query or {}).items() if k != "follow"}
        if "from" in case.query:
            case.query["from"] = "beginning"
            case.query.pop("from_time", None)
        if case.query.get("outcome") == "refused":
            case.query.pop("type", None)
        (case.headers or {}).pop("Last-Event-ID", None)
    for sent, name in ((case.query, "min_position"), (case.headers, "Annals-Min-Position")):
        if name in (sent or {}):
            sent[name] = token_of_a_log(sent[name])


def token_of_a_log(seed):
    """The token of some place in some log: form, log, bits, one run (partition 0), position, check."""
    log = zlib.crc32(seed.encode()).to_bytes(4, "big") * 4
    content = b"\x02" + log + b"\x01\x01\x00\x01\x80"
    token = content + zlib.crc32(content).to_bytes(4, "big")
    return base64.urlsafe_b64encode(token).rstrip(b"=").decode()
