// A typed client of an Annals server; README.md shows its use.
export type { BatchOptions } from "./batch.js";
export {
  accepted,
  Annals,
  type ClientOptions,
  type EventOptions,
  type Page,
  type PageOptions,
  ReadModel,
  type ReadOptions,
  type SendOptions,
} from "./client.js";
export type { components, paths } from "./document.js";
export { NoAnswer, Problem, Refused, VersionConflict } from "./errors.js";
export type * from "./types.js";
