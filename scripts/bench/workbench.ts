/**
 * Where the benchmark works, and what ends with it.
 *
 * Invariant: after `end` no process, mount or file of the benchmark is left, also after Ctrl-C and also when some
 * part did not end well; that is told, and is a failure. All temporary files lie in one directory.
 */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { run } from '../../test/support/run.js'
import type { Owner } from '../../test/support/temp.js'

/** Things that end together, last first. */
export class Scope implements Owner {
  readonly #teardowns: (() => unknown)[] = []
  #closed = false

  /** What comes when all is over ends at once. */
  readonly teardown: Owner['teardown'] = handler => {
    this.#teardowns.push(handler)
    if (this.#closed) void this.end()
  }

  /** For good. @returns what went wrong. */
  close(): Promise<Error[]> {
    this.#closed = true
    return this.end()
  }

  /** May be filled again. @returns what went wrong. */
  async end(): Promise<Error[]> {
    const errors: Error[] = []
    for (let next = this.#teardowns.pop(); next !== undefined; next = this.#teardowns.pop()) {
      try {
        await next()
      } catch (err) {
        errors.push(err as Error)
      }
    }
    return errors
  }
}

export interface Leftovers {
  /** What did not end well. */
  errors: Error[]
  /** Mounts that nobody had taken away. */
  mounts: string[]
}

export class Workbench {
  readonly #scopes: Scope[] = []
  #ending: Promise<Leftovers> | undefined

  private constructor(readonly dir: string) {}

  static async open(): Promise<Workbench> {
    const bench = new Workbench(await mkdtemp(join(tmpdir(), 'cidfs-bench-')))
    process.env.TMPDIR = bench.dir // the fixtures and the tools they start work below it as well
    return bench
  }

  /** For what ends before the benchmark does, or with it. */
  scope(): Scope {
    const scope = new Scope()
    this.#scopes.push(scope)
    return scope
  }

  /** Ends everything that has not ended. */
  end(): Promise<Leftovers> {
    this.#ending ??= this.#end()
    return this.#ending
  }

  async #end(): Promise<Leftovers> {
    const errors: Error[] = []
    for (const scope of this.#scopes.reverse()) errors.push(...(await scope.close()))
    const mounts = await this.#mounts()
    for (const mountpoint of mounts) await run('umount', ['-l', mountpoint])
    await rm(this.dir, { recursive: true, force: true, maxRetries: 3 })
    return { errors, mounts }
  }

  /** The kernel's mounts below our directory, innermost first. */
  async #mounts(): Promise<string[]> {
    return (await mountpoints()).filter(path => path.startsWith(`${this.dir}/`)).reverse()
  }
}

/** In the order in which they were mounted. */
export async function mountpoints(): Promise<string[]> {
  const lines = (await readFile('/proc/self/mountinfo', 'utf8')).split('\n')
  return lines.map(line => line.split(' ')[4] ?? '')
}
