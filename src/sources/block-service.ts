/**
 * Blocks for the whole main thread: from the store, or else from the network and then into the store.
 *
 * Invariant: one multihash is fetched once at a time, however many readers wait and whatever codec and version
 * their CIDs have. Each reader ends by its own signal and deadline; the fetch ends when the last one has left.
 * Why: the kernel reads ahead, several programs read one file, and directories share blocks.
 */
import type { BlockReader, GetOptions, Location } from '../core/blocks.js'
import { type CID, canVerify, isIdentity, keyOf } from '../core/cid.js'
import { CidfsError, codeOf, messageOf } from '../core/errors.js'
import { MAX_IDENTITY_BYTES } from '../core/limits.js'
import { logger } from '../core/log.js'
import { isPromise, type MaybePromise } from '../core/maybe-promise.js'
import { type FetchError, FetchErrors } from './fetch-errors.js'
import { SharedFetch } from './shared-fetch.js'
import type { Priority } from './source.js'
import type { Network } from './worker-client.js'

const log = logger('sources:blocks')

/** What is needed of the store. All of it is synchronous: an index lookup and a `pread`. */
export interface BlockStore {
  get(cid: CID): Uint8Array | undefined
  /** Keeps none of the memory that `bytes` is in. */
  put(cid: CID, bytes: Uint8Array): unknown
  has(cid: CID): boolean
  locate(cid: CID): Location | undefined
}

export interface ReadOptions extends GetOptions {
  /** `demand` when absent. */
  priority?: Priority | undefined
  /** Without room to keep it, the block is of no use. */
  mustKeep?: boolean
}

export interface BlockServiceOptions {
  /** Milliseconds a reader waits when it does not say. */
  readDeadlineMs: number
  errors?: FetchErrors
}

/** The network as this module uses it; `unavailable` says why nobody can be asked. */
export type BlockNetwork = Network & { readonly unavailable: string | undefined }

export class BlockService implements BlockReader {
  readonly errors: FetchErrors
  readonly #store: BlockStore
  readonly #network: BlockNetwork
  readonly #readDeadlineMs: number
  readonly #fetches = new Map<string, SharedFetch>()
  /** Why a block was last not kept. */
  #refusal: unknown

  constructor(store: BlockStore, network: BlockNetwork, options: BlockServiceOptions) {
    this.#store = store
    this.#network = network
    this.#readDeadlineMs = options.readDeadlineMs
    this.errors = options.errors ?? new FetchErrors()
  }

  /**
   * The block, at once when it is held here.
   * @throws CidfsError as `BlockReader.get`, also before it returns a promise; with `mustKeep` also `NO_SPACE`.
   */
  get(cid: CID, options: ReadOptions = {}): MaybePromise<Uint8Array> {
    if (isIdentity(cid)) return identityBytes(cid)
    return this.#local(cid) ?? this.#fetch(cid, options)
  }

