// Ids of commands.

/** A UUID of version 7: 48 bits of time, the rest random. */
export function newId(): string {
  const bytes = new Uint8Array(16);
  // Node.js 18 has no global `crypto`. An id need not be secret, only new.
  if (globalThis.crypto) crypto.getRandomValues(bytes);
  else bytes.forEach((_, at) => (bytes[at] = Math.random() * 256));
  const view = new DataView(bytes.buffer);
  view.setUint16(6, (view.getUint16(6) & 0x0fff) | 0x7000);
  view.setUint8(8, (view.getUint8(8) & 0x3f) | 0x80);
  const [time, now] = [new DataView(new ArrayBuffer(8)), BigInt(Date.now())];
  time.setBigUint64(0, now << 16n);
  bytes.set(new Uint8Array(time.buffer, 0, 6));
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
