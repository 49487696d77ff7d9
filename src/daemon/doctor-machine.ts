/** Checks of the program's own parts, of the kernel, and of what this user may do. */
import { readFileSync } from 'node:fs'
import { release } from 'node:os'
import { messageOf } from '../core/errors.js'
import { addon } from '../core/native.js'
import { INIT, INIT2 } from '../fuse/abi.js'
import type { Negotiated } from '../fuse/init.js'
import type { Config } from './config.js'
import { type DoctorCheck, fine, trouble } from './doctor-check.js'
import type { Probe } from './doctor-probe.js'

const MIN_NODE = [20, 19] as const
const CAP_SYS_ADMIN = 21n

export function nodeCheck(): DoctorCheck {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
  const found = `Node ${process.versions.node}, ${process.arch}`
  const enough = major > MIN_NODE[0] || (major === MIN_NODE[0] && minor >= MIN_NODE[1])
  if (enough) return fine('node', found)
  return trouble('node', 'fail', found, `install Node ${MIN_NODE.join('.')} or newer`)
}

export function addonCheck(): DoctorCheck {
  try {
    addon()
    return fine('addon', 'loads')
  } catch (err) {
    return trouble('addon', 'fail', messageOf(err), 'npm run build')
  }
}

/** What the kernel agreed to when the native transport mounted. */
export function kernelCheck(probe: Probe): DoctorCheck {
  const kernel = `Linux ${release()}`
  const negotiated = probe.works ? probe.negotiated : undefined
  if (negotiated === undefined) {
    return trouble('kernel', 'warn', `${kernel}; its FUSE is not known: the probe did not mount`, null)
  }
  const features = featuresOf(negotiated)
  const protocol = `7.${negotiated.minor}`
  const details = { kernel: release(), protocol, features }
  return fine('kernel', `${kernel}, FUSE ${protocol}: ${features.join(' ')}`, details)
}

/** Names of the flags of FUSE_INIT that are in force. */
function featuresOf({ flags, flags2 }: Negotiated): string[] {
  const set = (all: object, word: number) =>
    Object.entries(all).flatMap(([name, flag]) => ((word & (flag as number)) !== 0 ? [name] : []))
  return [...set(INIT, flags), ...set(INIT2, flags2)]
}

/** Whether the kernel may read and write files by itself here. */
export function privilegesCheck(probe: Probe, config: Config): DoctorCheck {
  const uid = process.geteuid?.() ?? 0
  const admin = isAdmin()
  const passthrough = probe.works ? (probe.passthrough ?? 'unknown') : 'unknown'
  const who = uid === 0 ? 'root' : `user ${uid}`
  const found = `${who}, ${admin ? 'with' : 'without'} CAP_SYS_ADMIN; passthrough: ${passthrough}`
  const details = { uid, admin, passthrough }
  const expected = config.passthrough === 'auto' && config.transport === 'native' && admin
  if (!expected || passthrough === 'on' || passthrough === 'unknown')
    return fine('privileges', found, details)
  const advice = 'files are served by cidfs instead of the kernel, which is slower: Linux 6.9 is needed'
  return { name: 'privileges', state: 'warn', found, advice, details }
}

function isAdmin(): boolean {
  const mask = /^CapEff:\s*([0-9a-f]+)$/m.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? '0'
  return ((BigInt(`0x${mask}`) >> CAP_SYS_ADMIN) & 1n) === 1n
}
