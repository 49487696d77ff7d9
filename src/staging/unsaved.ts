/**
 * Sizes and times that run ahead of their records while files are written.
 *
 * Invariant: what is in here is held in memory by its node, and stored with that of other files a moment later: a
 * transaction for each close would cost more than the close. A crash finds the size in the working object.
 */
import { messageOf } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { Namespace } from './namespace.js'
import type { OpenContent } from './open-content.js'

const log = logger('staging:unsaved')

/** Stored at most this long after a change. */
const SAVE_MS = 200

export class Unsaved {
  readonly #names: Namespace
  readonly #contents = new Set<OpenContent>()
  readonly #onDue: () => void
  #timer: NodeJS.Timeout | undefined

  /** @param onDue what is in here is to be stored */
  constructor(names: Namespace, onDue: () => void) {
    this.#names = names
    this.#onDue = onDue
  }

  add(content: OpenContent): void {
    this.#contents.add(content)
    this.#timer ??= setTimeout(() => this.#due(), SAVE_MS)
  }

  has(content: OpenContent): boolean {
    return this.#contents.has(content)
  }

  /** What it says is of no interest any more. */
  forget(content: OpenContent): void {
    this.#contents.delete(content)
  }

  /** Whether there was something to store. */
  save(content: OpenContent): boolean {
    if (!this.#contents.has(content)) return false
    this.#names.put(content.node)
    return this.#contents.delete(content)
  }

  /** Stores all of them; returns whose they are. */
  saveAll(): OpenContent[] {
    const contents = [...this.#contents]
    if (contents.length > 0)
      this.#names.transaction(() => {
        for (const { node } of contents) this.#names.put(node)
      })
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#contents.clear()
    return contents
  }

  /** Nobody hears of a failure here (the disk is full): it is tried again until it works. */
  #due(): void {
    this.#timer = undefined
    try {
      this.#onDue()
    } catch (err) {
      log('sizes and times are not stored yet: %s', messageOf(err))
      this.#timer ??= setTimeout(() => this.#due(), SAVE_MS)
    }
  }
}
