/** The options of `cidfs mount` that limit what the state directory takes. */
import type { SpaceLimits } from '../store/space.js'
import type { Values } from './config.js'
import { BadValue, type Option } from './config-values.js'

const UNITS = new Map([
  ['B', 1],
  ['kB', 1e3],
  ['MB', 1e6],
  ['GB', 1e9],
  ['TB', 1e12],
  ['KiB', 2 ** 10],
  ['MiB', 2 ** 20],
  ['GiB', 2 ** 30],
  ['TiB', 2 ** 40],
])

/** With less, the index alone has no room. */
const MIN_LIMIT_BYTES = 16 * 2 ** 20

/** Bytes of `20GiB`, `500MB`, `1.5TiB`. @throws BadValue */
function readSize(value: unknown): number {
  const match = typeof value === 'string' ? /^(\d+(?:\.\d+)?) ?([A-Za-z]+)$/.exec(value) : null
  const bytes =
    match === null ? Number.NaN : Math.round(Number(match[1]) * (UNITS.get(match[2]!) ?? Number.NaN))
  if (Number.isSafeInteger(bytes)) return bytes
  throw new BadValue('must be a size with a unit, like "500MB" or "20GiB"')
}

function readLimit(value: unknown): number {
  const bytes = readSize(value)
  if (bytes < MIN_LIMIT_BYTES) throw new BadValue('must be at least "16MiB"')
  return bytes
}

/** Bytes, or a percentage as it was written. */
function readFloor(value: unknown): number | string {
  const percent = typeof value === 'string' ? /^(\d+(?:\.\d+)?)%$/.exec(value)?.[1] : undefined
  if (percent !== undefined && Number(percent) < 100) return value as string
  try {
    return readSize(value)
  } catch {
    throw new BadValue('must be a size like "2GiB", or a part of the disk like "5%"')
  }
}

export const SPACE_OPTIONS: readonly Option[] = [
  {
    name: 'max-size',
    argument: 'SIZE',
    help: 'what the state directory may take, like 20GiB: what is only cached goes first, then writes fail (default: no limit)',
    read: readLimit,
  },
  {
    name: 'min-free',
    argument: 'SIZE|PERCENT',
    help: 'what stays free on the disk of the state directory (default: 1GiB or 1%, whichever is less)',
    read: readFloor,
  },
]

export function spaceLimits(values: Values): SpaceLimits {
  const minFree = values.get('min-free') as number | string | undefined
  return {
    maxBytes: values.get('max-size') as number | undefined,
    minFree: typeof minFree === 'string' ? { percent: Number(minFree.slice(0, -1)) } : minFree,
  }
}
