/**
 * Which daemon a command talks to.
 *
 * Invariant: a command that names a path talks to the daemon whose mount contains it, or to none. Nothing is
 * guessed where two daemons could be meant.
 */
import { resolve } from 'node:path'
import { CidfsError } from '../core/errors.js'
import { defaultStateDir } from '../daemon/config.js'
import {
  type DaemonRecord,
  findAll,
  findByPath,
  findByState,
  resolveOutsideMounts,
} from '../daemon/registry.js'

/** The daemon mounted exactly at `dir`, if one runs. */
export async function daemonAt(dir: string): Promise<DaemonRecord | undefined> {
  const daemons = await findAll()
  const real = await resolveOutsideMounts(dir, new Set(daemons.map(daemon => daemon.mountpoint)))
  return daemons.find(daemon => daemon.mountpoint === real)
}

/**
 * The daemon that serves all of `paths`, and the paths relative to its mountpoint.
 * @throws CidfsError `NOT_RUNNING`, `INVALID` when they lie in different mounts.
 */
export async function daemonOfPaths(paths: string[]): Promise<{ daemon: DaemonRecord; paths: string[] }> {
  const served = await Promise.all(paths.map(path => findByPath(path)))
  const outside = served.indexOf(undefined)
  if (outside !== -1) {
    throw new CidfsError('NOT_RUNNING', `${paths[outside]} is not in the mount of a running cidfs daemon`)
  }
  const daemons = new Map(served.map(found => [found!.daemon.mountpoint, found!.daemon]))
  if (daemons.size > 1)
    throw new CidfsError('INVALID', 'the paths lie in different mounts; name those of one')
  return { daemon: [...daemons.values()][0]!, paths: served.map(found => found!.path) }
}

/**
 * The daemon that `daemonOrState` finds.
 * @throws CidfsError `NOT_RUNNING`, `INVALID` when several run.
 */
export async function requireDaemon(state: string | undefined): Promise<DaemonRecord> {
  const found = await daemonOrState(state)
  if ('daemon' in found) return found.daemon
  const message = 'no cidfs daemon runs; start one with: cidfs mount <dir>'
  throw new CidfsError('NOT_RUNNING', message, { path: found.stateDir })
}

/**
 * The daemon whose mount contains `dir`; without it as `daemonOrState`.
 * @throws CidfsError `NOT_RUNNING`, `INVALID` when both are named or several run.
 */
export async function daemonOf(dir: string | undefined, state: string | undefined): Promise<DaemonOrState> {
  if (dir === undefined) return daemonOrState(state)
  if (state !== undefined) throw new CidfsError('INVALID', 'name a directory or --state, not both')
  return { daemon: (await daemonOfPaths([dir])).daemon }
}

/** A running daemon, or the state directory to open when none runs. */
export type DaemonOrState = { daemon: DaemonRecord } | { stateDir: string }

/**
 * For commands that name no path: the daemon of `state`; without one that of the default state directory;
 * without that the only one that runs.
 * @throws CidfsError `INVALID` when several run.
 */
export async function daemonOrState(state: string | undefined): Promise<DaemonOrState> {
  const stateDir = await resolveOutsideMounts(resolve(state ?? defaultStateDir()))
  const own = await findByState(stateDir)
  if (own !== undefined) return { daemon: own }
  const others = state === undefined ? await findAll() : []
  if (others.length > 1) {
    const choices = others.map(daemon => daemon.stateDir).join(', ')
    throw new CidfsError('INVALID', `several daemons run; say which with --state: ${choices}`)
  }
  return others[0] === undefined ? { stateDir } : { daemon: others[0] }
}
