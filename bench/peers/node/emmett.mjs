// Emmett on Postgres, through its command handler, as its guide shows: it reads the stream, lets the
// handler decide, and appends, over one connection of a pool.

import { CommandHandler, IllegalStateError, STREAM_DOES_NOT_EXIST } from "@event-driven-io/emmett";
import { getPostgreSQLEventStore } from "@event-driven-io/emmett-postgresql";
import { randomUUID } from "node:crypto";
import pg from "pg";

import { measure } from "./load.mjs";

const handle = CommandHandler({
  initialState: () => ({ placed: false }),
  evolve: (state, event) => (event.type === "OrderPlaced" ? { placed: true } : state),
});

/** Decides on an order. */
function placeOrder(state, data) {
  if (state.placed) throw new IllegalStateError("the order is placed already");
  return { type: "OrderPlaced", data };
}

await measure("emmett", "@event-driven-io/emmett-postgresql", async ({ clients, connection }) => {
  const options = connection();
  const pool = new pg.Pool({ ...options, max: clients });
  const store = getPostgreSQLEventStore(options.connectionString, { connectionOptions: { pool } });
  await store.schema.migrate();
  return {
    place: (_client, order) =>
      handle(store, `order-${randomUUID()}`, (state) => placeOrder(state, order), {
        expectedStreamVersion: STREAM_DOES_NOT_EXIST,
      }),
    stored: async () => {
      const { rows } = await pool.query("SELECT count(*)::int AS events FROM emt_messages");
      return rows[0].events;
    },
    end: async () => {
      await store.close();
      await pool.end();
    },
  };
});
