"""Drives a node through the packed Python client."""

import sys
from datetime import datetime, timezone

import httpx
from annals_client import Annals, NoAnswer, Problem, Refused, VersionConflict
from annals_client.models import (
    ApproveOrder,
    CapturePayment,
    CapturePaymentMethod,
    CommandLine,
    Item,
    Money,
    OrderNotApprovedRefusal,
    OrderPlacedEvent,
    PlaceOrder,
    ShipOrder,
)

url = sys.argv[1]
annals = Annals(url, actor="service:shop")


def raised(kind, action):
    try:
        action()
    except kind as error:
        return error
    raise AssertionError("nothing was raised")


def real(minor: int) -> Money:
    return Money(amount_minor=minor, currency="BRL")


item = Item(line=1, product="book", seller="shop", price=real(5_000_000_000), freight=real(800))
delivery = datetime(2030, 1, 1, tzinfo=timezone.utc)
order = PlaceOrder(customer="me", items=[item], estimated_delivery=delivery)

# A command with a business time, and the same again.
options = {
    "id": "place-1",
    "expected_version": 0,
    "occurred_at": datetime(2018, 6, 4, 16, 44, 48, tzinfo=timezone.utc),
}
placed = annals.send("order-1", "PlaceOrder", order, **options)
assert placed.version == 1 and not placed.repeated, placed
again = annals.send("order-1", "PlaceOrder", order.to_dict(), **options)
assert again.repeated and again.position == placed.position, again

# Refused by a rule, with its facts; because of the version; because the id means something else.
early = raised(Refused, lambda: annals.send("order-1", "ShipOrder", ShipOrder()))
assert (early.status, early.code) == (422, "order_not_approved"), early.document
assert early.facts == {"placed_at": "2018-06-04T16:44:48Z"}, early.facts
refusal = OrderNotApprovedRefusal.from_dict(early.document)
assert refusal.placed_at == datetime(2018, 6, 4, 16, 44, 48, tzinfo=timezone.utc), refusal
approve = ApproveOrder()
stale = raised(
    VersionConflict, lambda: annals.send("order-1", "ApproveOrder", approve, expected_version=7)
)
assert (stale.current_version, stale.expected_version) == (1, 7), stale.document
reused = raised(Problem, lambda: annals.send("order-1", "ApproveOrder", approve, id="place-1"))
assert reused.code == "command_id_reused" and not isinstance(reused, Refused), reused.document

# A payment: a choice of values, and more than 32 bits of money.
payment = CapturePayment(
    order="1", method=CapturePaymentMethod.CREDIT_CARD, instalments=3, amount=real(5_000_000_800)
)
assert annals.send("payment-1", "CapturePayment", payment).version == 1

# A row that shows both streams: the position that is waited for is that of all own writes.
row = annals.read("order_summary").get("1")
assert (row.items_minor, row.captured_minor) == (5_000_000_000, 5_000_000_800), row
assert annals.read("order_summary").get("nobody") is None


class Cutting(httpx.HTTPTransport):
    """A network that ends the first answers after some bytes."""

    cuts_left = 3

    def handle_request(self, request):
        response = super().handle_request(request)
        self.cuts_left -= 1
        if self.cuts_left >= 0:
            response.stream = Cut(response.stream)
        return response


class Cut(httpx.SyncByteStream):
    def __init__(self, whole):
        self.whole = whole

    def __iter__(self):
        yield next(iter(self.whole))[:1_000]
        raise httpx.ReadError("the connection is cut")

    def close(self):
        self.whole.close()


# A batch in several requests, which the network interrupts: each command takes effect once.
def lines():
    for n in range(2, 30):
        yield CommandLine(stream=f"order-{n}", command="PlaceOrder", data=order)
    yield {"stream": "order-2", "command": "ShipOrder", "data": {}}
    yield {"stream": "nothing-2", "command": "ShipOrder", "data": {}, "id": "mine"}


network = Cutting()
batching = Annals(url, actor="service:shop", http=httpx.Client(transport=network))
outcomes = list(batching.batch(lines(), lines_max=7))
assert len(outcomes) == 30 and network.cuts_left < 0, outcomes
assert any(outcome.accepted and outcome.accepted.repeated for outcome in outcomes), outcomes
assert all(outcome.accepted.version == 1 for outcome in outcomes[:28]), outcomes
assert outcomes[28].refused.code == "order_not_approved", outcomes[28]
assert outcomes[29].problem.code == "category_unknown", outcomes[29]
assert outcomes[29].line["id"] == "mine" and outcomes[0].line["id"], outcomes

# Pages, with all that was written.
annals.observe(batching.position)
seen = [row.order_id for row in annals.read("order_summary").rows(limit=10)]
assert seen == sorted(str(n) for n in range(1, 30)), seen
other = Annals(url)
other.observe(annals.position)
assert other.read("order_summary").get("29", read_for=20).order_id == "29"

# The events of a stream, and one that comes later.
types = []
for event in annals.events("order-1", follow=True, poll=0.02):
    types.append(event.type_)
    assert event.actor.id == "shop" and event.version == len(types), event
    if len(types) == 2:
        break
    annals.send("order-1", "ApproveOrder", approve)
assert types == ["OrderPlaced", "OrderApproved"], types
first = next(annals.events("order-1"))
assert isinstance(first, OrderPlacedEvent) and first.data.customer == "me", first
nothing = raised(Problem, lambda: next(annals.events("order-none")))
assert nothing.code == "stream_not_found", nothing.document

# Nobody there: the outcome is unknown, and the error has the id.
alone = Annals("http://127.0.0.1:1", retry_for=0.3)
silence = raised(NoAnswer, lambda: alone.send("order-1", "ApproveOrder", approve))
assert len(silence.command_id) == 36, silence
print("driven")
