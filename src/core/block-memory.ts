/**
 * Memory of large blocks that nobody needs any more, for those that come next.
 *
 * Invariant: belongs to one thread; holds a few MiB at most, and nothing that anybody still has.
 * Why: a block of 1 MiB is fetched into new memory every few milliseconds, which the system has to clear first, and
 * which keeps V8 collecting garbage for no other reason than that so much of it was taken.
 */

const MAX_HELD_BYTES = 16 * 1024 * 1024
/** Smaller ones cost less than passing them on. */
const MIN_BYTES = 64 * 1024

/** Least recently given first. */
const held: ArrayBuffer[] = []
let heldBytes = 0

/** Bytes that fill an ArrayBuffer of their own, with anything in them: every one of them has to be written. */
export function blockMemory(lengthBytes: number): Uint8Array<ArrayBuffer> {
  const at = held.findLastIndex(buffer => buffer.byteLength === lengthBytes)
  if (at < 0) return new Uint8Array(Buffer.allocUnsafeSlow(lengthBytes).buffer as ArrayBuffer)
  const [buffer] = held.splice(at, 1)
  heldBytes -= lengthBytes
  return new Uint8Array(buffer!)
}

/** Whether the memory of a block is worth passing on. */
export function isReusable({ buffer, length }: Uint8Array): boolean {
  return length >= MIN_BYTES && buffer instanceof ArrayBuffer && buffer.byteLength === length
}

/** Gives memory back that nobody uses any more. */
export function reuse(buffer: ArrayBuffer): void {
  held.push(buffer)
  heldBytes += buffer.byteLength
  while (heldBytes > MAX_HELD_BYTES) heldBytes -= held.shift()!.byteLength
}
