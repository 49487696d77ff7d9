/** Checks of what mounting needs: the device, the helper, the two transports. */
import { readFileSync, type Stats, statSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { messageOf } from '../core/errors.js'
import { checkDevice } from '../fuse/mount.js'
import type { Config } from './config.js'
import type { Transport } from './config-options.js'
import { type DoctorCheck, fine, trouble } from './doctor-check.js'
import type { Probe } from './doctor-probe.js'

const S_ISUID = 0o4000

export function deviceCheck(): DoctorCheck {
  try {
    checkDevice()
    return fine('/dev/fuse', 'can be read and written')
  } catch (err) {
    const [found = '', ...advice] = messageOf(err).split(': ')
    return trouble('/dev/fuse', 'fail', found, advice.join(': ') || null)
  }
}

/** The one that is configured has to work; the other one may be missing. */
export function transportCheck(transport: Transport, probe: Probe, config: Config): DoctorCheck {
  const name = `transport ${transport}`
  const wanted = config.transport === transport
  if (probe.works) return fine(name, wanted ? 'mounts; it is the one in use' : 'mounts')
  const [found = '', ...advice] = probe.why.split(': ')
  const state = wanted ? 'fail' : 'warn'
  return trouble(name, state, found, advice.join(': ') || null)
}

function isRoot(): boolean {
  return process.geteuid?.() === 0
}

/** Root mounts by itself. */
export function fusermountCheck(): DoctorCheck {
  const name = 'fusermount3'
  const state = isRoot() ? 'ok' : 'fail'
  const unneeded = isRoot() ? ' (root mounts without it)' : ''
  const path = inPath(name)
  if (path === undefined) {
    const advice = isRoot() ? null : 'apt-get install fuse3'
    return { name, state, found: `not installed${unneeded}`, advice }
  }
  const { mode, uid } = statSync(path)
  if ((mode & S_ISUID) !== 0 && uid === 0) return fine(name, `${path}, set-user-ID root`)
  const advice = isRoot() ? null : `chmod u+s ${path} as root: without it only root can mount`
  return { name, state, found: `${path} is not set-user-ID root${unneeded}`, advice }
}

function inPath(command: string): string | undefined {
  const candidates = (process.env.PATH ?? '').split(delimiter).map(dir => join(dir, command))
  return candidates.find(path => stat(path)?.isFile() === true)
}

/** Undefined also where this user may not look. */
function stat(path: string): Stats | undefined {
  try {
    return statSync(path)
  } catch {
    return undefined
  }
}

export function allowOtherCheck({ allowOther }: Config): DoctorCheck {
  const name = 'user_allow_other'
  const set = /^\s*user_allow_other\s*$/m.test(textOf('/etc/fuse.conf'))
  if (set) return fine(name, 'set in /etc/fuse.conf: every user may mount with --allow-other')
  const found = 'not set in /etc/fuse.conf: only root may mount with --allow-other'
  if (isRoot() || !allowOther) return fine(name, found)
  return trouble(name, 'fail', found, 'echo user_allow_other >> /etc/fuse.conf as root')
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch {
    return ''
  }
}
