// Validates the values of commits, as lines of `annals log dump --accepted`, in Ajv's strict mode with
// the schema of a commit, and shows that the schema refuses what no commit is. Prints how many values
// there were of each event type and refusal.
const fs = require("node:fs");
const Ajv = require("ajv/dist/2020").default;
const formats = require("ajv-formats").default;

const [schemaFile, dumpFile] = process.argv.slice(1);
const ajv = new Ajv({ strict: true, allowUnionTypes: true });
formats(ajv);
const schema = JSON.parse(fs.readFileSync(schemaFile, "utf8"));
ajv.addSchema(schema);
const form = (name) => ajv.getSchema(`${schema.$id}#/$defs/${name}`);
const commit = ajv.getSchema(schema.$id);

function check(validate, value, what) {
  if (!validate(value)) {
    throw new Error(`${what}: ${ajv.errorsText(validate.errors)}\n${JSON.stringify(value)}`);
  }
}

const ofCode = new Map();
for (const [name, { properties }] of Object.entries(schema.$defs)) {
  if (properties?.code?.enum) ofCode.set(properties.code.enum[0], name);
}
const seen = { commits: 0, events: {}, refusals: {} };
const count = (counts, name) => (counts[name] = (counts[name] ?? 0) + 1);
const commits = fs.readFileSync(dumpFile, "utf8").trim().split("\n").map((line) => JSON.parse(line).commit);
for (const value of commits) {
  check(commit, value, "a commit");
  seen.commits += 1;
  for (const event of value.events ?? []) {
    check(form(`${event.type}Event`), event, event.type);
    count(seen.events, event.type);
  }
  if (!value.rejection) continue;
  const name = ofCode.get(value.rejection.code) ?? "OtherRefusal";
  check(form(name), value.rejection, name);
  count(seen.refusals, value.rejection.code);
}

// What no commit is, made of a real one.
const real = commits.find((value) => value.events?.[0]?.type === "OrderPlaced");
for (const [what, change, isGood] of [
  ["a member is missing", (value) => delete value.recorded_at, false],
  ["a member is unknown", (value) => (value.more = 1), false],
  ["an event's data lacks a member", (value) => delete value.events[0].data.customer, false],
  ["an event's data has another type", (value) => (value.events[0].data.items_minor = "1"), false],
  ["a refusal without a reason", (value) => (value.outcome = "rejected"), false],
  ["a reason without a refusal", (value) => (value.rejection = { code: "a", detail: "b" }), false],
  ["an event of a type that is new", (value) => Object.assign(value.events[0], { type: "OrderGifted", data: 1 }), true],
  ["an event of a shape that is new", (value) => Object.assign(value.events[0], { schema: 2, data: 1 }), true],
]) {
  const value = structuredClone(real);
  change(value);
  if (commit(value) !== isGood) throw new Error(`${what}: ${!isGood}`);
}
console.log(JSON.stringify(seen));
