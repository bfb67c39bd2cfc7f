// Position tokens. In base64url: one byte of form, the log's id (16 bytes), one byte that says how
// many bits a position has; then as numbers the runs of consecutive partitions: how many there are,
// and for each how many partitions lie between it and the one before, and its length; the positions,
// packed without gaps, the highest bit first; the CRC-32 of all that (4 bytes, big-endian). A number
// has seven bits in each byte, the lowest ones first; the highest bit says that another byte follows.
const FORM = 2;
const LOG_END = 17;
const CHECK_SIZE = 4;

interface Token {
  log: number[];
  positions: Map<number, bigint>;
}

function crc32(bytes: number[]): number {
  let crc = ~0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

const checkOf = (bytes: number[]) => [24, 16, 8, 0].map((shift) => (crc32(bytes) >>> shift) & 0xff);

function putNumber(bytes: number[], number: number): void {
  for (; number >= 0x80; number = Math.floor(number / 0x80)) bytes.push((number % 0x80) + 0x80);
  bytes.push(number);
}

function parse(text: string): Token | undefined {
  const binary = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  const bytes = Array.from(binary, (char) => char.charCodeAt(0));
  const check = bytes.splice(-CHECK_SIZE);
  if (bytes[0] !== FORM || checkOf(bytes).join() !== check.join()) return undefined;
  let at = LOG_END;
  const bits = BigInt(bytes[at++]!);
  const number = () => {
    let [value, scale] = [0, 1];
    for (; bytes[at]! >= 0x80; scale *= 0x80) value += (bytes[at++]! - 0x80) * scale;
    return value + bytes[at++]! * scale;
  };
  const partitions: number[] = [];
  let end = 0;
  for (let runs = number(); runs > 0; runs--) {
    let partition = end + number();
    for (end = partition + number(); partition < end; partition++) partitions.push(partition);
  }
  const positions = new Map<number, bigint>();
  let [waiting, count] = [0n, 0n];
  for (const partition of partitions) {
    for (; count < bits; count += 8n) waiting = (waiting << 8n) | BigInt(bytes[at++]!);
    count -= bits;
    positions.set(partition, waiting >> count);
    waiting &= (1n << count) - 1n;
  }
  return { log: bytes.slice(1, LOG_END), positions };
}

function write({ log, positions }: Token): string {
  const places = [...positions].sort(([a], [b]) => a - b);
  const runs: { first: number; length: number }[] = [];
  let bits = 1n;
  for (const [partition, position] of places) {
    const last = runs.at(-1);
    if (last && last.first + last.length === partition) last.length++;
    else runs.push({ first: partition, length: 1 });
    while (position >> bits) bits++;
  }
  const bytes = [FORM, ...log, Number(bits)];
  putNumber(bytes, runs.length);
  let end = 0;
  for (const { first, length } of runs) {
    putNumber(bytes, first - end);
    putNumber(bytes, length);
    end = first + length;
  }
  let [waiting, count] = [0n, 0n];
  for (const [, position] of places) {
    waiting = (waiting << bits) | position;
    for (count += bits; count >= 8n; ) {
      count -= 8n;
      bytes.push(Number(waiting >> count));
      waiting &= (1n << count) - 1n;
    }
  }
  if (count > 0n) bytes.push(Number(waiting << (8n - count)));
  const base64 = btoa(String.fromCharCode(...bytes, ...checkOf(bytes)));
  return base64.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

/**
 * A token that is behind neither of both. If they belong to different logs, or a newer server wrote
 * one in a form that is not known here, it is the later token alone.
 */
export function merge(earlier: string | undefined, later: string): string {
  if (earlier === undefined || earlier === later) return later;
  const [one, two] = [parse(earlier), parse(later)];
  if (!one || !two || one.log.join() !== two.log.join()) return later;
  for (const [partition, position] of one.positions) {
    const other = two.positions.get(partition);
    if (other === undefined || other < position) two.positions.set(partition, position);
  }
  return write(two);
}
