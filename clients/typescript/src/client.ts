// The client: commands, read models, streams and batches of one server.
import createClient, { type Client } from "openapi-fetch";

import { type BatchOptions, runBatch } from "./batch.js";
import type { paths } from "./document.js";
import { isRefusal, Problem, Refused, VersionConflict } from "./errors.js";
import { newId } from "./id.js";
import { merge } from "./position.js";
import type {
  CommandAnswer,
  CommandData,
  CommandName,
  Line,
  ModelName,
  Outcome,
  ProblemDocument,
  RecordedEvent,
  Refusal,
  Row,
  Schemas,
  Sent,
} from "./types.js";
import { ask, Deadline, IDEMPOTENCY_WINDOW_MS, type Request, sleep } from "./wire.js";

/** What an answer may take on its way, in addition to the server's own time limit. */
const GRACE_MS = 5_000;

export interface ClientOptions {
  /** The server, such as `http://127.0.0.1:4747`. */
  url: string;
  /** How long a command without an answer is sent again; 60 s if absent. */
  retryForMs?: number;
  /** How long a query may take with all its tries; 10 s if absent. */
  readForMs?: number;
  /** How long the server may take for one try of a command; 10 s if absent. */
  attemptMs?: number;
  /** For whom the streams and rows are kept; `main` if absent. */
  tenant?: string;
  /** Who sends the commands, as `kind:id`, such as `service:shop`. */
  actor?: string;
  /** Headers for every request, such as those of a proxy in between. */
  headers?: Record<string, string>;
  /** Another `fetch`. */
  fetch?: typeof fetch;
}

export interface SendOptions {
  /** Your name for this intent; the client makes one up if absent. */
  id?: string;
  /** The stream version that you saw; 0: the stream has no events yet. */
  expectedVersion?: number;
  /** When it happened in the business; absent: now, by the server's clock. */
  occurredAt?: Date | string;
  actor?: string;
  correlationId?: string;
  causationId?: string;
  /** W3C Trace Context. */
  traceparent?: string;
  retryForMs?: number;
  signal?: AbortSignal;
}

export interface ReadOptions {
  /** Wait until the rows show what this client's own commands did; true if absent. */
  wait?: boolean;
  /** Wait for this position instead of that of this client's own commands. */
  minPosition?: string;
  readForMs?: number;
  signal?: AbortSignal;
}

export interface PageOptions extends ReadOptions {
  /** The most rows in one request; 100 if absent. */
  limit?: number;
  /** Where to begin: the `next` of a page. */
  after?: string;
}

export interface EventOptions extends ReadOptions {
  /** The version of the first event; 1 if absent. */
  fromVersion?: number;
  /** Wait for further events, until `signal` says stop. */
  follow?: boolean;
  /** How often to ask for further events; 500 ms if absent. */
  pollMs?: number;
}

/** A client of one server. */
export class Annals {
  /** Every route of the document, one request each, without retries. */
  readonly raw: Client<paths>;
  readonly #options: Required<Pick<ClientOptions, "retryForMs" | "readForMs" | "attemptMs">> &
    ClientOptions;
  readonly #fetch: typeof fetch;
  #position: string | undefined;

  constructor(options: ClientOptions) {
    const url = new URL(options.url).href.replace(/\/+$/, "");
    const times = { retryForMs: 60_000, readForMs: 10_000, attemptMs: 10_000 };
    this.#options = { ...times, ...options, url };
    this.#fetch = options.fetch ?? ((input, init) => fetch(input, init));
    this.raw = createClient<paths>({
      baseUrl: url,
      fetch: (request) => this.#fetch(request),
      headers: this.#headers({}),
    });
  }

  /** The position of what this client wrote, for `observe` of another one. */
  get position(): string | undefined {
    return this.#position;
  }

  /** Takes up a position, so that later reads show at least what was written up to there. */
  observe(position: string): void {
    this.#position = merge(this.#position, position);
  }

  /**
   * Sends a command until it has an answer. A refusal by a rule is returned. Thrown are
   * `VersionConflict`, any other `Problem`, and `NoAnswer`.
   */
  async send<Name extends CommandName>(
    stream: string,
    command: Name,
    data: CommandData<Name>,
    options: SendOptions = {},
  ): Promise<Sent<Name>> {
    const id = options.id ?? newId();
    const { expectedVersion, occurredAt } = options;
    const request: Request = {
      method: "POST",
      url: this.#url(["streams", stream, command]),
      headers: this.#headers({
        "content-type": "application/json",
        "idempotency-key": id,
        "annals-timeout-ms": String(this.#options.attemptMs),
        "if-match": expectedVersion === undefined ? undefined : `"${expectedVersion}"`,
        "annals-occurred-at": occurredAt instanceof Date ? occurredAt.toISOString() : occurredAt,
        "annals-actor": options.actor ?? this.#options.actor,
        "annals-correlation-id": options.correlationId,
        "annals-causation-id": options.causationId,
        traceparent: options.traceparent,
      }),
      body: JSON.stringify(data),
      commandId: id,
    };
    const deadline = this.#deadline(options.retryForMs, options.signal);
    const answer = await ask(request, this.#fetch, deadline, this.#options.attemptMs + GRACE_MS);
    if (!answer.problem) {
      const accepted = answer.document as CommandAnswer;
      this.observe(accepted.position);
      return { accepted };
    }
    const problem: ProblemDocument = answer.problem;
    if (typeof problem["position"] === "string") this.observe(problem["position"]);
    if (isRefusal(problem)) return { refused: problem as unknown as Refusal<Name> };
    throw problem.code === "version_conflict"
      ? new VersionConflict(problem, id)
      : new Problem(problem, id);
  }

