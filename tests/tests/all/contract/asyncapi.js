// Reads an AsyncAPI document with AsyncAPI's own parser; prints every diagnostic, and what the document
// holds, as JSON.
const fs = require("node:fs");
const { Parser } = require("@asyncapi/parser");

async function main() {
  const text = fs.readFileSync(process.argv[1], "utf8");
  const { document, diagnostics } = await new Parser().parse(text);
  const messages = document?.channels().all().flatMap((channel) => channel.messages().all()) ?? [];
  const told = messages.map((message) => [message.name(), message.payload()?.properties() ?? {}]);
  const names = told.map(([name, members]) => [name, Object.keys(members).sort()]);
  console.log(JSON.stringify({ diagnostics, messages: Object.fromEntries(names) }));
}

main();
