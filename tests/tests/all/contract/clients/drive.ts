// Drives a node through openapi-fetch and the types that openapi-typescript made.
import createClient from "openapi-fetch";
import type { components, paths } from "./annals.js";

declare const process: { argv: string[] };
declare const console: { log(text: string): void };

type Schemas = components["schemas"];
const annals = createClient<paths>({ baseUrl: process.argv[2] });

function assert(holds: unknown, what: unknown): asserts holds {
  if (!holds) throw new Error(JSON.stringify(what));
}

// The form of a refusal with this code, and of an event of this type.
type Refusal<Of, Code> = Extract<Of, { code: Code }>;
type RecordedEvent = Schemas["RecordedEvent"];
function is<T extends string>(event: RecordedEvent, type: T): event is Extract<RecordedEvent, { type: T }> {
  return event.type === type;
}

const real = (minor: number): Schemas["Money"] => ({ amount_minor: minor, currency: "BRL" });
const order = (customer: string): Schemas["PlaceOrder"] => ({
  customer,
  items: [{ line: 1, product: "book", seller: "shop", price: real(5e9), freight: real(800) }],
  estimated_delivery: "2030-01-01T00:00:00Z",
});

// A command, and the same again.
const place = () =>
  annals.POST("/v1/streams/{stream}/PlaceOrder", {
    params: { path: { stream: "order-1" }, header: { "Idempotency-Key": "place-1" } },
    body: order("me"),
  });
const placed = await place();
assert(placed.data?.version === 1 && !placed.data.repeated, placed);
console.log("done: place");
const again = await place();
assert(again.data?.repeated && again.data.position === placed.data.position, again);
console.log("done: repeat");

// Refused by a rule, with its facts; refused because of the version.
const ship = await annals.POST("/v1/streams/{stream}/ShipOrder", {
  params: { path: { stream: "order-1" } },
  body: {},
});
assert(ship.response.status === 422 && ship.error?.code === "order_not_approved", ship);
const refusal = ship.error as Refusal<Schemas["RefusalOfOrder"], "order_not_approved">;
assert(new Date(refusal.placed_at).getTime() > 0, ship);
console.log("done: refusal");
const stale = await annals.POST("/v1/streams/{stream}/ApproveOrder", {
  params: { path: { stream: "order-1" }, header: { "If-Match": '"7"' } },
  body: {},
});
assert(stale.response.status === 412 && stale.error?.code === "version_conflict", stale);
assert(stale.error.current_version === 1, stale);
console.log("done: version");

// A payment: a choice of values, and more than 32 bits of money.
const paid = await annals.POST("/v1/streams/{stream}/CapturePayment", {
  params: { path: { stream: "payment-1" } },
  body: { order: "1", method: "credit_card", instalments: 3, amount: real(5e9 + 800) },
});
assert(paid.data?.version === 1, paid);
console.log("done: payment");

// A batch: each command has its own outcome.
const lines: Schemas["CommandLine"][] = [2, 3, 4].map((n) => ({
  stream: `order-${n}`,
  command: "PlaceOrder",
  data: order("me"),
}));
lines.push({ stream: "order-2", command: "ShipOrder", data: {} });
const batch = await annals.POST("/v1/commands", { body: lines });
const answers = batch.data;
assert(Array.isArray(answers), batch);
assert(answers.map((answer) => answer.status).join() === "200,200,200,422", answers);
console.log("done: batch");

// Reading one's own write.
const row = await annals.GET("/v1/read/order_summary/{key}", {
  params: { path: { key: "1" }, query: { min_position: placed.data.position } },
});
assert(row.data?.items_minor === 5e9, row);
console.log("done: own write");

// Pages.
for (const answer of answers.slice(0, 3)) {
  await annals.GET("/v1/read/order_summary/{key}", {
    params: { path: { key: "1" }, query: { min_position: answer.position } },
  });
}
const seen: string[] = [];
let after: string | undefined;
do {
  const page = await annals.GET("/v1/read/order_summary", { params: { query: { limit: 3, after } } });
  // CSV and lines of JSON, which this request does not ask for, would be text.
  assert(page.data && typeof page.data !== "string", page);
  seen.push(...page.data.rows.map((row) => row.order_id));
  after = page.data.next ?? undefined;
} while (after);
assert(seen.join() === "1,2,3,4", seen);
console.log("done: pages");

// Events of a command that nobody was named for.
const events = await annals.GET("/v1/streams/{stream}/events", {
  params: { path: { stream: "order-1" }, query: { min_position: placed.data.position } },
});
assert(events.data?.version === 1 && events.data.next === null, events);
const event = events.data.events[0];
assert(event?.actor === null && is(event, "OrderPlaced"), event);
assert(event.data.items_minor === 5e9, event);
console.log("done: events");

// The state, in the form of its category.
const state = await annals.GET("/v1/streams/{stream}/state", {
  params: { path: { stream: "order-1" }, query: { min_position: placed.data.position } },
});
assert(state.data?.category === "order", state);
const order1 = state.data as Schemas["OrderStreamState"];
assert(order1.state.placed?.facts.items_minor === 5e9, order1);
console.log("done: state");
console.log("choices: typed");
