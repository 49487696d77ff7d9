/**
 * Reads a stream of chunks as bytes at a position.
 *
 * Invariant: `window` is one contiguous piece; what was taken from it stays valid, since a window is replaced
 * and never overwritten. A byte is copied at most once, and only when what was asked for crosses chunks.
 */
export class ByteReader {
  readonly #chunks: AsyncIterator<Uint8Array>
  #window: Uint8Array = new Uint8Array(0)
  #at = 0
  #windowStart = 0
  #ended = false

  constructor(source: AsyncIterable<Uint8Array>) {
    this.#chunks = source[Symbol.asyncIterator]()
  }

  /** The bytes at hand; those from `at` on are unread. */
  get window(): Uint8Array {
    return this.#window
  }

  get at(): number {
    return this.#at
  }

  /** Unread bytes at hand. */
  get available(): number {
    return this.#window.length - this.#at
  }

  /** Bytes of the stream that were taken or skipped. */
  get position(): number {
    return this.#windowStart + this.#at
  }

  /** Gets at least `count` unread bytes at hand; false when the stream ends before, with what there is. */
  async fill(count: number): Promise<boolean> {
    if (this.available >= count) return true
    const pieces = this.available > 0 ? [this.#window.subarray(this.#at)] : []
    let length = this.available
    while (length < count && !this.#ended) {
      const { done, value } = await this.#chunks.next()
      if (done === true) this.#ended = true
      else if (value.length > 0) pieces.push(value)
      if (done !== true) length += value.length
    }
    this.#windowStart = this.position
    this.#at = 0
    this.#window = pieces.length === 1 ? (pieces[0] as Uint8Array) : Buffer.concat(pieces, length)
    return length >= count
  }

  /** The next `count` bytes, which must be at hand. */
  take(count: number): Uint8Array {
    const bytes = this.#window.subarray(this.#at, this.#at + count)
    this.skip(count)
    return bytes
  }

  /** Passes over bytes, which must be at hand. */
  skip(count: number): void {
    if (count > this.available) throw new RangeError(`${count} bytes wanted, ${this.available} at hand`)
    this.#at += count
  }

  /** Lets the stream go. */
  async close(): Promise<void> {
    await this.#chunks.return?.()
  }
}
