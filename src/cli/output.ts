/**
 * How results, errors and progress look.
 *
 * Invariant: standard output carries results only (with `--json`: one JSON document), standard error
 * everything else. An error is one line that starts with `cidfs: `.
 */
import cliProgress from 'cli-progress'
import { messageOf } from '../core/errors.js'

export function print(line: string): void {
  process.stdout.write(`${line}\n`)
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2))
}

/** For people, beside the result. */
export function note(line: string): void {
  process.stderr.write(`cidfs: ${line}\n`)
}

/** One line, with the stack below it only where DEBUG asks for details. */
export function printError(err: unknown): void {
  note(oneLine(messageOf(err)))
  if (process.env.DEBUG && err instanceof Error) process.stderr.write(`${err.stack}\n`)
}

export function oneLine(text: string): string {
  return text.replaceAll(/\s*[\r\n]+\s*/g, ' ').trim()
}

const SIZE_UNITS = ['KiB', 'MiB', 'GiB', 'TiB', 'PiB']

/** Bytes for people: `512 B`, `1.5 MiB`. */
export function formatBytes(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`
  let value = bytes / 1024
  let unit = 0
  for (; value >= 1023.95 && unit < SIZE_UNITS.length - 1; unit++) value /= 1024
  return `${value.toFixed(1)} ${SIZE_UNITS[unit]}`
}

/** Milliseconds for people: `850 ms`, `42 s`, `3 h 5 min`. */
export function formatDuration(ms: number): string {
  const seconds = Math.round(ms / 1000)
  if (ms < 1000) return `${Math.round(ms)} ms`
  if (seconds < 60) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`
  const hours = Math.floor(minutes / 60)
  return hours < 24 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`
}

/** `1 file`, `2 files`. */
export function count(n: number, noun: string): string {
  return `${n} ${noun}${n === 1 ? '' : 's'}`
}

/** Bytes are shown for people, everything else as numbers. */
export type ProgressUnit = 'files' | 'blocks' | 'bytes'

export interface Progress {
  /** `total` may grow while the work goes on; undefined: nobody knows it. */
  update(done: number, total: number | undefined, label: string): void
  stop(): void
}

/** A bar on standard error, from the first update on, when that is a terminal; otherwise nothing. */
export function startProgress(unit: ProgressUnit): Progress {
  let bar: cliProgress.SingleBar | undefined
  return {
    update(done, total, label) {
      if (!process.stderr.isTTY) return
      if (bar === undefined) {
        bar = createBar(unit, total !== undefined)
        bar.start(total ?? 0, done, { label })
      }
      bar.setTotal(total ?? 0)
      bar.update(done, { label })
    },
    stop: () => bar?.stop(),
  }
}

function createBar(unit: ProgressUnit, hasTotal: boolean): cliProgress.SingleBar {
  const show = unit === 'bytes' ? formatBytes : String
  const format = hasTotal ? '{bar} {value}/{total} {label}' : '{value} {label}'
  const formatValue: cliProgress.ValueFormatter = (value, _, type) =>
    type === 'value' || type === 'total' ? show(value) : `${value}`
  const options = { format, formatValue, clearOnComplete: true, hideCursor: true, stream: process.stderr }
  return new cliProgress.SingleBar(options, cliProgress.Presets.shades_classic)
}
