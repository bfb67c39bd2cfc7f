// message-db: its functions live in Postgres, and are called over one connection per client. Its write
// takes a lock per category, and refuses when the stream is not at the expected version.

import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import pg from "pg";

import { measure } from "./load.mjs";

/** The files of its database in the order of its `install.sh`, without the role and its privileges. */
const FILES = [
  "schema/message-store",
  "extensions/pgcrypto",
  "tables/messages",
  "types/message",
  "functions/message-store-version",
  "functions/hash-64",
  "functions/acquire-lock",
  "functions/category",
  "functions/is-category",
  "functions/id",
  "functions/cardinal-id",
  "functions/stream-version",
  "functions/write-message",
  "functions/get-stream-messages",
  "functions/get-category-messages",
  "functions/get-last-stream-message",
  "indexes/messages-id",
  "indexes/messages-stream",
  "indexes/messages-category",
  "views/stream-summary",
  "views/type-summary",
  "views/stream-type-summary",
  "views/type-stream-summary",
  "views/category-type-summary",
  "views/type-category-summary",
];

const WRITE = {
  name: "write",
  text: "SELECT message_store.write_message($1, $2, $3, $4, $5, $6)",
};

/** The version that a stream has which does not exist. */
const NO_STREAM = -1;

/** Installs it. */
async function install(client) {
  const manifest = createRequire(import.meta.url).resolve("@eventide/message-db/package.json");
  for (const file of FILES) {
    const path = join(dirname(manifest), "database", `${file}.sql`);
    await client.query(readFileSync(path, "utf8"));
  }
}

await measure("message-db", "@eventide/message-db", async ({ clients, connection }) => {
  const options = connection({ search_path: "message_store,public" });
  const open = async () => {
    const client = new pg.Client(options);
    await client.connect();
    return client;
  };
  const all = [];
  for (let client = 0; client < clients; client++) all.push(await open());
  await install(all[0]);
  return {
    place: (client, order) => {
      const stream = `order-${randomUUID()}`;
      const data = JSON.stringify(order);
      const values = [randomUUID(), stream, "OrderPlaced", data, null, NO_STREAM];
      return all[client].query({ ...WRITE, values });
    },
    stored: async () => {
      const { rows } = await all[0].query("SELECT count(*)::int AS events FROM messages");
      return rows[0].events;
    },
    end: () => Promise.all(all.map((client) => client.end())),
  };
});
