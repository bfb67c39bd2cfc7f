// Drives a node through a client that OpenAPI Generator made (typescript-fetch).
import {
  CapturePaymentMethodEnum,
  CommandsApi,
  Configuration,
  OrderPlacedFromJSON,
  OrderStateFromJSON,
  PlaceOrderToJSON,
  ReadModelsApi,
  ResponseError,
  StreamsApi,
  type PlaceOrder,
  type Problem,
} from "./annals/index.js";

declare const process: { argv: string[] };
declare const console: { log(text: string): void };

const configuration = new Configuration({ basePath: process.argv[2] });
const commands = new CommandsApi(configuration);
const models = new ReadModelsApi(configuration);
const streams = new StreamsApi(configuration);

function assert(holds: unknown, what: unknown): asserts holds {
  if (!holds) throw new Error(JSON.stringify(what));
}

/** The problem with which a request is refused. */
async function refused(request: Promise<unknown>): Promise<Problem> {
  try {
    throw new Error(JSON.stringify(await request));
  } catch (error) {
    if (error instanceof ResponseError) return (await error.response.json()) as Problem;
    throw error;
  }
}

const real = (minor: number) => ({ amountMinor: minor, currency: "BRL" });
const placeOrder: PlaceOrder = {
  customer: "me",
  items: [{ line: 1, product: "book", seller: "shop", price: real(5e9), freight: real(800) }],
  estimatedDelivery: new Date("2030-01-01T00:00:00Z"),
};

// A command with a business time, and the same again.
const place = () =>
  commands.orderPlaceOrder({
    stream: "order-1",
    idempotencyKey: "place-1",
    annalsOccurredAt: "2018-06-04T16:44:48Z",
    placeOrder,
  });
const placed = await place();
assert(placed.version === 1 && !placed.repeated, placed);
console.log("done: place");
const again = await place();
assert(again.repeated && again.position === placed.position, again);
console.log("done: repeat");

// Refused by a rule, with its facts; refused because of the version.
const early = await refused(commands.orderShipOrder({ stream: "order-1" }));
assert(early.status === 422 && early.code === "order_not_approved", early);
assert(early["placed_at"] === "2018-06-04T16:44:48Z", early);
console.log("done: refusal");
const late = commands.orderApproveOrder({ stream: "order-1", ifMatch: '"7"' });
const stale = await refused(late);
assert(stale.status === 412 && stale.code === "version_conflict", stale);
console.log("done: version");

// A payment: a choice of values, and more than 32 bits of money.
const paid = await commands.paymentCapturePayment({
  stream: "payment-1",
  capturePayment: {
    order: "1",
    method: CapturePaymentMethodEnum.CreditCard,
    instalments: 3,
    amount: real(5e9 + 800),
  },
});
assert(paid.version === 1, paid);
console.log("done: payment");

// A batch: each command has its own outcome.
const lines = [2, 3, 4].map((n) => ({
  stream: `order-${n}`,
  command: "PlaceOrder",
  data: PlaceOrderToJSON(placeOrder),
}));
const ship2 = { stream: "order-2", command: "ShipOrder", data: {} };
const answers = await commands.submitCommands({ commandLine: [...lines, ship2, { ...ship2, data: 1 }] });
assert(answers.map((answer) => answer.status).join() === "200,200,200,422,400", answers);
console.log("done: batch");

// Reading one's own write.
const minPosition = placed.position;
const row = await models.readOneOfOrderSummary({ key: "1", minPosition });
assert(row.itemsMinor === 5e9, row);
console.log("done: own write");

// Pages.
for (const answer of answers.slice(0, 3)) {
  await models.readOneOfOrderSummary({ key: "1", minPosition: answer.position });
}
const seen: string[] = [];
let after: string | undefined;
do {
  const page = await models.readOrderSummary({ limit: 3, after });
  seen.push(...page.rows.map((row) => row.orderId));
  after = page.next ?? undefined;
} while (after);
assert(seen.join() === "1,2,3,4", seen);
console.log("done: pages");

// An event of a command that nobody was named for.
const { events } = await streams.streamEvents({ stream: "order-1", minPosition });
assert(events[0]?.actor === null && events[0].recordedAt instanceof Date, events);
assert(OrderPlacedFromJSON(events[0].data).itemsMinor === 5e9, events);
console.log("done: events");

// The state, in the form of its category: like an event's data, it comes as it was sent.
const { state } = await streams.streamState({ stream: "order-1", minPosition });
assert(OrderStateFromJSON(state).placed?.facts.itemsMinor === 5e9, state);
console.log("done: state");
console.log("choices: JSON");
