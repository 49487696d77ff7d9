/**
 * Takes streams of certain protocols from a connection before libp2p negotiates them.
 *
 * Invariant: only a stream whose first bytes are a proposal of one of these protocols, whole, is taken; every other
 * goes on to libp2p as if nobody had looked at it, at once or, when nothing comes, soon. Without the two members of
 * a connection that this looks at, nothing is taken.
 * Why: Kubo sends each block on a stream of its own, with the proposal in front of it. What libp2p does for a stream
 * (timers, a record of the peer that is decoded and encoded, a chain of promises) took a quarter of the processor
 * time of fetching blocks of 256 KiB.
 *
 * Specification: https://github.com/multiformats/multistream-select
 */
import type { Connection, Stream, StreamMessageEvent } from '@libp2p/interface'
import { logger } from '../core/log.js'

const log = logger('p2p:negotiation')

const HEADER = line('/multistream/1.0.0')
/** Streams of one connection that have said nothing yet and are ours to watch; libp2p limits the others. */
const MAX_SILENT = 64
/** After which libp2p waits on, with a limit of its own. */
const SILENT_MS = 1_000

export type StreamTaker = (stream: Stream, connection: Connection) => void

type StreamListener = (event: CustomEvent<Stream>) => void

/** What we need of a `Connection` of libp2p's and do not find in its interface. */
interface Inside {
  muxer?: Pick<EventTarget, 'addEventListener' | 'removeEventListener'>
  onIncomingStream?: StreamListener
}

/** An answer for each proposal: what the first bytes of a stream are compared with. */
interface Protocol {
  name: string
  proposal: Buffer
}

/** To be called for each connection when it opens, before it has any stream. */
export function takeStreams(connection: Connection, protocols: readonly string[], take: StreamTaker): void {
  const { muxer, onIncomingStream } = connection as unknown as Inside
  if (muxer === undefined || onIncomingStream === undefined) {
    log('%s: streams of this connection take the long way', connection.id)
    return
  }
  const known = protocols.map(name => ({ name, proposal: Buffer.concat([HEADER, line(name)]) }))
  const silent = { count: 0 }
  muxer.removeEventListener('stream', onIncomingStream as (event: Event) => void)
  muxer.addEventListener('stream', event => {
    const opened = event as CustomEvent<Stream>
    if (silent.count >= MAX_SILENT || opened.detail.protocol !== '') return onIncomingStream(opened)
    silent.count++
    firstBytes(opened.detail, bytes => {
      silent.count--
      const protocol =
        bytes && known.find(({ proposal }) => bytes.subarray(0, proposal.length).equals(proposal))
      if (protocol === undefined) return passOn(opened, bytes, onIncomingStream)
      try {
        answer(opened.detail, protocol, bytes!)
        take(opened.detail, connection)
      } catch (err) {
        opened.detail.abort(err as Error)
      }
    })
  })
}

/** Calls back once, when bytes have come, or when it has been quiet for too long or is over: then without any. */
function firstBytes(stream: Stream, callback: (bytes: Buffer | undefined) => void): void {
  const finish = (bytes: Buffer | undefined) => {
    clearTimeout(timer)
    stream.removeEventListener('message', onMessage)
    stream.removeEventListener('close', onNothing)
    callback(bytes)
  }
  const onMessage = ({ data }: StreamMessageEvent) => finish(Buffer.from(data.subarray()))
  const onNothing = () => finish(undefined)
  const timer = setTimeout(onNothing, SILENT_MS)
  stream.addEventListener('message', onMessage)
  stream.addEventListener('close', onNothing)
}

/** Whoever listens next gets the bytes first. */
function passOn(opened: CustomEvent<Stream>, bytes: Buffer | undefined, next: StreamListener): void {
  if (!isOpen(opened.detail)) return
  if (bytes !== undefined) opened.detail.push(bytes)
  next(opened)
}

function answer(stream: Stream, { name, proposal }: Protocol, bytes: Buffer): void {
  stream.protocol = name
  stream.send(proposal)
  if (isOpen(stream)) stream.push(bytes.subarray(proposal.length))
}

function isOpen({ readStatus }: Stream): boolean {
  return readStatus === 'readable' || readStatus === 'paused'
}

function line(text: string): Buffer {
  return Buffer.from(`${String.fromCharCode(text.length + 1)}${text}\n`, 'latin1')
}
