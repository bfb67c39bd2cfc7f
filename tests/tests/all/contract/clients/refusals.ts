// Compiles only if a refusal has the type that the document gives to its command's status 422.
import { Annals, type CommandName, type Refusal } from "annals-client";

const annals = new Annals({ url: "http://127.0.0.1:4747" });
export const only: CommandName = "ShipOrder";

export async function ship(): Promise<string> {
  const { accepted, refused } = await annals.send("order-1", "ShipOrder", {});
  if (accepted) return accepted.position;
  switch (refused.code) {
    case "order_not_approved":
      return refused.placed_at;
    case "order_not_placed":
      // @ts-expect-error: this refusal has no such fact
      return refused.placed_at;
    default:
      return refused.detail;
  }
}

export async function customer(): Promise<string | undefined> {
  for await (const event of annals.events("order-1")) {
    if (event.type === "OrderPlaced") return event.data.customer;
  }
  return undefined;
}

// The id of another command is a mistake of the program: it is thrown.
// @ts-expect-error: it is no refusal
export const reused: Refusal<"ShipOrder"> = { code: "command_id_reused" };
// @ts-expect-error: another domain's command
void (() => annals.send("order-1", "PlaceOrder", {}));
