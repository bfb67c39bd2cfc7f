// One request, sent again until it has an answer. Every try sends the same bytes.
import { NoAnswer, Problem } from "./errors.js";
import type { ProblemDocument } from "./types.js";

/** After these, the same may be sent again: it was not attempted, or its outcome is unknown. */
const REPEATABLE = [408, 429, 502, 503, 504];
/** How long a server remembers a command's id, unless its log was created with another window. */
export const IDEMPOTENCY_WINDOW_MS = 24 * 60 * 60 * 1_000;
const PAUSE_FIRST_MS = 100;
const PAUSE_MAX_MS = 5_000;

export const isRepeatable = (status: number): boolean => REPEATABLE.includes(status);

export interface Request {
  method: "GET" | "POST";
  url: string;
  headers: Headers;
  body?: string;
  commandId?: string | undefined;
}

/** A time limit. It also counts the time for which the machine slept. */
export class Deadline {
  readonly #wall = Date.now();
  readonly #steady = performance.now();

  constructor(
    readonly forMs: number,
    readonly signal?: AbortSignal,
  ) {}

  left(): number {
    const passed = Math.max(Date.now() - this.#wall, performance.now() - this.#steady);
    return Math.max(0, this.forMs - passed);
  }
}

/** Pauses that double, each shortened at random, so that clients do not retry in step. */
export class Backoff {
  #pause = PAUSE_FIRST_MS;

  /** Waits: at least as long as the server asks. False, at once, if too little time is left. */
  async wait(deadline: Deadline, askedMs: number): Promise<boolean> {
    const pause = Math.max(askedMs, this.#pause * (0.5 + Math.random() / 2));
    this.#pause = Math.min(this.#pause * 2, PAUSE_MAX_MS);
    if (pause >= deadline.left()) return false;
    await sleep(pause, deadline.signal);
    return true;
  }
}

export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const stop = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}

/** Runs a step that may hang; after `ms`, or when `signal` says so, the step is aborted. */
export async function within<T>(
  ms: number,
  signal: AbortSignal | undefined,
  step: (signal: AbortSignal) => Promise<T>,
): Promise<T> {
  signal?.throwIfAborted();
  const abort = new AbortController();
  const stop = () => abort.abort(signal?.reason);
  const timer = setTimeout(() => abort.abort(new Error(`no answer for ${Math.round(ms)} ms`)), ms);
  signal?.addEventListener("abort", stop, { once: true });
  try {
    return await step(abort.signal);
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  }
}

export function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** The problem of an answer; an intermediary may have answered without a document. */
export function problemOf(response: globalThis.Response, text: string): ProblemDocument {
  const document = jsonOf(text) as ProblemDocument | null | undefined;
  if (typeof document?.code === "string") return { ...document, status: response.status };
  return {
    type: "about:blank",
    title: "An answer that is not a server's",
    status: response.status,
    detail: `the answer was ${response.status} ${response.statusText}, and not a server's`,
    instance: new URL(response.url || "http://unknown/").pathname,
    code: `http_${response.status}`,
    correlation_id: response.headers.get("annals-correlation-id") ?? "",
  };
}

/** How long the server asks to wait before another try, in milliseconds. */
export function retryAfterMs(headers: Headers, document: { retry_after_ms?: unknown }): number {
  if (typeof document.retry_after_ms === "number") return document.retry_after_ms;
  const seconds = Number(headers.get("retry-after"));
  return Number.isFinite(seconds) ? seconds * 1_000 : 0;
}

/** What was asked for, or a problem. */
export type Answer =
  | { document: unknown; problem?: undefined }
  | { document?: undefined; problem: ProblemDocument };

/** Sends a request until it has an answer that counts, or until the deadline. */
export async function ask(
  request: Request,
  fetcher: typeof fetch,
  deadline: Deadline,
  attemptMs: number,
): Promise<Answer> {
  const backoff = new Backoff();
  for (;;) {
    let failure: unknown;
    let askedMs = 0;
    try {
      const [response, text] = await within(
        Math.min(attemptMs, deadline.left()),
        deadline.signal,
        async (signal) => {
          const { url, method, headers, body } = request;
          const response = await fetcher(url, { method, headers, body: body ?? null, signal });
          return [response, await response.text()] as const;
        },
      );
      const document = response.ok ? jsonOf(text) : undefined;
      if (document !== undefined) return { document };
      const problem = problemOf(response, text);
      if (!isRepeatable(response.status)) return { problem };
      failure = new Problem(problem, request.commandId);
      askedMs = retryAfterMs(response.headers, problem);
    } catch (error) {
      deadline.signal?.throwIfAborted();
      failure = error;
    }
    if (!(await backoff.wait(deadline, askedMs))) throw new NoAnswer(failure, request.commandId);
  }
}
