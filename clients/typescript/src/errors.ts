// What a request can fail with.
import type { ProblemDocument } from "./types.js";

/** The server answered with an error. */
export class Problem extends Error {
  constructor(
    readonly document: ProblemDocument,
    /** The id of the command, if the request was one. */
    readonly commandId?: string,
  ) {
    super(`${document.code}: ${document.detail}`);
    this.name = new.target.name;
  }

  get code(): string {
    return this.document.code;
  }

  get status(): number {
    return this.document.status;
  }
}

/** A rule refused the command. `accepted()` throws it; `send()` returns the refusal instead. */
export class Refused extends Problem {}

/** The stream has another version than the command expected: read it again, and decide again. */
export class VersionConflict extends Problem {
  get currentVersion(): number | undefined {
    return this.document.current_version;
  }

  get expectedVersion(): number | undefined {
    return this.document.expected_version;
  }
}

/**
 * There was no answer in time; `cause` says why the last try failed. A command may have taken
 * effect or not: send the same command with the same id again to learn it.
 */
export class NoAnswer extends Error {
  constructor(
    cause: unknown,
    /** The id of the command, if the request was one. */
    readonly commandId?: string,
  ) {
    super(`no answer in time: ${cause instanceof Error ? cause.message : cause}`, { cause });
    this.name = new.target.name;
  }
}

/** Whether a rule refused the command: the id of another command is a mistake of the program. */
export function isRefusal(problem: ProblemDocument): boolean {
  return problem.status === 422 && problem.code !== "command_id_reused";
}
