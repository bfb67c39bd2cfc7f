// Drives a node through the packed TypeScript client.
import {
  accepted,
  Annals,
  type CommandData,
  type Line,
  NoAnswer,
  Problem,
  Refused,
  VersionConflict,
} from "annals-client";

declare const process: { argv: string[] };
declare const console: { log(text: string): void };

const url = process.argv[2] ?? "";
const annals = new Annals({ url, actor: "service:shop" });

function assert(holds: unknown, what: unknown): asserts holds {
  if (!holds) throw new Error(JSON.stringify(what));
}

async function thrown(request: Promise<unknown>): Promise<unknown> {
  try {
    await request;
  } catch (error) {
    return error;
  }
  throw new Error("nothing was thrown");
}

const real = (minor: number) => ({ amount_minor: minor, currency: "BRL" });
const order: CommandData<"PlaceOrder"> = {
  customer: "me",
  items: [{ line: 1, product: "book", seller: "shop", price: real(5e9), freight: real(800) }],
  estimated_delivery: "2030-01-01T00:00:00Z",
};

// A command with a business time, and the same again.
const options = { id: "place-1", expectedVersion: 0, occurredAt: new Date(1528130688000) };
const placed = accepted(await annals.send("order-1", "PlaceOrder", order, options));
assert(placed.version === 1 && !placed.repeated, placed);
const again = accepted(await annals.send("order-1", "PlaceOrder", order, options));
assert(again.repeated && again.position === placed.position, again);

// The types are those of the document.
// @ts-expect-error: there is no such command
void (() => annals.send("order-1", "LoseOrder", {}));
// @ts-expect-error: the customer is missing
void (() => annals.send("order-1", "PlaceOrder", { ...order, customer: undefined }));
// @ts-expect-error: there is no such read model
void (() => annals.read("orders"));

// Refused by a rule, with its facts; because of the version; because the id means something else.
const early = await annals.send("order-1", "ShipOrder", {});
assert(early.refused?.code === "order_not_approved", early);
assert(early.refused.placed_at === "2018-06-04T16:44:48Z", early);
try {
  accepted(early);
  throw new Error("accepted");
} catch (error) {
  assert(error instanceof Refused && error.status === 422, error);
}
const stale = await thrown(annals.send("order-1", "ApproveOrder", {}, { expectedVersion: 7 }));
assert(stale instanceof VersionConflict, stale);
assert(stale.currentVersion === 1 && stale.expectedVersion === 7, stale.document);
const reused = await thrown(annals.send("order-1", "ApproveOrder", {}, { id: "place-1" }));
assert(reused instanceof Problem && reused.code === "command_id_reused", reused);

// A payment: a choice of values, and more than 32 bits of money.
const payment: CommandData<"CapturePayment"> = {
  order: "1",
  method: "credit_card",
  instalments: 3,
  amount: real(5e9 + 800),
};
const paid = accepted(await annals.send("payment-1", "CapturePayment", payment));
assert(paid.version === 1, paid);

// A row that shows both streams: the position that is waited for is that of all own writes.
const row = await annals.read("order_summary").get("1");
assert(row?.items_minor === 5e9 && row.captured_minor === 5e9 + 800, row);
assert((await annals.read("order_summary").get("nobody")) === undefined, "a row of nobody");

/** A network that ends the first answers after some bytes. */
let cutsLeft = 3;
const cutting: typeof fetch = async (input, init) => {
  const response = await fetch(input, init);
  if (cutsLeft-- <= 0 || !response.body) return response;
  const reader = response.body.getReader();
  let isCut = false;
  const pull = async (body: ReadableStreamDefaultController<Uint8Array>) => {
    const { value } = await reader.read();
    if (isCut || !value) return body.error(new Error("the connection is cut"));
    isCut = true;
    body.enqueue(value.subarray(0, 1_000));
  };
  return new Response(new ReadableStream({ pull }, { highWaterMark: 0 }), response);
};

// A batch in several requests, which the network interrupts: each command takes effect once.
async function* lines(): AsyncGenerator<Line> {
  for (let n = 2; n < 30; n++) yield { stream: `order-${n}`, command: "PlaceOrder", data: order };
  yield { stream: "order-2", command: "ShipOrder", data: {} };
  yield { stream: "nothing-2", command: "ShipOrder", data: {}, id: "mine" };
}
const outcomes = [];
const batching = new Annals({ url, actor: "service:shop", fetch: cutting });
for await (const outcome of batching.batch(lines(), { linesMax: 7 })) outcomes.push(outcome);
assert(outcomes.length === 30 && cutsLeft < 0, outcomes);
assert(outcomes.some(({ accepted }) => accepted?.repeated), outcomes);
assert(outcomes.slice(0, 28).every(({ accepted }) => accepted?.version === 1), outcomes);
assert(outcomes[28]?.refused?.code === "order_not_approved", outcomes[28]);
assert(outcomes[29]?.problem?.code === "category_unknown", outcomes[29]);
assert(outcomes[29].line.id === "mine" && outcomes[0]?.line.id, outcomes);

// Pages, with all that was written.
annals.observe(batching.position ?? "");
const seen: string[] = [];
const rows = annals.read("order_summary").rows({ limit: 10 });
for await (const { order_id } of rows) seen.push(order_id);
const all = Array.from({ length: 29 }, (_, n) => String(n + 1)).sort();
assert(seen.join() === all.join(), seen);
const other = new Annals({ url });
other.observe(annals.position ?? "");
assert(await other.read("order_summary").get("29", { readForMs: 20_000 }), "order 29");

// The events of a stream, and one that comes later.
const types: string[] = [];
for await (const event of annals.events("order-1", { follow: true, pollMs: 20 })) {
  types.push(event.type);
  assert(event.actor?.id === "shop" && event.version === types.length, event);
  if (types.length === 1) accepted(await annals.send("order-1", "ApproveOrder", {}));
  if (types.length === 2) break;
}
assert(types.join() === "OrderPlaced,OrderApproved", types);
const nothing = await thrown(annals.events("order-none", {}).next());
assert(nothing instanceof Problem && nothing.code === "stream_not_found", nothing);

// Nobody there: the outcome is unknown, and the error has the id.
const alone = new Annals({ url: "http://127.0.0.1:1", retryForMs: 300 });
const silence = await thrown(alone.send("order-1", "ApproveOrder", {}));
assert(silence instanceof NoAnswer && silence.commandId?.length === 36, silence);
console.log("driven");
