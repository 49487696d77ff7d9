/**
 * The configuration of a daemon: command line over file over defaults.
 *
 * Invariant: a `Config` is complete and checked. Nothing after this module looks at argv, at the TOML file or
 * at XDG variables, and `gateways` and `kubo` hold exactly what may be contacted: empty when offline, without
 * the public gateways when isolated.
 * Why: whether the daemon dials out must be decided, and tested, in one place.
 *
 * Reference: https://specifications.freedesktop.org/basedir-spec/latest/
 */
import { readFile } from 'node:fs/promises'
import { homedir } from 'node:os'
import { isAbsolute, join, resolve } from 'node:path'
import { parse, TomlError } from 'smol-toml'
import { CidfsError, messageOf } from '../core/errors.js'
import type { NodeConfig } from '../p2p/node-config.js'
import { DEFAULT_READ_DEADLINE_MS } from '../sources/config.js'
import { DEFAULT_LOCAL_NAMES } from '../staging/local-names.js'
import type { SpaceLimits } from '../store/space.js'
import { nodeConfig } from './config-node.js'
import { nearest, OPTIONS, type Transport } from './config-options.js'
import { spaceLimits } from './config-space.js'
import { BadValue, type Option } from './config-values.js'
import { isWithin, resolveOutsideMounts } from './registry.js'

export interface Config {
  /** Absolute, without symbolic links. */
  mountpoint: string
  /** Absolute, without symbolic links, outside the mountpoint. Holds everything that is this daemon's: one daemon, one state directory, one mountpoint. */
  stateDir: string
  /** Base URLs of trustless gateways, without closing slash. */
  gateways: string[]
  /** RPC address of a Kubo: URL, or `unix:` and an absolute path. */
  kubo: string | undefined
  /** The embedded IPFS node; undefined: none. */
  node: NodeConfig | undefined
  /** What the node tells routers that it has. */
  provide: 'roots' | 'all' | 'off'
  /** Who resolves DNS names: `system`, the URL of a resolver, or nobody. */
  dns: string | undefined
  offline: boolean
  isolated: boolean
  transport: Transport
  /** Whether the kernel may serve files by itself where it can. */
  passthrough: 'auto' | 'off'
  allowOther: boolean
  /** What the state directory may take, and what stays free on its disk. */
  space: SpaceLimits
  /** How long a read waits for a block that is not here. */
  readDeadlineMs: number
  /** From the last close of a staged file to its publishing. */
  settleMs: number
  /** Names, as globs, of staged files that are not published. */
  localNames: readonly string[]
  /** Debug namespaces for the log; undefined: those of the environment. */
  log: string | undefined
}

/** Asked for blocks when nothing else is configured. All of them serve `application/vnd.ipld.raw`. */
export const DEFAULT_GATEWAYS = ['https://trustless-gateway.link', 'https://ipfs.io', 'https://dweb.link']

/** Options as written, by option name: a value, or an array of them for repeatable ones. */
export type RawOptions = Record<string, unknown>

export type Values = Map<string, string | number | boolean | (string | number | boolean)[]>
type Environment = Record<string, string | undefined>

/**
 * The configuration that `options` of the command line ask for.
 * @throws CidfsError `BAD_CONFIG` that names the file or option, the key and what is allowed.
 */
export async function loadConfig(
  mountpoint: string,
  options: RawOptions = {},
  env: Environment = process.env,
): Promise<Config> {
  if (mountpoint === '') throw new CidfsError('BAD_CONFIG', 'the mountpoint must not be empty')
  const fromCommandLine = readOptions(options, undefined)
  const fromFile = await readConfigFile(fromCommandLine, env)
  const config = compose(mountpoint, new Map([...fromFile, ...fromCommandLine]), env)
  const real = await resolveOutsideMounts(config.mountpoint)
  const stateDir = await resolveOutsideMounts(config.stateDir, new Set([real]))
  if (isWithin(stateDir, real)) {
    throw new CidfsError('BAD_CONFIG', `--state ${stateDir} must not lie in the mountpoint`, {
      path: stateDir,
    })
  }
  const node = config.node && { ...config.node, stateDir }
  return { ...config, mountpoint: real, stateDir, node }
}

/** Default state directory: `$XDG_DATA_HOME/cidfs/default`. */
export function defaultStateDir(env: Environment = process.env): string {
  return join(xdgDirectory(env, 'XDG_DATA_HOME', '.local/share'), 'cidfs', 'default')
}

/** The specification has relative paths ignored. */
function xdgDirectory(env: Environment, name: string, fallback: string): string {
  const value = env[name]
  return value !== undefined && isAbsolute(value) ? value : join(env.HOME || homedir(), fallback)
}

