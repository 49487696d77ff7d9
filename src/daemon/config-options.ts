/**
 * The options of `cidfs mount`: one table for the command line, the configuration file and the help text.
 *
 * Invariant: an option means the same wherever it is written; its value is read by one function, which says
 * what is allowed when it refuses. Every option that exists has an effect: what this version cannot do is
 * refused, never ignored.
 */
import { isAbsolute } from 'node:path'
import { NODE_OPTIONS } from './config-node.js'
import { SPACE_OPTIONS } from './config-space.js'
import { BadValue, type Option, readHttpUrl } from './config-values.js'

const DURATION_UNITS = new Map([
  ['ms', 1],
  ['s', 1000],
  ['m', 60_000],
  ['h', 3_600_000],
])

/** Longest delay a Node timer takes. */
const MAX_DURATION_MS = 2 ** 31 - 1

/** Milliseconds of `30s`, `150ms`, `1.5m`, `1h`. @throws BadValue */
export function readDuration(value: unknown): number {
  const match = typeof value === 'string' ? /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(value) : null
  const ms = match === null ? Number.NaN : Math.round(Number(match[1]) * (DURATION_UNITS.get(match[2]!) ?? 0))
  if (!(ms <= MAX_DURATION_MS)) {
    throw new BadValue('must be a duration with a unit, like "150ms", "30s" or "2m"')
  }
  return ms
}

function readDeadline(value: unknown): number {
  const ms = readDuration(value)
  if (ms === 0) throw new BadValue('must be longer than 0')
  return ms
}

/** A Kubo RPC: URL, or `unix:/path` of its socket. @throws BadValue */
function readKuboAddress(value: unknown): string {
  const allowed = new BadValue('must be like "http://127.0.0.1:5001" or "unix:/path/of/api.sock"')
  if (typeof value !== 'string') throw allowed
  if (value.startsWith('unix:')) {
    if (!isAbsolute(value.slice('unix:'.length))) throw allowed
    return value
  }
  try {
    return readHttpUrl(value)
  } catch {
    throw allowed
  }
}

function readText(value: unknown): string {
  if (typeof value !== 'string' || value === '') throw new BadValue('must be a string that is not empty')
  if (value.includes('\0')) throw new BadValue('must not contain NUL')
  return value
}

function readGlob(value: unknown): string {
  const glob = readText(value)
  if (glob.includes('/'))
    throw new BadValue('must be a name, with * and ? for what may stand there, without "/"')
  return glob
}

function readSwitch(value: unknown): boolean {
  if (typeof value !== 'boolean') throw new BadValue('must be true or false')
  return value
}

/** How to speak FUSE; `daemon/transport.ts` has what is behind each. */
export const TRANSPORTS = ['native', 'fuse-native'] as const
export type Transport = (typeof TRANSPORTS)[number]

function readTransport(value: unknown): Transport {
  const transport = TRANSPORTS.find(name => name === value)
  if (transport === undefined) throw new BadValue('must be "native" or "fuse-native"')
  return transport
}

function readPassthrough(value: unknown): string {
  if (value !== 'auto' && value !== 'off') throw new BadValue('must be "auto" or "off"')
  return value
}

function readDns(value: unknown): string {
  if (value === 'system' || value === 'off') return value
  try {
    return readHttpUrl(value)
  } catch {
    throw new BadValue(
      'must be "system", "off", or the URL of a resolver like "https://dns.example/dns-query"',
    )
  }
}

export const OPTIONS: readonly Option[] = [
  {
    name: 'state',
    argument: 'DIR',
    help: 'where blocks, staged files and the log are kept (default: $XDG_DATA_HOME/cidfs/default)',
    read: readText,
  },
  {
    name: 'config',
    argument: 'FILE',
    commandLineOnly: true,
    help: 'TOML file with these options (default: $XDG_CONFIG_HOME/cidfs/config.toml where it exists)',
    read: readText,
  },
  {
    name: 'gateway',
    argument: 'URL',
    repeatable: true,
    help: 'trustless gateway to fetch from; replaces the default list (repeatable)',
    read: readHttpUrl,
  },
  {
    name: 'kubo',
    argument: 'URL',
    help: 'RPC of a Kubo to fetch from and to publish to: http://host:port or unix:/path',
    read: readKuboAddress,
  },
  ...NODE_OPTIONS,
  {
    name: 'dns',
    argument: 'RESOLVER',
    help: 'who resolves DNS names in ipns/: system, an https:// URL, or off (default: system; isolated: off)',
    read: readDns,
  },
  { name: 'offline', help: 'use no network at all, only what is held locally', read: readSwitch },
  {
    name: 'isolated',
    help: 'use no gateway or node but those that are named; the default config file is not read',
    read: readSwitch,
  },
  {
    name: 'transport',
    argument: 'NAME',
    help: 'how to speak FUSE: native, or the package fuse-native, which needs libfuse2 (default: native)',
    read: readTransport,
  },
  {
    name: 'passthrough',
    argument: 'WHEN',
    help: 'auto: the kernel reads and writes local files by itself where it can (root, Linux 6.9); off: never (default: auto)',
    read: readPassthrough,
  },
  { name: 'allow-other', help: 'let other users see the mount', read: readSwitch },
  ...SPACE_OPTIONS,
  {
    name: 'read-deadline',
    argument: 'TIME',
    help: 'how long a read waits for a missing block before it fails (default: 30s)',
    read: readDeadline,
  },
  {
    name: 'settle',
    argument: 'TIME',
    help: 'how long after its last close a staged file is published (default: 50ms)',
    read: readDuration,
  },
  {
    name: 'local-names',
    argument: 'GLOB',
    repeatable: true,
    help: 'names of staged files that are not published; replaces .*.sw? *.part *.crdownload *~ (repeatable)',
    read: readGlob,
  },
  {
    name: 'log',
    argument: 'NAMES',
    help: 'debug namespaces written to the log, like DEBUG (cidfs:* for everything)',
    read: readText,
  },
]

/** The name in `names` that `typo` most likely stands for, if one is near. */
export function nearest(typo: string, names: readonly string[]): string | undefined {
  const plain = typo.toLowerCase().replaceAll('_', '-').replace(/s$/, '')
  const ranked = names.map(name => ({ name, distance: editDistance(plain, name) }))
  ranked.sort((a, b) => a.distance - b.distance)
  const best = ranked[0]
  return best !== undefined && best.distance <= Math.max(1, plain.length / 3) ? best.name : undefined
}

/** Levenshtein. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const next = [i]
    for (let j = 1; j <= b.length; j++) {
      const substitution = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)
      next.push(Math.min(row[j]! + 1, next[j - 1]! + 1, substitution))
    }
    row = next
  }
  return row[b.length]!
}