  /** Sees to it that the block is held here, without reading it if it is. */
  ensure(cid: CID, options: ReadOptions = {}): MaybePromise<void> {
    if (isIdentity(cid) || this.#store.has(cid)) return undefined
    const fetched = this.#fetch(cid, options, false)
    return isPromise(fetched) ? fetched.then(() => undefined) : undefined
  }

  /**
   * Sees to it that the block is held here; its bytes only when it could not be kept.
   * @throws CidfsError as `get`.
   */
  async obtain(cid: CID, options: ReadOptions = {}): Promise<Uint8Array | undefined> {
    if (isIdentity(cid)) return identityBytes(cid)
    if (this.#store.has(cid)) return undefined
    const bytes = await this.#fetch(cid, options, false)
    return this.#store.has(cid) ? undefined : bytes
  }

  /** Whether `get` would answer at once. */
  has(cid: CID): boolean {
    return isIdentity(cid) || this.#store.has(cid)
  }

  /** Where the block lies at rest, undefined when it is not held here or lies in its CID. */
  locate(cid: CID): Location | undefined {
    return isIdentity(cid) ? undefined : this.#store.locate(cid)
  }

  /** Why the block could not be had when it was last asked for. */
  lastError(cid: CID): FetchError | undefined {
    return this.errors.get(cid)
  }

  /** Blocks that are being fetched now. */
  get inFlight(): number {
    return this.#fetches.size
  }

  #local(cid: CID): Uint8Array | undefined {
    try {
      return this.#store.get(cid)
    } catch (err) {
      // A copy that cannot be read is as good as none, and a sound one may be a fetch away.
      const damaged = codeOf(err) === 'STORE_DAMAGED' || codeOf(err) === 'IO'
      if (!damaged || this.#network.unavailable !== undefined) throw err
      log('%s: %s', cid, messageOf(err))
      return undefined
    }
  }

  /** Unless `reads`, nobody looks at the bytes that it resolves to if they were kept. */
  #fetch(cid: CID, options: ReadOptions, reads = true): Promise<Uint8Array> {
    const key = keyOf(cid)
    const running = this.#fetches.get(key)
    const shared = running ?? this.#start(key, cid, options.priority ?? 'demand')
    const { signal, deadlineMs = this.#readDeadlineMs, priority = 'demand' } = options
    const joined = shared.join({ signal, deadlineMs, priority, reads })
    return options.mustKeep === true ? joined.then(bytes => this.#kept(cid, bytes)) : joined
  }

  #kept(cid: CID, bytes: Uint8Array): Uint8Array {
    if (this.#store.has(cid)) return bytes
    throw this.#refusal ?? new CidfsError('NO_SPACE', `${cid} could not be kept`)
  }

  /** @throws CidfsError when there is no point in asking. */
  #start(key: string, cid: CID, priority: Priority): SharedFetch {
    if (!canVerify(cid)) throw unsupportedHash(cid)
    const { unavailable } = this.#network
    if (unavailable !== undefined) throw this.#remember(key, unreachable(cid, unavailable))
    const denied = this.errors.denied(key)
    if (denied !== undefined) throw denied
    const fetch = new SharedFetch(cid, priority, this.#network, {
      arrived: bytes => this.#arrived(key, cid, bytes),
      failed: error => this.#failed(key, cid, error),
      ended: () => this.#fetches.delete(key),
    })
    this.#fetches.set(key, fetch)
    return fetch
  }

  /** Whether the store has kept it. */
  #arrived(key: string, cid: CID, bytes: Uint8Array): boolean {
    this.errors.clear(key)
    try {
      this.#store.put(cid, bytes)
      return true
    } catch (err) {
      // A full disk keeps nobody from reading.
      this.#refusal = err
      log('%s was not kept: %s', cid, messageOf(err))
      return false
    }
  }

  #failed(key: string, cid: CID, error: CidfsError): void {
    log('%s: %s: %s', cid, error.code, error.message)
    // The end of the network says nothing about the block.
    if (error.code !== 'INTERRUPTED') this.#remember(key, error)
  }

  #remember(key: string, error: CidfsError): CidfsError {
    this.errors.record(key, error)
    return error
  }
}

function identityBytes(cid: CID): Uint8Array {
  const { digest } = cid.multihash
  if (digest.length <= MAX_IDENTITY_BYTES) return digest
  const message = `identity CID of ${digest.length} bytes, the limit is ${MAX_IDENTITY_BYTES}`
  throw new CidfsError('BAD_BLOCK', message, { cid: cid.toString() })
}

function unsupportedHash(cid: CID): CidfsError {
  const code = cid.multihash.code.toString(16)
  return new CidfsError('UNSUPPORTED_HASH', `hash function 0x${code} is not supported`, {
    cid: cid.toString(),
  })
}

function unreachable(cid: CID, why: string): CidfsError {
  return new CidfsError('UNREACHABLE', `block ${cid} could not be had: ${why}`, { cid: cid.toString() })
}
