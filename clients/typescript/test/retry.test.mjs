// What the client sends when answers fail to come: a server here misbehaves as each test tells it
// to.
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import { accepted, Annals, NoAnswer } from "annals-client";

const POSITION = "AgAAAAAAAAAAAAAAAAAAAAABAQABgPcGhNQ"; // the first place of partition 0
const ACCEPTED = { stream: "order-1", version: 1, position: POSITION, events: [], repeated: false };
const problem = (status, more) => ({ status, code: "overloaded", detail: "later", ...more });

/** Runs `test` against a server; `answers` has what to do with the first request, the next, … */
async function against(answers, test) {
  const requests = [];
  const server = createServer(async (request, response) => {
    let body = "";
    for await (const chunk of request) body += chunk;
    const { "content-length": _, ...headers } = request.headers;
    requests.push({ at: performance.now(), url: request.url, headers, body });
    const answer = answers[requests.length - 1] ?? answers.at(-1);
    answer(request, response, body);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await test(`http://127.0.0.1:${server.address().port}`, requests);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

const drop = (request) => request.socket.destroy();
const hang = () => {};
const accept = (_, response) => response.end(JSON.stringify(ACCEPTED));
const refuse =
  (status, headers = {}, more = {}) =>
  (_, response) =>
    response.writeHead(status, headers).end(JSON.stringify(problem(status, more)));

test("a command without an answer is sent again with the same bytes and id", async () => {
  await against([drop, refuse(503), refuse(502), accept], async (url, requests) => {
    const data = { name: "ü" };
    const sending = new Annals({ url }).send("order-1", "PlaceOrder", data, { actor: "user:me" });
    data.name = "changed by the program meanwhile";
    assert.equal(accepted(await sending).version, 1);
    assert.equal(requests.length, 4);
    assert.match(requests[0].headers["idempotency-key"], /^[0-9a-f]{8}-[0-9a-f]{4}-7/);
    assert.equal(requests[0].body, '{"name":"ü"}');
    const [first, ...later] = requests.map(({ at, ...sent }) => sent);
    for (const sent of later) assert.deepEqual(sent, first);
  });
});

test("pauses are at least as long as the server asks", async () => {
  const exact = refuse(503, { "retry-after": "9" }, { retry_after_ms: 400 });
  await against([refuse(503, { "retry-after": "1" }), exact, accept], async (url, requests) => {
    await new Annals({ url }).send("order-1", "PlaceOrder", {});
    const [first, second, third] = requests.map(({ at }) => at);
    assert.ok(second - first >= 1_000, `${second - first}`);
    assert.ok(third - second >= 399 && third - second < 5_000, `${third - second}`);
  });
});

test("the client stops at its deadline", async () => {
  for (const answer of [drop, hang, refuse(503), refuse(503, { "retry-after": "60" })]) {
    await against([answer], async (url, requests) => {
      const begun = performance.now();
      const sending = new Annals({ url }).send("order-1", "A", {}, { id: "mine", retryForMs: 600 });
      const error = await sending.catch((error) => error);
      assert.ok(error instanceof NoAnswer && error.commandId === "mine", error);
      const took = performance.now() - begun;
      assert.ok(took < 1_500, `${took}`);
      const count = requests.length;
      assert.ok(count >= 1 && count < 8, `${count}`);
      await new Promise((resolve) => setTimeout(resolve, 300));
      assert.equal(requests.length, count);
    });
  }
  assert.throws(() => new Annals({ url: "no address" }), TypeError);
  const tooLong = new Annals({ url: "http://127.0.0.1:1", retryForMs: 24 * 60 * 60 * 1_000 });
  await assert.rejects(tooLong.send("order-1", "A", {}), RangeError);
});

test("an answer that will not change is not asked for again", async () => {
  for (const status of [400, 404, 412, 413, 500]) {
    await against([refuse(status)], async (url, requests) => {
      await assert.rejects(new Annals({ url }).send("order-1", "A", {}), { status });
      assert.equal(requests.length, 1);
    });
  }
});

test("a signal ends the waiting", async () => {
  await against([refuse(503, { "retry-after": "5" })], async (url) => {
    const signal = AbortSignal.timeout(200);
    const sending = new Annals({ url }).send("order-1", "A", {}, { signal });
    await assert.rejects(sending, { name: "TimeoutError" });
  });
});

test("a batch goes on after breaks, in the order of each stream", async () => {
  const lines = Array.from({ length: 30 }, (_, n) => ({
    stream: `order-${n % 3}`,
    command: "A",
    data: { n },
  }));
  const taken = new Map(); // ids in the order in which they were taken, each once
  /** Answers `count` lines, but turns line `away` and the rest of its stream away; then `end`s. */
  const some = (count, away, end) => (_, response, body) => {
    const barred = new Set();
    body.trimEnd().split("\n").slice(0, count).forEach((text, at) => {
      const { id, stream, data } = JSON.parse(text);
      if (at === away || barred.has(stream)) {
        barred.add(stream);
        response.write(`${JSON.stringify(problem(503, { retry_after_ms: 1 }))}\n`);
      } else {
        if (!taken.has(id)) taken.set(id, { stream, n: data.n });
        response.write(`${JSON.stringify({ ...ACCEPTED, status: 200 })}\n`);
      }
    });
    end(response);
  };
  const cut = (response) => setTimeout(() => response.destroy(), 50);
  const finish = (response) => response.end();
  const answers = [
    some(4, 1, cut),
    drop,
    refuse(503),
    some(5, -1, finish),
    some(99, 2, finish),
    some(99, -1, finish),
  ];
  await against(answers, async (url) => {
    const done = [];
    for await (const { line, accepted } of new Annals({ url }).batch(lines, { linesMax: 20 })) {
      assert.ok(accepted);
      done.push(line.data.n);
    }
    assert.equal(done.length, 30);
    assert.equal(taken.size, 30);
    for (const stream of ["order-0", "order-1", "order-2"]) {
      const numbers = [...taken.values()].filter((one) => one.stream === stream).map(({ n }) => n);
      assert.deepEqual(numbers, [...numbers].sort((a, b) => a - b));
    }
  });
  await against([some(0, -1, finish)], async (url) => {
    const batch = new Annals({ url }).batch(lines, { retryForMs: 300 });
    await assert.rejects(batch.next(), NoAnswer);
  });
});

test("a query waits for the latest position of every partition", async () => {
  // One log: place 7 of partition 3, place 2^60 of partition 1, and place 5 of partition 3.
  const tokens = [
    "AgAAAAAAAAAAAAAAAAAAAAADAQMB4MIyCLU",
    "AgAAAAAAAAAAAAAAAAAAAAA9AQEBgAAAAAAAAAAt0WXj",
    "AgAAAAAAAAAAAAAAAAAAAAADAQMBoLTuSSU",
  ];
  const merged = "AgAAAAAAAAAAAAAAAAAAAAA9AgEBAQGAAAAAAAAAAAAAAAAAAAHALnUz9A";
  await against([accept], async (url, requests) => {
    const annals = new Annals({ url });
    for (const token of tokens) annals.observe(token);
    await annals.read("order_summary").get("1");
    await annals.read("order_summary").get("1", { wait: false });
    const sent = requests.map(({ headers }) => headers["annals-min-position"]);
    assert.deepEqual(sent, [merged, undefined]);
    annals.observe("Af8");
    assert.equal(annals.position, "Af8");
  });
});
