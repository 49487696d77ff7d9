/**
 * What a name may lead to: `/ipfs/<cid>` or `/ipns/<name>`, each with or without a path below it.
 *
 * Invariant: what is returned can stand behind `../` in a symbolic link and leads nowhere but into these trees:
 * no `..`, no NUL, nothing longer than the kernel takes.
 */
import { tryParseCid } from '../core/cid.js'
import { CidfsError } from '../core/errors.js'
import { MAX_NAME_BYTES } from '../core/limits.js'
import { parseName } from './ipns-name.js'

export interface NamePath {
  /** `/ipfs/<cid>` or `/ipns/<name>`, in the one spelling we use. */
  root: string
  segments: string[]
}

/** PATH_MAX without the NUL, and without the `..` in front. */
const MAX_PATH_BYTES = 4095 - 2

/** @throws CidfsError `MALFORMED_DAG`: it came from others and is not what it should be. */
export function parsePath(text: string): NamePath {
  const [before, tree, name = '', ...rest] = text.split('/')
  const root = before === '' ? rootOf(tree, name) : undefined
  if (root === undefined) throw malformed(text, 'it is neither /ipfs/<cid> nor /ipns/<name>')
  const segments = rest.filter(segment => segment !== '')
  if (segments.some(isForbidden)) throw malformed(text, 'a name in its path cannot be one of a file')
  if (Buffer.byteLength([root, ...segments].join('/')) > MAX_PATH_BYTES)
    throw malformed(text, 'it is too long')
  return { root, segments }
}

function rootOf(tree: string | undefined, name: string): string | undefined {
  const cid = tree === 'ipfs' ? tryParseCid(name) : undefined
  if (cid !== undefined) return `/ipfs/${cid}`
  const parsed = tree === 'ipns' ? parseName(name) : undefined
  return parsed && `/ipns/${parsed.text}`
}

function isForbidden(segment: string): boolean {
  const isDots = segment === '.' || segment === '..'
  return isDots || segment.includes('\0') || Buffer.byteLength(segment) > MAX_NAME_BYTES
}

function malformed(text: string, why: string): CidfsError {
  return new CidfsError(
    'MALFORMED_DAG',
    `a name cannot lead to ${JSON.stringify(text.slice(0, 200))}: ${why}`,
  )
}
