/**
 * Extended attributes of staged nodes: what is known of their publication.
 *
 * Invariant: `user.ipfs.cid` is the CID of the present content or absent, never that of an earlier one. The one
 * attribute that can be set is `user.ipfs.key` of a directory: the key under whose name it is published.
 */
import type { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { type MaybePromise, then } from '../core/maybe-promise.js'
import type { BlockService } from '../sources/block-service.js'
import type { DirectoryName, DirectoryNames } from '../staging/directory-names.js'
import type { StagingNode } from '../staging/node.js'
import type { Staging } from '../staging/staging.js'
import type { Store } from '../store/store.js'
import { attributeKey, cidAttribute, contentAttribute } from './content-xattrs.js'
import type { HeldRoots } from './held-roots.js'
import { STAGING_ROOT_INO } from './ino.js'

interface Parts {
  store: Store
  blocks: BlockService
  roots: HeldRoots
  staging: Staging
  directoryNames: DirectoryNames
}

export function stagedAttributeNames({ staging, directoryNames }: Parts, node: StagingNode): string[] {
  const names = ['user.ipfs.state']
  const named = directoryNames.of(node.ino)
  if (named !== undefined) names.push('user.ipfs.key')
  if (named?.name !== undefined) names.push('user.ipfs.name')
  if (staging.publishedCid(node) !== undefined) names.unshift('user.ipfs.cid')
  if ((staging.publicationOf(node).error ?? named?.error) !== undefined) names.push('user.ipfs.error')
  return names
}

/** @throws CidfsError `NO_ATTRIBUTE`. */
export function stagedAttribute(
  parts: Parts,
  node: StagingNode,
  name: string,
  signal: AbortSignal,
): MaybePromise<Uint8Array> {
  const { state, tries, error } = parts.staging.publicationOf(node)
  switch (attributeKey(name)) {
    case 'state':
      return Buffer.from(state)
    case 'error':
      return error === undefined
        ? nameAttribute(parts, node, 'error')
        : Buffer.from(`${error} (tried ${tries} times)`)
    case 'key':
      return nameAttribute(parts, node, 'keyName')
    case 'name':
      return nameAttribute(parts, node, 'name')
    case 'cid':
      return then(cidOf(parts.staging, node), cidAttribute)
    default:
      return then(cidOf(parts.staging, node), cid => {
        if (cid === undefined) throw new CidfsError('NO_ATTRIBUTE', 'not published yet')
        return contentAttribute(parts, cid, name, undefined, signal)
      })
  }
}

function nameAttribute(
  { directoryNames }: Parts,
  { ino }: StagingNode,
  what: keyof DirectoryName,
): Uint8Array {
  const value = directoryNames.of(ino)?.[what]
  if (value === undefined) throw new CidfsError('NO_ATTRIBUTE', 'no such attribute')
  return Buffer.from(value)
}

const XATTR_CREATE = 1
const XATTR_REPLACE = 2

/**
 * Sets `user.ipfs.key`.
 * @throws CidfsError `NOT_SUPPORTED` for other attributes, `EXISTS`, `NO_ATTRIBUTE`; as `DirectoryNames.bind`.
 */
export function setStagedAttribute(
  { directoryNames }: Parts,
  node: StagingNode,
  name: string,
  value: Uint8Array,
  flags: number,
): void {
  if (attributeKey(name) !== 'key') throw noAttributes()
  const isSet = directoryNames.of(node.ino) !== undefined
  if (isSet && (flags & XATTR_CREATE) !== 0) throw new CidfsError('EXISTS', 'it follows a key already')
  if (!isSet && (flags & XATTR_REPLACE) !== 0) throw new CidfsError('NO_ATTRIBUTE', 'it follows no key')
  directoryNames.bind(node, Buffer.from(value).toString().trim())
}

/** @throws CidfsError `NOT_SUPPORTED` for other attributes than `user.ipfs.key`, `NO_ATTRIBUTE`. */
export function removeStagedAttribute({ directoryNames }: Parts, { ino }: StagingNode, name: string): void {
  if (attributeKey(name) !== 'key') throw noAttributes()
  directoryNames.unbind(ino)
}

function noAttributes(): CidfsError {
  return new CidfsError('NOT_SUPPORTED', 'UnixFS carries no extended attributes')
}

function cidOf(staging: Staging, node: StagingNode): MaybePromise<CID | undefined> {
  return node.ino === STAGING_ROOT_INO ? staging.cidOf(node.ino) : staging.publishedCid(node)
}
