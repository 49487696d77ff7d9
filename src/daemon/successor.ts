/**
 * A daemon of another version that takes over from this one, and this one's side of it.
 *
 * Invariant: until the successor has said that it could start, nothing here has changed; from `go` on the mount is
 * its own, and this process only waits for its word to end. Whichever of the two fails, the kernel's requests wait.
 * They talk over the channel that Node makes between a process and its child. It is no child, though, but an orphan
 * from the start: the supervisor takes it for its own.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { CidfsError } from '../core/errors.js'
import { keeperProgram } from './keeper.js'
import type { Kept } from './sd-notify.js'

const PREPARE_TIMEOUT_MS = 60_000
const READY_TIMEOUT_MS = 120_000
/** The descriptors in the successor, behind the standard streams and the channel. */
const INHERITED = { fuse: 4, handles: 5 } as const
const VARIABLE = 'CIDFS_SUCCESSOR'

/** What a successor says. `prepared`: it could start. */
type Message = { prepared: { pid: number } } | { ready: { pid: number } } | { failed: { message: string } }

export class Successor {
  /** Passes the channel on, and ends. */
  readonly #child: ChildProcess
  #pid: number | undefined
  readonly #said: Message[] = []
  #wake: () => void = () => {}

  /** `program`: node and its options, then the main file. It gets the command line of this process. */
  constructor(program: string[], inherited: Record<Kept, number>, environment: Record<string, string>) {
    this.#child = spawn(keeperProgram(), ['--orphan', ...program, ...process.argv.slice(2)], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc', inherited.fuse, inherited.handles],
      env: { ...process.env, ...environment, [VARIABLE]: '1' },
    })
    this.#child.on('message', message => this.#hear(message as Message))
    this.#child.once('error', err => this.#hear({ failed: { message: err.message } }))
    this.#child.once('disconnect', () => this.#hear({ failed: { message: 'it ended; the log says why' } }))
  }

  #hear(message: Message): void {
    this.#said.push(message)
    this.#wake()
  }

  /** @throws CidfsError `NOT_SUPPORTED`: it cannot start. It has ended then. */
  async prepared(): Promise<void> {
    this.#pid = (await this.#until('prepared', PREPARE_TIMEOUT_MS)).prepared.pid
  }

  /** Nothing of the mount is used here any more. @returns its pid, when the mount answers again. */
  async takesOver(): Promise<number> {
    this.#child.send({ go: true })
    return (await this.#until('ready', READY_TIMEOUT_MS)).ready.pid
  }

  async #until<K extends 'prepared' | 'ready'>(
    kind: K,
    timeoutMs: number,
  ): Promise<Extract<Message, Record<K, unknown>>> {
    const timer = setTimeout(() => this.#hear({ failed: { message: 'it takes too long' } }), timeoutMs)
    try {
      for (;;) {
        for (const message of this.#said.splice(0)) {
          if ('failed' in message) throw await this.#failed(message.failed.message)
          if (kind in message) return message as Extract<Message, Record<K, unknown>>
        }
        await new Promise<void>(resolve => (this.#wake = resolve))
      }
    } finally {
      clearTimeout(timer)
    }
  }

  async #failed(why: string): Promise<CidfsError> {
    await this.end()
    return new CidfsError('NOT_SUPPORTED', `the new version does not start: ${why}`)
  }

  /** Ends a successor that is not wanted. */
  async end(): Promise<void> {
    if (!this.#child.connected) return
    if (this.#pid === undefined) return this.#child.disconnect() // it ends when it wants to say something
    process.kill(this.#pid, 'SIGKILL')
    await once(this.#child, 'disconnect')
  }

  /** It lives on without us. */
  release(): void {
    this.#child.disconnect()
    this.#child.unref()
  }
}

/** In a successor: the descriptors that it was started for. */
export function successorDescriptors(): Map<string, number> | undefined {
  const isSuccessor = process.env[VARIABLE] !== undefined
  delete process.env[VARIABLE]
  return isSuccessor ? new Map(Object.entries(INHERITED)) : undefined
}

/** In a successor: tells that it can start, and waits until the one before has let go of everything. */
export async function waitForGo(): Promise<void> {
  const go = once(process, 'message')
  process.once('disconnect', abandon)
  process.send?.({ prepared: { pid: process.pid } } satisfies Message)
  await go
  process.off('disconnect', abandon)
}

/** The one before has ended in between: whoever supervises it starts another. */
function abandon(): never {
  process.exit(1)
}
