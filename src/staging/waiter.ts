/**
 * Waits until everything under some nodes is published.
 *
 * Invariant: it ends when nothing there is pending any more, or when what is pending has failed: a failure is
 * tried again in the background, and is told instead of waited for.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { CidfsError } from '../core/errors.js'
import type { Job } from './dirty-queue.js'
import { STAGING_ROOT_INO, type StagingNode } from './node.js'
import type { Staging } from './staging.js'

export interface WaitProgress {
  /** Files under the nodes. */
  total: number
  pinned: number
  failed: number
}

export interface WaitResult {
  pinned: number
  failed: { path: string; error: string }[]
}

const POLL_MS = 50
/** Looking through a long queue takes time that the kernel's requests need: at most one part in so many. */
const REST = 8
const SLICE_MS = 4

/** @throws CidfsError `INTERRUPTED`. */
export async function waitUntilPublished(
  staging: Staging,
  inos: number[],
  onProgress: (progress: WaitProgress) => void,
  signal: AbortSignal,
): Promise<WaitResult> {
  let total = await countFiles(staging, inos)
  for (;;) {
    const began = performance.now()
    const pending = pendingUnder(staging, inos)
    if (pending.waiting === 0) {
      total = await countFiles(staging, inos)
      if (pendingUnder(staging, inos).waiting === 0)
        return resultOf(staging, total, [...pending.failed.values()])
    }
    const failed = pending.failed.size
    onProgress({ total, pinned: Math.max(0, total - pending.files), failed })
    if (signal.aborted) throw new CidfsError('INTERRUPTED', 'interrupted')
    await sleep(Math.max(POLL_MS, REST * (performance.now() - began)))
  }
}

interface Pending {
  /** Nodes, and entries handed to the back-end, that will make progress by themselves. */
  waiting: number
  /** Files without a CID. */
  files: number
  failed: Map<number, StagingNode>
}

function pendingUnder(staging: Staging, inos: number[]): Pending {
  const pending: Pending = { waiting: 0, files: 0, failed: new Map() }
  const blocked = new Set<number>()
  for (const job of staging.queue.jobs()) {
    const node = staging.names.find(job.ino)
    if (node === undefined) continue
    if (hasFailed(job))
      for (let at = node.parent; at !== 0; at = staging.names.find(at)?.parent ?? 0) blocked.add(at)
    if (!isUnder(staging, node, inos)) continue
    if (node.type === 'file') pending.files++
    if (hasFailed(job)) pending.failed.set(node.ino, node)
    else pending.waiting++
  }
  // directories above a failed file wait for it
  for (const ino of blocked) {
    const job = staging.queue.get(ino)
    if (job !== undefined && !hasFailed(job) && isUnderIno(staging, ino, inos)) pending.waiting--
  }
  addHanded(staging, inos, pending, blocked)
  return pending
}

function hasFailed(job: Job): boolean {
  return job.tries > 0 && !job.running
}

/** Top-level entries, above the nodes too, that the back-end does not have yet. */
function addHanded(staging: Staging, inos: number[], pending: Pending, blocked: Set<number>): void {
  if (staging.backend === undefined) return
  for (const node of topLevelOf(staging, inos)) {
    const job = staging.queue.get(node.ino)
    if (job !== undefined && !isUnder(staging, node, inos)) {
      if (hasFailed(job) || blocked.has(node.ino)) pending.failed.set(node.ino, node)
      else pending.waiting++
    }
    const state = staging.backend.state(node.ino)
    if (!state.pending) continue
    if (state.tries > 0) pending.failed.set(node.ino, node)
    else pending.waiting++
  }
}

function* topLevelOf(staging: Staging, inos: number[]): Generator<StagingNode> {
  for (const ino of inos) {
    if (ino === STAGING_ROOT_INO) {
      for (const item of staging.names.entries(ino)) yield staging.names.get(item.ino)
    } else {
      const node = staging.names.find(ino)
      const top = node && staging.names.topLevel(node)
      if (top !== undefined) yield top
    }
  }
}

function isUnderIno(staging: Staging, ino: number, inos: number[]): boolean {
  const node = staging.names.find(ino)
  return node !== undefined && isUnder(staging, node, inos)
}

function isUnder(staging: Staging, node: StagingNode, inos: number[]): boolean {
  return inos.some(ino => ino === STAGING_ROOT_INO || staging.names.isWithin(node.ino, ino))
}

function resultOf(staging: Staging, total: number, failed: StagingNode[]): WaitResult {
  const errors = failed.map(node => ({
    path: staging.names.pathOf(node),
    error: staging.publicationOf(node).error ?? 'something in it could not be published',
  }))
  return { pinned: Math.max(0, total - failed.filter(node => node.type === 'file').length), failed: errors }
}

async function countFiles(staging: Staging, inos: number[]): Promise<number> {
  let files = 0
  let until = performance.now() + SLICE_MS
  const stack = [...inos]
  for (let ino = stack.pop(); ino !== undefined; ino = stack.pop()) {
    if (performance.now() > until) {
      await sleep(0)
      until = performance.now() + SLICE_MS
    }
    const node = staging.names.find(ino)
    if (node?.type === 'directory') for (const item of staging.names.entries(ino)) stack.push(item.ino)
    else if (node !== undefined && !staging.local.covers(node)) files++
  }
  return files
}
