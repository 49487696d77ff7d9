/** The part of `control-protocol.ts` that is about names: what crosses the control socket, as JSON. */
import type { NamePublication, PublishResult } from '../staging/name-publisher.js'

/** A name that is published under a key of ours. */
export interface NameReport extends NamePublication {
  /** The directory whose CID it follows; null when it was published by command. */
  follows: string | null
}

export type PublishReport = PublishResult

export interface PublishRequest {
  /** Name of the key. */
  key: string
  /** A CID, `/ipfs/…` or `/ipns/…`; with `isPath` relative to the mountpoint. */
  target: string
  isPath: boolean
}

export interface ResolveRequest {
  /** A name in any spelling, or that of a key of ours. */
  name: string
  /** Whether to ask others although what is known is fresh. */
  refresh: boolean
}

export interface NameResolution {
  /** In the one spelling used here. */
  name: string
  /** `/ipfs/<cid>…` */
  path: string
  /** `stale`: it was not to be had anew; `expired`: and the record has ended. */
  state: 'fresh' | 'stale' | 'expired'
}

export interface KeyReport {
  keyName: string
  /** The name it signs for. */
  name: string
  /** What was last published under it; null: nothing. */
  value: string | null
  /** The directory whose CID it follows. */
  follows: string | null
}

/** What the daemon does about names. A key is named as in `user.ipfs.key`; key files travel as base64. */
export interface NameRequests {
  published(): NameReport[]
  /** @throws CidfsError `NOT_FOUND`, `INVALID`, `BUSY`. */
  publish(request: PublishRequest, signal: AbortSignal): Promise<PublishReport>
  /** @throws CidfsError `INVALID`, `NOT_FOUND`, `UNREACHABLE`, `TIMEOUT`, `MALFORMED_DAG`. */
  resolve(request: ResolveRequest, signal: AbortSignal): Promise<NameResolution>
  keys(): KeyReport[]
  /** @throws CidfsError `EXISTS`, `INVALID`. */
  generateKey(key: string): KeyReport
  /** @throws CidfsError `EXISTS`, `INVALID`. */
  importKey(key: string, file: string): KeyReport
  /** @throws CidfsError `NOT_FOUND`. */
  exportKey(key: string): { file: string }
  /** @throws CidfsError `NOT_FOUND`, `INVALID`, `BUSY`. */
  removeKey(key: string): KeyReport
}
