// The types of a domain, derived from its OpenAPI document.
import type { components, paths } from "./document.js";

export type Schemas = components["schemas"];

type Operation<Path, Method extends string> = Path extends keyof paths
  ? paths[Path] extends { [M in Method]: infer O }
    ? O
    : never
  : never;
type Content<C> = C extends { content: infer Media } ? Media[keyof Media] : never;
type Response<O, Status extends number> = O extends { responses: { [S in Status]: infer R } }
  ? Content<R>
  : never;

type Post<Name extends string> = Operation<`/v1/streams/{stream}/${Name}`, "post">;

/** The commands of the domain, by name. */
export type CommandName = {
  [Path in keyof paths]: Path extends `/v1/streams/{stream}/${infer Name}`
    ? [Post<Name>] extends [never]
      ? never
      : Name
    : never;
}[keyof paths];

/** The data of a command. */
export type CommandData<Name extends CommandName> =
  Post<Name> extends { requestBody?: infer Body }
    ? NonNullable<Content<NonNullable<Body>>>
    : never;

/** The answer to an accepted command. */
export type CommandAnswer = Schemas["CommandAnswer"];

/** A problem document (RFC 9457). */
export type ProblemDocument = Schemas["Problem"];

/** Those of a choice whose member `Key` is a literal. */
type Literal<Choice, Key extends string> =
  Choice extends Record<Key, infer Name> ? (string extends Name ? never : Choice) : never;
/** A choice without its open form, by which `Key` could not tell the others apart. */
type Known<Choice, Key extends string> = [Literal<Choice, Key>] extends [never]
  ? Choice
  : Literal<Choice, Key>;

/**
 * Why a rule refused a command: what the document says about the command's status 422. A newer
 * server may have further codes, so give a `switch` a default.
 */
export type Refusal<Name extends CommandName> = Exclude<
  Known<Response<Post<Name>, 422>, "code">,
  { code: "command_id_reused" }
>;

/** A command's outcome: accepted, or refused by a rule. */
export type Sent<Name extends CommandName> =
  | { accepted: CommandAnswer; refused?: undefined }
  | { accepted?: undefined; refused: Refusal<Name> };

/** A command of a batch. */
export type Line = {
  [Name in CommandName]: Omit<Schemas["CommandLine"], "command" | "data"> & {
    command: Name;
    data: CommandData<Name>;
  };
}[CommandName];

/** The outcome of a command of a batch; `problem` is any error that is not a rule's refusal. */
export type Outcome = { line: Line & { id: string } } & (
  | { accepted: CommandAnswer; refused?: undefined; problem?: undefined }
  | { accepted?: undefined; refused: Refusal<CommandName>; problem?: undefined }
  | { accepted?: undefined; refused?: undefined; problem: ProblemDocument }
);

/** The read models, by name. */
export type ModelName = {
  [Path in keyof paths]: Path extends `/v1/read/${infer Name}/{key}` ? Name : never;
}[keyof paths];

/** A row of a read model. */
export type Row<Name extends ModelName> = Response<
  Operation<`/v1/read/${Name}/{key}`, "get">,
  200
>;

/** An event of a stream. `type` tells its form; a newer server may have further types. */
export type RecordedEvent = Known<Schemas["RecordedEvent"], "type">;