function compose(mountpoint: string, values: Values, env: Environment): Config {
  const text = (name: string) => values.get(name) as string | undefined
  const offline = values.get('offline') === true
  const isolated = values.get('isolated') === true
  const gateways = (values.get('gateway') as string[] | undefined) ?? (isolated ? [] : DEFAULT_GATEWAYS)
  return {
    mountpoint,
    stateDir: resolve(text('state') ?? defaultStateDir(env)),
    gateways: offline ? [] : [...new Set(gateways)],
    kubo: offline ? undefined : text('kubo'),
    node: offline ? undefined : nodeConfig(values, isolated),
    provide: (values.get('provide') as Config['provide'] | undefined) ?? 'roots',
    dns: offline ? undefined : dnsOf(text('dns'), isolated),
    offline,
    isolated,
    transport: (values.get('transport') as Transport | undefined) ?? 'native',
    passthrough: values.get('passthrough') === 'off' ? 'off' : 'auto',
    allowOther: values.get('allow-other') === true,
    space: spaceLimits(values),
    readDeadlineMs: (values.get('read-deadline') as number | undefined) ?? DEFAULT_READ_DEADLINE_MS,
    settleMs: (values.get('settle') as number | undefined) ?? 50,
    localNames: (values.get('local-names') as string[] | undefined) ?? DEFAULT_LOCAL_NAMES,
    log: text('log'),
  }
}

function dnsOf(setting: string | undefined, isolated: boolean): string | undefined {
  if (setting === undefined) return isolated ? undefined : 'system'
  return setting === 'off' ? undefined : setting
}

/** With `--isolated`, only a file that is named counts. */
async function readConfigFile(commandLine: Values, env: Environment): Promise<Values> {
  const named = commandLine.get('config') as string | undefined
  if (named === undefined && commandLine.get('isolated') === true) return new Map()
  const file = resolve(named ?? join(xdgDirectory(env, 'XDG_CONFIG_HOME', '.config'), 'cidfs', 'config.toml'))
  try {
    return readOptions(parse(await readFile(file, 'utf8')), file)
  } catch (err) {
    if (named === undefined && (err as NodeJS.ErrnoException).code === 'ENOENT') return new Map()
    throw configFileError(file, err)
  }
}

function configFileError(file: string, err: unknown): CidfsError {
  if (err instanceof CidfsError) return err
  const reason =
    err instanceof TomlError
      ? `line ${err.line}, column ${err.column}: ${err.message.split('\n')[0]}`
      : messageOf(err)
  return new CidfsError('BAD_CONFIG', `${file}: ${reason}`, { path: file, cause: err })
}

/** `file` undefined: they come from the command line. */
function readOptions(raw: RawOptions, file: string | undefined): Values {
  const values: Values = new Map()
  for (const [name, value] of Object.entries(raw)) {
    if (value === undefined) continue
    values.set(name, readOption(findOption(name, file), value, file))
  }
  return values
}

function readOption(option: Option, value: unknown, file: string | undefined) {
  if (option.repeatable !== true) return readOne(option, value, file)
  return (Array.isArray(value) ? value : [value]).map(item => readOne(option, item, file))
}

function readOne(option: Option, value: unknown, file: string | undefined) {
  try {
    return relativeToFile(option, option.read(value), file)
  } catch (err) {
    if (!(err instanceof BadValue)) throw err
    const where = file === undefined ? `--${option.name}` : `${file}: ${option.name}`
    const shown = err.hidden ? '' : ` (it is ${JSON.stringify(value)})`
    throw new CidfsError('BAD_CONFIG', `${where} ${err.message}${shown}`, { cause: err })
  }
}

/** A relative state directory in a file is relative to that file, whatever directory the command runs in. */
function relativeToFile(option: Option, value: string | number | boolean, file: string | undefined) {
  if (option.name !== 'state' || file === undefined) return value
  return resolve(file, '..', String(value))
}

function findOption(name: string, file: string | undefined): Option {
  const allowed = file === undefined ? OPTIONS : OPTIONS.filter(option => option.commandLineOnly !== true)
  const option = allowed.find(option => option.name === name)
  if (option !== undefined) return option
  const names = allowed.map(option => option.name)
  const guess = nearest(name, names)
  const hint = guess === undefined ? `allowed are ${names.join(', ')}` : `did you mean "${guess}"?`
  throw new CidfsError('BAD_CONFIG', `${file ?? 'command line'}: unknown key "${name}"; ${hint}`)
}
