// What both peers share: the arguments, the order that is stored, and the load: clients that each send a
// command, wait for its answer, and send the next.

import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

/** Reads the arguments, and how a connection is opened. */
function read() {
  const text = { type: "string" };
  const { values } = parseArgs({
    options: {
      url: text,
      clients: text,
      "warm-up": text,
      seconds: text,
      "synchronous-commit": text,
    },
  });
  const number = (name) => {
    const value = Number(values[name] ?? NaN);
    if (!(value >= 0)) throw new Error(`--${name} takes a number`);
    return value;
  };
  const commit = values["synchronous-commit"];
  if (!values.url) throw new Error("--url takes a URL of Postgres");
  if (!["on", "off"].includes(commit)) throw new Error("--synchronous-commit takes on or off");
  const clients = number("clients");
  if (!(Number.isInteger(clients) && clients > 0)) throw new Error("--clients takes a count");
  return {
    clients,
    warmUp: number("warm-up"),
    seconds: number("seconds"),
    /** The settings of a connection, with more settings of Postgres where given. */
    connection: (settings = {}) => ({
      connectionString: values.url,
      options: Object.entries({ synchronous_commit: commit, ...settings })
        .map(([name, value]) => `-c ${name}=${value}`)
        .join(" "),
    }),
  };
}

/** The version of a package, as it is pinned. */
function versionOf(name) {
  const text = readFileSync(new URL("package.json", import.meta.url), "utf8");
  return JSON.parse(text).dependencies[name];
}

/** An order whose content follows from a number: about 400 bytes as JSON. */
function order(number) {
  const digits = (value, width) => String(value).padStart(width, "0");
  const items = [1, 2, 3].map((line) => ({
    line,
    product: `product-${digits(number % 32951, 6)}`,
    seller: `seller-${digits(number % 3095, 4)}`,
    price: 2199,
    freight: 1185,
  }));
  const sum = (field) => items.reduce((all, item) => all + item[field], 0);
  return {
    customer: `customer-${digits(number % 99441, 6)}`,
    items,
    items_sum: sum("price"),
    freight_sum: sum("freight"),
    currency: "BRL",
    estimated_delivery: "2018-06-28T00:00:00Z",
  };
}

/** Lets all clients work at the same time. The first failure of a command ends the run. */
async function load({ clients, warmUp, seconds }, place) {
  const measured = performance.now() + warmUp * 1000;
  const end = measured + seconds * 1000;
  const times = [];
  let answered = 0;
  const work = async (client) => {
    for (let sent = 0; ; sent++) {
      const next = order(client + sent);
      const began = performance.now();
      if (began >= end) return;
      await place(client, next);
      const now = performance.now();
      answered += 1;
      if (measured <= now && now < end) times.push(now - began);
    }
  };
  await Promise.all(Array.from({ length: clients }, (_, client) => work(client)));
  return { answered, times };
}

/** The time below which a share of the sorted times lies. */
function percentile(times, hundredths) {
  return times[Math.max(Math.ceil((times.length * hundredths) / 100), 1) - 1];
}

/**
 * Measures a peer, and prints its line. `begin` prepares the empty database, and gives what places an
 * order (`place`), how many events are stored (`stored`), and what ends it (`end`).
 */
export async function measure(peer, packageName, begin) {
  try {
    const settings = read();
    const { place, stored, end } = await begin(settings);
    const { answered, times } = await load(settings, place);
    const events = await stored();
    if (events !== answered)
      throw new Error(`${events} events are stored, but ${answered} commands were answered`);
    if (times.length === 0) throw new Error("no command was answered in time");
    await end();
    times.sort((a, b) => a - b);
    const rounded = (value, digits) => Number(value.toFixed(digits));
    const line = {
      peer,
      version: versionOf(packageName),
      commands: times.length,
      seconds: settings.seconds,
      per_second: rounded(times.length / settings.seconds, 1),
      p50_ms: rounded(percentile(times, 50), 3),
      p99_ms: rounded(percentile(times, 99), 3),
    };
    console.log(JSON.stringify(line));
  } catch (error) {
    console.error(error);
    process.exit(1); // Connections that are still open would keep the process.
  }
}
