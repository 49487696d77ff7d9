/**
 * Requests between the main thread and the network worker, in either direction, one interface per direction.
 *
 * Invariant: a call ends once: with its result, with a `CidfsError`, at its deadline, when its caller aborts it,
 * or when the other side is gone. Whoever serves it is told by an abort signal that nobody waits any more.
 * Why not one message per question: routing, names and serving each ask a few things, and all of them need
 * deadlines, errors and an end.
 */
import { CidfsError, codeOf, type ErrorCode, messageOf } from '../core/errors.js'

/** The messages; ids are the caller's. Values must survive structured cloning. */
export type CallMessage =
  | { op: 'call'; id: number; method: string; args: unknown }
  | { op: 'abandon'; id: number }
  | { op: 'result'; id: number; value: unknown }
  | { op: 'refused'; id: number; code: ErrorCode; message: string }

type Args<M, K extends keyof M> = M[K] extends (args: infer A) => unknown ? A : never
type Result<M, K extends keyof M> = M[K] extends (args: never) => infer R ? R : never

/** What serves the methods of `M`. `signal` is aborted when nobody waits for the answer any more. */
export type Handlers<M> = {
  [K in keyof M]?: (args: Args<M, K>, signal: AbortSignal) => Result<M, K> | Promise<Result<M, K>>
}

export interface CallOptions {
  /** Ends the call with `INTERRUPTED`. */
  signal?: AbortSignal | undefined
  /** Milliseconds until `TIMEOUT`; 30,000 when absent. */
  deadlineMs?: number | undefined
}

interface Waiting {
  resolve(value: unknown): void
  reject(err: CidfsError): void
}

const DEFAULT_DEADLINE_MS = 30_000
/** Calls that may run here at a time for the other side; more are refused with `BUSY`. */
const MAX_SERVED = 4096

export class Calls<Remote, Local> {
  readonly #post: (message: CallMessage) => void
  readonly #handlers: Handlers<Local>
  readonly #waiting = new Map<number, Waiting>()
  readonly #served = new Map<number, AbortController>()
  #nextId = 1

  /** `handlers` may be filled in later. */
  constructor(post: (message: CallMessage) => void, handlers: Handlers<Local>) {
    this.#post = post
    this.#handlers = handlers
  }

  /** Calls made here that have not ended. */
  get pending(): number {
    return this.#waiting.size
  }

  /** @throws CidfsError what the other side threw; `TIMEOUT`, `INTERRUPTED`. */
  async call<K extends keyof Remote & string>(
    method: K,
    args: Args<Remote, K>,
    options: CallOptions = {},
  ): Promise<Result<Remote, K>> {
    const { signal, deadlineMs = DEFAULT_DEADLINE_MS } = options
    if (signal?.aborted) throw new CidfsError('INTERRUPTED', 'interrupted')
    const id = this.#nextId++
    let onAbort: (() => void) | undefined
    let timer: NodeJS.Timeout | undefined
    try {
      return await new Promise<Result<Remote, K>>((resolve, reject) => {
        this.#waiting.set(id, { resolve: value => resolve(value as Result<Remote, K>), reject })
        const giveUp = (code: ErrorCode, message: string) => {
          this.#post({ op: 'abandon', id })
          reject(new CidfsError(code, message))
        }
        onAbort = () => giveUp('INTERRUPTED', 'interrupted')
        signal?.addEventListener('abort', onAbort)
        timer = setTimeout(() => giveUp('TIMEOUT', `no answer within ${deadlineMs} ms`), deadlineMs)
        this.#post({ op: 'call', id, method, args })
      })
    } finally {
      clearTimeout(timer)
      if (onAbort !== undefined) signal?.removeEventListener('abort', onAbort)
      this.#waiting.delete(id)
    }
  }

  receive(message: CallMessage): void {
    if (message.op === 'call') void this.#serve(message)
    else if (message.op === 'abandon') this.#served.get(message.id)?.abort()
    else if (message.op === 'result') this.#waiting.get(message.id)?.resolve(message.value)
    else this.#waiting.get(message.id)?.reject(new CidfsError(message.code, message.message))
  }

  /** The other side is gone: ends every call, and everything that runs for it. */
  end(why: CidfsError): void {
    for (const { reject } of this.#waiting.values()) reject(why)
    for (const controller of this.#served.values()) controller.abort()
    this.#served.clear()
  }

  async #serve({ id, method, args }: Extract<CallMessage, { op: 'call' }>): Promise<void> {
    const controller = new AbortController()
    try {
      if (this.#served.size >= MAX_SERVED) throw new CidfsError('BUSY', 'too many calls at a time')
      this.#served.set(id, controller)
      const handler = this.#handlers[method as keyof Local]
      if (handler === undefined) throw new CidfsError('NOT_SUPPORTED', `nothing here answers ${method}`)
      const value = await handler(args as never, controller.signal)
      if (!controller.signal.aborted) this.#post({ op: 'result', id, value })
    } catch (err) {
      if (controller.signal.aborted) return
      this.#post({ op: 'refused', id, code: codeOf(err) ?? 'IO', message: messageOf(err) })
    } finally {
      if (this.#served.get(id) === controller) this.#served.delete(id)
    }
  }
}

/** Whether a message between the threads is one of a call. */
export function isCallMessage(message: { op: string }): message is CallMessage {
  return ['call', 'abandon', 'result', 'refused'].includes(message.op)
}
