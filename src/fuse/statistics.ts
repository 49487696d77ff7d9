/** Counts requests and failures per operation, for status and metrics. */
import type { OperationCount } from '../fs/session.js'
import { operationName } from './operations.js'

export class Statistics {
  readonly #counts: number[] = []
  readonly #errors: number[] = []

  request(opcode: number): void {
    this.#counts[opcode] = (this.#counts[opcode] ?? 0) + 1
  }

  error(opcode: number): void {
    this.#errors[opcode] = (this.#errors[opcode] ?? 0) + 1
  }

  /** By name, only what has occurred. */
  snapshot(): Record<string, OperationCount> {
    const snapshot: Record<string, OperationCount> = {}
    this.#counts.forEach((count, opcode) => {
      snapshot[operationName(opcode)] = { count, errors: this.#errors[opcode] ?? 0 }
    })
    return snapshot
  }
}
