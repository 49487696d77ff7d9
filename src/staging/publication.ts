/** How far the publication of a node is, as extended attributes, `cidfs wait` and `cidfs status` tell it. */
import type { BackendQueue } from './backend-queue.js'
import type { Contents } from './contents.js'
import type { DirtyQueue } from './dirty-queue.js'
import type { LocalNames } from './local-names.js'
import type { Namespace } from './namespace.js'
import type { StagingNode } from './node.js'

export type PublicationState = 'writing' | 'queued' | 'publishing' | 'pinned' | 'failed' | 'local'

export interface Publication {
  state: PublicationState
  tries: number
  error: string | undefined
}

export interface PublicationParts {
  names: Namespace
  contents: Contents
  queue: DirtyQueue
  local: LocalNames
  backend: BackendQueue | undefined
}

export function publicationOf(node: StagingNode, parts: PublicationParts): Publication {
  if (parts.local.covers(node)) return publication('local')
  if (node.type === 'file' && parts.contents.isBeingWritten(node.ino)) return publication('writing')
  const job = parts.queue.get(node.ino)
  if (job === undefined) return handedOver(node, parts)
  const state = job.running ? 'publishing' : job.tries > 0 ? 'failed' : 'queued'
  return publication(state, job.tries, job.error)
}

/** The back-end gets a node with the entry of the root under which it lies. */
function handedOver(node: StagingNode, { names, queue, backend }: PublicationParts): Publication {
  const top = backend && names.topLevel(node)
  if (top === undefined) return publication('pinned')
  if (queue.get(top.ino) !== undefined) return publication('publishing')
  const handed = backend?.state(top.ino)
  if (handed?.pending !== true) return publication('pinned')
  return publication(handed.tries > 0 ? 'failed' : 'publishing', handed.tries, handed.error)
}

function publication(state: PublicationState, tries = 0, error?: string): Publication {
  return { state, tries, error }
}
