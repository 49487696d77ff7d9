/**
 * Extended attributes of staged nodes: what is known of their publication.
 *
 * Invariant: `user.ipfs.cid` is the CID of the present content or absent, never that of an earlier one.
 */
import type { CID } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { type MaybePromise, then } from '../core/maybe-promise.js'
import type { BlockService } from '../sources/block-service.js'
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
}

export function stagedAttributeNames(staging: Staging, node: StagingNode): string[] {
  const names = ['user.ipfs.state']
  if (staging.publishedCid(node) !== undefined) names.unshift('user.ipfs.cid')
  if (staging.publicationOf(node).error !== undefined) names.push('user.ipfs.error')
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
      if (error === undefined) throw new CidfsError('NO_ATTRIBUTE', 'nothing went wrong')
      return Buffer.from(`${error} (tried ${tries} times)`)
    case 'cid':
      return then(cidOf(parts.staging, node), cidAttribute)
    default:
      return then(cidOf(parts.staging, node), cid => {
        if (cid === undefined) throw new CidfsError('NO_ATTRIBUTE', 'not published yet')
        return contentAttribute(parts, cid, name, undefined, signal)
      })
  }
}

function cidOf(staging: Staging, node: StagingNode): MaybePromise<CID | undefined> {
  return node.ino === STAGING_ROOT_INO ? staging.cidOf(node.ino) : staging.publishedCid(node)
}
