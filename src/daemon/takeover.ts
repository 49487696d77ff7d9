/**
 * What a daemon leaves for the one that takes over its mount.
 *
 * Invariant: the record is whole or absent, and there before the supervisor has the descriptor: a daemon that is
 * given one finds the record. Together with the log of open files and the index it is all that a successor needs.
 *
 * A kernel without FUSE_NOTIFY_RESEND (before 6.9) does not send again what the dead daemon had read; there the
 * daemon reads through a clone of the descriptor, with whose end those requests end (ECONNABORTED).
 */
import { randomBytes } from 'node:crypto'
import {
  accessSync,
  constants,
  existsSync,
  readFileSync,
  renameSync,
  rmSync,
  statfsSync,
  writeFileSync,
} from 'node:fs'
import { release } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CidfsError, codeOf, messageOf } from '../core/errors.js'
import { addon } from '../core/native.js'
import type { FileSystem } from '../fs/file-system.js'
import { HandleLog } from '../fuse/handle-log.js'
import type { Negotiated } from '../fuse/init.js'
import { FuseSession, type Succession } from '../fuse/session.js'
import type { Config } from './config.js'
import { closeQuietly, inheritedDescriptors } from './sd-notify.js'
import { successorDescriptors, waitForGo } from './successor.js'

const MEMORY = '/dev/shm'
const TMPFS_MAGIC = 0x01021994
/** Grows with every change that an older or newer daemon cannot read. */
const RECORD_VERSION = 1
/** A predecessor that has just died may hold the lock for a moment. */
const LOCK_TIMEOUT_MS = 10_000
const LOCK_RETRY_MS = 5

interface TakeoverRecord {
  version: number
  mountpoint: string
  negotiated: Negotiated
  resend: boolean
  /** Of the daemon that mounted; for a successor that cannot read what is configured now. */
  config: Config
}

/** A connection to go on with. */
export interface Inheritance {
  fd: number
  record: TakeoverRecord
  succession: Succession
}

const recordPath = (stateDir: string): string => join(stateDir, 'takeover.json')

/** What lets the next daemon go on with a mount that is about to be made. */
export function newSuccession(stateDir: string): Succession {
  return { handles: HandleLog.create(isInMemory(MEMORY) ? MEMORY : stateDir), resend: canResend() }
}

function isInMemory(dir: string): boolean {
  try {
    accessSync(dir, constants.W_OK)
    return statfsSync(dir).type === TMPFS_MAGIC
  } catch {
    return false
  }
}

/** CIDFS_RESEND=off is for tests of what older kernels do. */
function canResend(env = process.env): boolean {
  const [major = 0, minor = 0] = release().split('.').map(Number)
  return env.CIDFS_RESEND !== 'off' && (major > 6 || (major === 6 && minor >= 9))
}

/** Writes down what was agreed upon with the kernel. */
export function saveTakeover(config: Config, session: FuseSession, { resend }: Succession): void {
  const { mountpoint, stateDir } = config
  const negotiated = session.negotiated!
  const record: TakeoverRecord = { version: RECORD_VERSION, mountpoint, negotiated, resend, config }
  const temporary = `${recordPath(stateDir)}.${randomBytes(4).toString('hex')}`
  writeFileSync(temporary, `${JSON.stringify(record)}\n`, { mode: 0o600 })
  renameSync(temporary, recordPath(stateDir))
}

/** The mount has ended: nothing is left to go on with. */
export function endTakeover(stateDir: string): void {
  rmSync(recordPath(stateDir), { force: true })
}

/**
 * What an earlier daemon has left, if this process was given its connection.
 * @throws CidfsError `STATE_VERSION`, `BAD_CONFIG` when it cannot be gone on with.
 */
export async function inherit(config: Config): Promise<Inheritance | undefined> {
  const handedOver = successorDescriptors()
  const descriptors = handedOver ?? inheritedDescriptors()
  const fd = connection(descriptors)
  if (fd === undefined) return undefined
  const record = readRecord(config.stateDir)
  if (record.mountpoint !== config.mountpoint) {
    const message = `the mount to go on with is ${record.mountpoint}, not ${config.mountpoint}`
    throw new CidfsError('BAD_CONFIG', message, { path: config.mountpoint })
  }
  if (config.transport !== 'native') {
    throw new CidfsError('BAD_CONFIG', 'only --transport native can go on with a mount: unmount it first')
  }
  const open = descriptors.get('handles')
  if (open === undefined) {
    const message = 'the supervisor has not kept the list of open files: set FileDescriptorStoreMax=4'
    throw new CidfsError('BAD_CONFIG', message)
  }
  if (handedOver !== undefined) await waitForGo()
  return {
    fd,
    record,
    succession: { handles: HandleLog.resume(open), resend: record.resend },
  }
}

/** One that lives: a mount that has ended in the meantime leaves nothing to go on with. */
function connection(descriptors: Map<string, number>): number | undefined {
  const fd = descriptors.get('fuse')
  if (fd !== undefined && addon().hasEnded(fd) === 0) return fd
  for (const descriptor of descriptors.values()) closeQuietly(descriptor)
  return undefined
}

function readRecord(stateDir: string): TakeoverRecord {
  const path = recordPath(stateDir)
  if (!existsSync(path)) {
    const message = `${stateDir} does not tell how to go on with its mount: unmount it, and mount it again`
    throw new CidfsError('STATE_VERSION', message, { path })
  }
  const record = parseRecord(path)
  if (record.version === RECORD_VERSION) return record
  const message = `the mount was made by another version of cidfs (record ${record.version}, not ${RECORD_VERSION})`
  throw new CidfsError('STATE_VERSION', `${message}: unmount it, and mount it again`, { path })
}

function parseRecord(path: string): TakeoverRecord {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as TakeoverRecord
  } catch (cause) {
    throw new CidfsError('STORE_DAMAGED', `${path}: ${messageOf(cause)}`, { path, cause })
  }
}

/** The configuration that the mount was made with, for a daemon whose command line or file is no good any more. */
export function configOfMount(stateDir: string): Config | undefined {
  try {
    return readRecord(stateDir).config
  } catch {
    return undefined
  }
}

/** Objects that the kernel still serves by itself. */
export function objectsInUse({ succession }: Inheritance): number[] {
  return succession.handles.inherited.filter(handle => handle.backingId !== 0).map(handle => handle.token)
}

/** Answers the kernel from here on. */
export function adopt({ fd, record, succession }: Inheritance, config: Config, fs: FileSystem): FuseSession {
  const passthrough = config.passthrough === 'auto'
  return FuseSession.adopt(fd, record.mountpoint, fs, record.negotiated, { passthrough, succession })
}

/** `open` of a state directory whose last user may be about to end. */
export async function untilUnlocked<T>(open: () => Promise<T>): Promise<T> {
  for (const end = performance.now() + LOCK_TIMEOUT_MS; ; await sleep(LOCK_RETRY_MS)) {
    try {
      return await open()
    } catch (err) {
      if (codeOf(err) !== 'STATE_IN_USE' || performance.now() > end) throw err
    }
  }
}
