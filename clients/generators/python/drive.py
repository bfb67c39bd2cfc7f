"""Drives a node through the client that OpenAPI Generator makes (python)."""

import sys
from datetime import datetime, timezone

from annals import (
    ApiClient,
    ApiException,
    CapturePayment,
    CommandLine,
    CommandsApi,
    Configuration,
    Item,
    Money,
    OrderNotApprovedRefusal,
    OrderPlacedEvent,
    OrderStreamState,
    PlaceOrder,
    ReadModelsApi,
    StreamsApi,
)

client = ApiClient(Configuration(host=sys.argv[1]))
commands, models, streams = CommandsApi(client), ReadModelsApi(client), StreamsApi(client)


def real(minor):
    return Money(amount_minor=minor, currency="BRL")


def order(customer):
    item = Item(line=1, product="book", seller="shop", price=real(5_000_000_000), freight=real(800))
    delivery = datetime(2030, 1, 1, tzinfo=timezone.utc)
    return PlaceOrder(customer=customer, items=[item], estimated_delivery=delivery)


def refused(call, *arguments, **more):
    """The typed refusal of a call that has to be refused."""
    try:
        raise AssertionError(call(*arguments, **more))
    except ApiException as refusal:
        return refusal.data


def place():
    more = {"idempotency_key": "place-1", "annals_occurred_at": "2018-06-04T16:44:48Z"}
    return commands.order_place_order("order-1", order("me"), **more)


placed = place()
assert placed.version == 1 and not placed.repeated, placed
print("done: place")
again = place()
assert again.repeated and again.position == placed.position, again
print("done: repeat")

early = refused(commands.order_ship_order, "order-1").actual_instance
assert isinstance(early, OrderNotApprovedRefusal) and early.placed_at.year == 2018, early
print("done: refusal")
stale = refused(commands.order_approve_order, "order-1", if_match='"7"')
assert stale.code == "version_conflict" and stale.current_version == 1, stale
print("done: version")

payment = CapturePayment(
    order="1", method="credit_card", instalments=3, amount=real(5_000_000_800)
)
paid = commands.payment_capture_payment("payment-1", payment)
assert paid.version == 1, paid
print("done: payment")

lines = [
    CommandLine(stream=f"order-{n}", command="PlaceOrder", data=order("me").to_dict())
    for n in range(2, 5)
]
lines.append(CommandLine(stream="order-2", command="ShipOrder", data={}))
answers = commands.submit_commands(lines)
assert [answer.status for answer in answers] == [200, 200, 200, 422], answers
assert answers[3].code == "order_not_approved", answers
print("done: batch")

row = models.read_one_of_order_summary("1", min_position=placed.position)
assert row.items_minor == 5_000_000_000, row
print("done: own write")

for answer in answers[:3]:
    models.read_one_of_order_summary("1", min_position=answer.position)
seen, after = [], None
while True:
    page = models.read_order_summary(limit=3, after=after)
    seen += [row.order_id for row in page.rows]
    after = page.next
    if after is None:
        break
assert seen == ["1", "2", "3", "4"], seen
print("done: pages")

page = streams.stream_events("order-1", min_position=placed.position)
event = page.events[0].actual_instance
assert isinstance(event, OrderPlacedEvent) and event.actor is None, event
assert event.data.customer == "me", event
print("done: events")

state = streams.stream_state("order-1", min_position=placed.position).actual_instance
assert isinstance(state, OrderStreamState), state
assert state.state.placed.facts.items_minor == 5_000_000_000, state
print("done: state")
print("choices: typed")
