/** Counts requests and failures per operation, for status and metrics. */
import { operationName } from './operations.js'

export interface OperationCount {
  count: number
  /** Answers with an errno, whichever it is (a missing name is one too). */
  errors: number
}

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
