/** A program beside a test that answers each line of JSON with one, as the model tests have it. */
import { type ChildProcessByStdio, spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Readable, Writable } from 'node:stream'
import { atEnd, type Owner } from '../support/temp.js'

const ANSWER_TIMEOUT_MS = 30_000

export class LineProgram {
  private constructor(
    private readonly child: ChildProcessByStdio<Writable, Readable, null>,
    private readonly lines: AsyncIterator<string>,
  ) {}

  /** Ends with the test, or by `end`. */
  static start(t: Owner, command: string, args: string[]): LineProgram {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'inherit'], cwd: '/' })
    child.stdin.on('error', () => {}) // it has ended: the answer that does not come tells
    const program = new LineProgram(child, createInterface({ input: child.stdout })[Symbol.asyncIterator]())
    atEnd(t, () => program.end())
    return program
  }

  /** Its answer, as it came. @throws Error when it ends or takes too long. */
  async ask(question: unknown): Promise<string> {
    this.child.stdin.write(`${JSON.stringify(question)}\n`)
    const timer = setTimeout(() => this.child.kill('SIGKILL'), ANSWER_TIMEOUT_MS)
    const { done, value } = await this.lines.next()
    clearTimeout(timer)
    if (done) throw new Error(`${this.child.spawnargs.join(' ')} ended, or was too slow`)
    return value
  }

  async end(): Promise<void> {
    this.child.stdin.end()
    if (this.child.exitCode === null && this.child.signalCode === null) await once(this.child, 'exit')
  }
}
