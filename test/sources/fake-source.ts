/** A source without a network, for tests of the engine. */
import type { CID } from '../../src/core/cid.js'
import { type AskOptions, type Source, SourceError } from '../../src/sources/source.js'

export type Behaviour = (cid: CID, signal: AbortSignal) => Promise<Uint8Array>

export class FakeSource implements Source {
  readonly kind = 'gateway'
  readonly asked: string[] = []
  readonly abortReasons: unknown[] = []
  probes = 0
  running = 0
  mostRunning = 0
  behaviour: Behaviour
  probeBehaviour: () => Promise<void> = async () => {}

  constructor(
    readonly name: string,
    behaviour: Behaviour,
    readonly maxInFlight = 32,
    readonly costMs = 10,
  ) {
    this.behaviour = behaviour
  }

  async get(cid: CID, { signal }: AskOptions): Promise<Uint8Array> {
    this.asked.push(cid.toString())
    this.mostRunning = Math.max(this.mostRunning, ++this.running)
    signal.addEventListener('abort', () => this.abortReasons.push(signal.reason))
    try {
      return await this.behaviour(cid, signal)
    } finally {
      this.running--
    }
  }

  async probe(): Promise<void> {
    this.probes++
    await this.probeBehaviour()
  }

  async close(): Promise<void> {}
}

/** Has these bytes, after a pause. */
export function has(bytes: Uint8Array, delayMs = 0): Behaviour {
  return async (_, signal) => {
    await pause(delayMs, signal)
    return Uint8Array.from(bytes)
  }
}

export const fails =
  (kind: SourceError['kind'], message: string = kind): Behaviour =>
  async () => {
    throw new SourceError(kind, message)
  }

/** Answers nothing until it is told to stop. */
export const silent: Behaviour = (_, signal) => pause(1 << 30, signal).then(() => new Uint8Array())

export function pause(delayMs: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, delayMs)
    signal.addEventListener('abort', () => {
      clearTimeout(timer)
      reject(new Error('aborted'))
    })
  })
}
