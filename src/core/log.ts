/** One `debug` namespace per module: `DEBUG=cidfs:*` shows everything, `DEBUG=cidfs:sources` one layer. */
import debug from 'debug'

export type Logger = debug.Debugger

/** `name` is the module's path under `src`, for example `sources:gateway`. */
export function logger(name: string): Logger {
  return debug(`cidfs:${name}`)
}
