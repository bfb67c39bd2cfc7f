// Compiles every JSON Schema of a folder in Ajv's strict mode; they may refer to each other by $id. The
// samples are no schemas: what each is read as must fit the schema of its type.
const fs = require("node:fs");
const path = require("node:path");
const Ajv = require("ajv/dist/2020").default;
const formats = require("ajv-formats").default;

const folder = process.argv[1];
const ajv = new Ajv({ strict: true, allErrors: true, allowUnionTypes: true });
formats(ajv);
const all = fs
  .readdirSync(folder, { recursive: true })
  .filter((name) => name.endsWith(".json") && !/(openapi|asyncapi).json$/.test(name));
const files = all.filter((name) => !name.startsWith("samples"));
const ids = new Set();
for (const file of files) {
  const schema = JSON.parse(fs.readFileSync(path.join(folder, file), "utf8"));
  if (!schema.$id || ids.has(schema.$id)) throw new Error(`${file}: its $id is ${schema.$id}`);
  ids.add(schema.$id);
  ajv.compile(schema);
}
for (const file of all.filter((name) => name.startsWith("samples"))) {
  const { newest } = JSON.parse(fs.readFileSync(path.join(folder, file), "utf8"));
  const [, kind, category, named] = file.split(path.sep);
  const id = `urn:annals:${kind}:${category}:${named.split(".v")[0]}:v${newest.schema}`;
  const validate = ajv.getSchema(id);
  if (!validate(newest.data)) throw new Error(`${file}: ${ajv.errorsText(validate.errors)}`);
}
console.log(`${files.length} schemas`);
