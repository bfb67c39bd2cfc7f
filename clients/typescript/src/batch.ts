// Many commands: sent in requests of lines, and sent again until each has an outcome.
//
// A line counts as done only when the server has told its outcome. The lines that are not done are
// sent again before any new line, in their order and under the same ids; so the lines of a stream
// keep their order.
import { isRefusal, NoAnswer, Problem } from "./errors.js";
import type {
  CommandAnswer,
  CommandName,
  Line,
  Outcome,
  ProblemDocument,
  Refusal,
} from "./types.js";
import {
  Backoff,
  Deadline,
  IDEMPOTENCY_WINDOW_MS,
  isRepeatable,
  problemOf,
  retryAfterMs,
  within,
} from "./wire.js";

/** The most characters of new lines in one request, unless a single line has more. */
const CHARS_MAX = 256 * 1024;

export interface BatchOptions {
  /** How long to go on without any progress; the client's `retryForMs` if absent. */
  retryForMs?: number;
  /** How many lines one request has, unless they are large or the last ones; 1000 if absent. */
  linesMax?: number;
  signal?: AbortSignal;
}

interface Batch {
  url: string;
  headers: Headers;
  fetch: typeof fetch;
  named: (line: Line) => Line & { id: string };
  deadline: () => Deadline;
  silenceMs: number;
  linesMax: number;
}

interface Entry {
  line: Line & { id: string };
  text: string;
}

type LineAnswer = ProblemDocument & { retry_after_ms?: number };

export async function* runBatch(
  lines: Iterable<Line> | AsyncIterable<Line>,
  batch: Batch,
): AsyncGenerator<Outcome> {
  const chunks = chunksOf(lines, batch);
  for await (let open of chunks) {
    let [deadline, backoff] = [batch.deadline(), new Backoff()];
    // The reader of the outcomes may be slow; then the server may have forgotten the ids.
    const remembered = new Deadline(IDEMPOTENCY_WINDOW_MS);
    while (open.length > 0) {
      const turnedAway: Entry[] = [];
      let [answered, askedMs] = [0, 0];
      let failure: unknown = new Error("the answer ended before its last line");
      try {
        for await (const answer of exchange(open, batch, () => deadline)) {
          const entry = open[answered++];
          if (!entry) throw new Error("the server answered more lines than were sent");
          if (isRepeatable(answer.status)) {
            turnedAway.push(entry);
            askedMs = Math.max(askedMs, answer.retry_after_ms ?? 0);
            failure = new Problem(answer, entry.line.id);
            continue;
          }
          yield outcomeOf(entry.line, answer);
          [deadline, backoff] = [batch.deadline(), new Backoff()];
        }
      } catch (error) {
        deadline.signal?.throwIfAborted();
        if (error instanceof Problem && !isRepeatable(error.status)) throw error;
        if (error instanceof Problem) askedMs = error.document.retry_after_ms ?? 0;
        failure = error;
      }
      open = [...turnedAway, ...open.slice(answered)];
      if (open.length === 0) break;
      if (remembered.left() === 0 || !(await backoff.wait(deadline, askedMs))) {
        throw new NoAnswer(failure, open[0]?.line.id);
      }
    }
  }
}

/** What one request holds. */
async function* chunksOf(
  lines: Iterable<Line> | AsyncIterable<Line>,
  { named, linesMax }: Batch,
): AsyncGenerator<Entry[]> {
  let [chunk, chars]: [Entry[], number] = [[], 0];
  for await (const given of lines) {
    const line = named(given);
    const text = `${JSON.stringify(line)}\n`;
    if (chunk.length >= linesMax || (chunk.length > 0 && chars + text.length > CHARS_MAX)) {
      yield chunk;
      [chunk, chars] = [[], 0];
    }
    chunk.push({ line, text });
    chars += text.length;
  }
  yield chunk;
}

/** One request; yields the answers to its lines as they come. */
async function* exchange(
  open: Entry[],
  { url, headers, fetch, silenceMs }: Batch,
  deadline: () => Deadline,
): AsyncGenerator<LineAnswer> {
  const abort = new AbortController();
  const body = open.map(({ text }) => text).join("");
  const post = { method: "POST", headers, body, signal: abort.signal };
  // Aborting the request, not only the wait, ends the connection.
  const timed = <T>(step: () => Promise<T>): Promise<T> =>
    within(Math.min(silenceMs, deadline().left()), deadline().signal, (signal) => {
      signal.addEventListener("abort", () => abort.abort(signal.reason), { once: true });
      return step();
    });
  try {
    const response = await timed(() => fetch(url, post));
    if (!response.ok || !response.body) {
      const problem = problemOf(response, await timed(() => response.text()));
      const retry_after_ms = retryAfterMs(response.headers, problem);
      throw new Problem({ ...problem, retry_after_ms });
    }
    const reader = response.body.getReader();
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { done, value } = await timed(() => reader.read());
      if (done) return;
      const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      for (const line of lines) yield JSON.parse(line) as LineAnswer;
    }
  } finally {
    abort.abort();
  }
}

function outcomeOf(line: Entry["line"], answer: LineAnswer): Outcome {
  if (answer.status < 300) return { line, accepted: answer as unknown as CommandAnswer };
  return isRefusal(answer)
    ? { line, refused: answer as unknown as Refusal<CommandName> }
    : { line, problem: answer };
}