  /** Sends many commands, in order for each stream, and yields their outcomes as they come. */
  async *batch(
    lines: Iterable<Line> | AsyncIterable<Line>,
    options: BatchOptions = {},
  ): AsyncGenerator<Outcome> {
    const { attemptMs, tenant, actor } = this.#options;
    const [kind, id] = actor?.split(/:(.*)/s) ?? [];
    const by = kind && id ? { kind: kind as Schemas["ActorKind"], id } : null;
    const outcomes = runBatch(lines, {
      url: this.#url(["commands"]),
      headers: this.#headers({
        "content-type": "application/x-ndjson",
        "annals-timeout-ms": String(attemptMs),
      }),
      fetch: this.#fetch,
      named: (line) => ({
        ...line,
        id: line.id ?? newId(),
        tenant: line.tenant ?? tenant ?? null,
        actor: line.actor ?? by,
      }),
      deadline: () => this.#deadline(options.retryForMs, options.signal),
      silenceMs: attemptMs + GRACE_MS,
      linesMax: options.linesMax ?? 1_000,
    });
    for await (const outcome of outcomes) {
      const { position } = outcome.accepted ?? (outcome.refused as { position?: unknown }) ?? {};
      if (typeof position === "string") this.observe(position);
      yield outcome;
    }
  }

  /** A read model: its rows one by one (`for await`), or one row by its key. */
  read<Name extends ModelName>(model: Name): ReadModel<Row<Name>> {
    return new ReadModel((key, query, options) =>
      this.#ask(["read", model, ...key], query, options),
    );
  }

  /** The events of a stream in their order; with `follow`, also those that come later. */
  async *events(stream: string, options: EventOptions = {}): AsyncGenerator<RecordedEvent> {
    let from = options.fromVersion ?? 1;
    for (;;) {
      const query = { from_version: from };
      const answer = await this.#ask(["streams", stream, "events"], query, options);
      const isAbsent = answer.problem?.code === "stream_not_found" && options.follow;
      if (answer.problem && !isAbsent) throw new Problem(answer.problem);
      const page = answer.document as Schemas["StreamEvents"] | undefined;
      for (const event of page?.events ?? []) {
        yield event as RecordedEvent;
        from = event.version + 1;
      }
      if (page && page.next !== null) continue;
      if (!options.follow) return;
      await sleep(options.pollMs ?? 500, options.signal);
    }
  }

  #deadline(retryForMs = this.#options.retryForMs, signal?: AbortSignal): Deadline {
    if (retryForMs >= IDEMPOTENCY_WINDOW_MS) {
      throw new RangeError("retryForMs must be shorter than the time for which ids are remembered");
    }
    return new Deadline(retryForMs, signal);
  }

  #ask(path: string[], query: Record<string, string | number | undefined>, options: ReadOptions) {
    const { wait = true, minPosition = wait ? this.#position : undefined, signal } = options;
    const readForMs = options.readForMs ?? this.#options.readForMs;
    const url = new URL(this.#url(path));
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    // The server gives up a little earlier than this client, so that its answer says why.
    const serverMs = Math.min(Math.ceil(readForMs * 0.9), 60_000);
    const headers = this.#headers({
      "annals-min-position": minPosition,
      "annals-timeout-ms": String(serverMs),
    });
    const request: Request = { method: "GET", url: url.href, headers };
    return ask(request, this.#fetch, new Deadline(readForMs, signal), readForMs);
  }

  #url(path: string[]): string {
    return `${this.#options.url}/v1/${path.map(encodeURIComponent).join("/")}`;
  }

  #headers(own: Record<string, string | undefined>): Headers {
    const headers = new Headers(this.#options.headers);
    for (const [name, value] of Object.entries({ "annals-tenant": this.#options.tenant, ...own })) {
      if (value !== undefined) headers.set(name, value);
    }
    return headers;
  }
}

type Asker = (
  path: string[],
  query: Record<string, string | number | undefined>,
  options: ReadOptions,
) => ReturnType<typeof ask>;

/** Some rows, and where the next ones begin; null after the last page. */
export interface Page<R> {
  rows: R[];
  next: string | null;
}

/** The rows of a read model. */
export class ReadModel<R> implements AsyncIterable<R> {
  readonly #ask: Asker;

  constructor(asker: Asker) {
    this.#ask = asker;
  }

  /** One row, by the columns of its key, joined by commas. */
  async get(key: string, options: ReadOptions = {}): Promise<R | undefined> {
    const answer = await this.#ask([key], {}, options);
    if (answer.problem?.code === "row_not_found") return undefined;
    if (answer.problem) throw new Problem(answer.problem);
    return answer.document as R;
  }

  /** One page of rows. */
  async page(options: PageOptions = {}): Promise<Page<R>> {
    const answer = await this.#ask([], { limit: options.limit, after: options.after }, options);
    if (answer.problem) throw new Problem(answer.problem);
    return answer.document as Page<R>;
  }

  /** All rows in the order of their keys, page by page. */
  async *rows(options: PageOptions = {}): AsyncGenerator<R> {
    let after: string | null | undefined = options.after;
    do {
      const page: Page<R> = await this.page({ ...options, ...(after && { after }) });
      yield* page.rows;
      after = page.next;
    } while (after !== null);
  }

  [Symbol.asyncIterator](): AsyncGenerator<R> {
    return this.rows();
  }
}

/** The answer to an accepted command; throws `Refused` if a rule refused the command. */
export function accepted<Name extends CommandName>(sent: Sent<Name>): CommandAnswer {
  if (sent.accepted) return sent.accepted;
  throw new Refused(sent.refused as unknown as ProblemDocument);
}
