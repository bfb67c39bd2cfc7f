"""Drives a node through a client that openapi-python-client made."""

import sys
from datetime import datetime, timezone
from uuid import uuid4

from annals_client import Client
from annals_client.api.commands import (
    order_approve_order,
    order_place_order,
    order_ship_order,
    payment_capture_payment,
    submit_commands,
)
from annals_client.api.read_models import read_one_of_order_summary, read_order_summary
from annals_client.api.streams import stream_events, stream_state
from annals_client.models import (
    ApproveOrder,
    CapturePayment,
    CapturePaymentMethod,
    CommandAnswer,
    CommandLine,
    Item,
    Money,
    OrderNotApprovedRefusal,
    OrderPlacedEvent,
    OrderStreamState,
    PlaceOrder,
    Problem,
    ShipOrder,
)

client = Client(base_url=sys.argv[1])


def real(minor: int) -> Money:
    return Money(amount_minor=minor, currency="BRL")


def order(customer: str) -> PlaceOrder:
    item = Item(line=1, product="book", seller="shop", price=real(5_000_000_000), freight=real(800))
    delivery = datetime(2030, 1, 1, tzinfo=timezone.utc)
    return PlaceOrder(customer=customer, items=[item], estimated_delivery=delivery)


# A command, and the same again.
key = str(uuid4())
placed = order_place_order.sync("order-1", client=client, body=order("me"), idempotency_key=key)
assert isinstance(placed, CommandAnswer) and placed.version == 1 and not placed.repeated, placed
print("done: place")
again = order_place_order.sync("order-1", client=client, body=order("me"), idempotency_key=key)
assert isinstance(again, CommandAnswer) and again.repeated, again
assert again.events[0].id == placed.events[0].id
print("done: repeat")

# Refused by a rule, with its facts; refused because of the version.
refused = order_ship_order.sync("order-1", client=client, body=ShipOrder())
assert isinstance(refused, OrderNotApprovedRefusal) and refused.status == 422, refused
assert isinstance(refused.placed_at, datetime) and refused.stream == "order-1", refused
reused = order_ship_order.sync("order-1", client=client, body=ShipOrder(), idempotency_key=key)
assert isinstance(reused, Problem) and reused.code == "command_id_reused", reused
print("done: refusal")
stale = order_approve_order.sync("order-1", client=client, body=ApproveOrder(), if_match='"7"')
assert isinstance(stale, Problem) and stale.code == "version_conflict", stale
assert (stale.status, stale.current_version, stale.expected_version) == (412, 1, 7), stale
print("done: version")

# A payment: a choice of values, and more than 32 bits of money.
payment = CapturePayment(
    order="1", method=CapturePaymentMethod.CREDIT_CARD, instalments=3, amount=real(5_000_000_800)
)
paid = payment_capture_payment.sync("payment-1", client=client, body=payment)
assert isinstance(paid, CommandAnswer) and paid.version == 1, paid
print("done: payment")

# A batch: each command has its own outcome.
lines = [
    CommandLine(stream=f"order-{n}", command="PlaceOrder", data=order("me").to_dict())
    for n in range(2, 5)
] + [CommandLine(stream="order-2", command="ShipOrder", data={})]
answers = submit_commands.sync(client=client, body=lines)
assert [answer.status for answer in answers] == [200, 200, 200, 422], answers
assert [answer.line_number for answer in answers] == [1, 2, 3, 4], answers
assert answers[3].code == "order_not_approved", answers[3]
print("done: batch")

# Reading one's own write.
row = read_one_of_order_summary.sync("1", client=client, min_position=placed.position)
assert row.items_minor == 5_000_000_000, row
print("done: own write")

# Pages.
last = answers[2].position
for position in [placed.position, *(answer.position for answer in answers[:3])]:
    read_one_of_order_summary.sync("1", client=client, min_position=position)
seen, after = [], None
while True:
    more = {"after": after} if after else {}
    page = read_order_summary.sync(client=client, limit=3, min_position=last, **more)
    seen += [row.order_id for row in page.rows]
    after = page.next_
    if not after:
        break
assert seen == ["1", "2", "3", "4"], seen
print("done: pages")

# Events of a command that nobody was named for.
events = stream_events.sync("order-1", client=client, min_position=placed.position)
assert events.version == 1 and events.next_ is None, events
event = events.events[0]
assert isinstance(event, OrderPlacedEvent) and event.actor is None, event
assert event.recorded_at.tzinfo is not None and event.data.customer == "me", event
print("done: events")

# The state, in the form of its category.
state = stream_state.sync("order-1", client=client, min_position=placed.position)
assert isinstance(state, OrderStreamState) and state.state.placed.facts.items_minor == 5_000_000_000
print("done: state")
print("choices: typed")
