// Position tokens. A token is one byte of form, the log's id (16 bytes), and for each partition its
// number (4 bytes) and a position (8 bytes), big-endian, in base64url.
const FORM = 1;
const HEAD_SIZE = 17;
const PLACE_SIZE = 12;

interface Token {
  log: string;
  positions: Map<number, bigint>;
}

function parse(text: string): Token | undefined {
  const base64 = text.replaceAll("-", "+").replaceAll("_", "/");
  const bytes = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  const places = bytes.length - HEAD_SIZE;
  if (bytes[0] !== FORM || places < 0 || places % PLACE_SIZE !== 0) return undefined;
  const view = new DataView(bytes.buffer);
  const positions = new Map<number, bigint>();
  for (let at = HEAD_SIZE; at < bytes.length; at += PLACE_SIZE) {
    positions.set(view.getUint32(at), view.getBigUint64(at + 4));
  }
  return { log: bytes.subarray(1, HEAD_SIZE).join(), positions };
}

function write({ log, positions }: Token): string {
  const bytes = new Uint8Array(HEAD_SIZE + PLACE_SIZE * positions.size);
  bytes[0] = FORM;
  bytes.set(log.split(",").map(Number), 1);
  const view = new DataView(bytes.buffer);
  let at = HEAD_SIZE;
  for (const [partition, position] of [...positions].sort(([a], [b]) => a - b)) {
    view.setUint32(at, partition);
    view.setBigUint64(at + 4, position);
    at += PLACE_SIZE;
  }
  const base64 = btoa(String.fromCharCode(...bytes));
  return base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/**
 * A token that is behind neither of both. If they belong to different logs, or a newer server wrote
 * one in a form that is not known here, it is the later token alone.
 */
export function merge(earlier: string | undefined, later: string): string {
  if (earlier === undefined || earlier === later) return later;
  const [one, two] = [parse(earlier), parse(later)];
  if (!one || !two || one.log !== two.log) return later;
  for (const [partition, position] of one.positions) {
    const other = two.positions.get(partition);
    if (other === undefined || other < position) two.positions.set(partition, position);
  }
  return write(two);
}
