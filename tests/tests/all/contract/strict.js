// Compiles every JSON Schema of a folder in Ajv's strict mode; they may refer to each other by $id.
const fs = require("node:fs");
const path = require("node:path");
const Ajv = require("ajv/dist/2020").default;
const formats = require("ajv-formats").default;

const folder = process.argv[1];
const ajv = new Ajv({ strict: true, allErrors: true, allowUnionTypes: true });
formats(ajv);
const files = fs
  .readdirSync(folder, { recursive: true })
  .filter((name) => name.endsWith(".json") && !/(openapi|asyncapi).json$/.test(name));
const ids = new Set();
for (const file of files) {
  const schema = JSON.parse(fs.readFileSync(path.join(folder, file), "utf8"));
  if (!schema.$id || ids.has(schema.$id)) throw new Error(`${file}: its $id is ${schema.$id}`);
  ids.add(schema.$id);
  ajv.compile(schema);
}
console.log(`${files.length} schemas`);
