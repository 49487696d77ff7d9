/**
 * Waiting until a stream takes more.
 *
 * Invariant: resolves only when what was sent before has left for the transport.
 * Why not `stream.onDrain`: it resolves at once from its second use on (`@libp2p/utils` 7.4 keeps the promise of the
 * first), so that a peer that reads slowly would fill our memory.
 */
import type { Stream, StreamCloseEvent } from '@libp2p/interface'
import { withResolvers } from '../core/with-resolvers.js'

/** @throws Error when the stream ends before, or the signal fires. */
export async function drained(stream: Stream, signal?: AbortSignal): Promise<void> {
  while (stream.writableNeedsDrain) await nextDrain(stream, signal)
}

async function nextDrain(stream: Stream, signal: AbortSignal | undefined): Promise<void> {
  signal?.throwIfAborted()
  if (stream.status !== 'open') throw new Error('the stream has ended')
  const { promise, resolve, reject } = withResolvers<void>()
  const onDrain = () => resolve()
  const onClose = ({ error }: StreamCloseEvent) => reject(error ?? new Error('the stream has ended'))
  const onAbort = () => reject(signal?.reason)
  stream.addEventListener('drain', onDrain)
  stream.addEventListener('close', onClose)
  signal?.addEventListener('abort', onAbort)
  try {
    await promise // the stream goes on sending in a microtask of its own, which comes before ours
  } finally {
    stream.removeEventListener('drain', onDrain)
    stream.removeEventListener('close', onClose)
    signal?.removeEventListener('abort', onAbort)
  }
}
