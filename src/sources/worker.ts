/**
 * The network worker: the thread that all sources live in.
 *
 * Invariant: the only state is what is being fetched; the main thread can lose this thread at any moment and ask
 * another one the same questions. Blocks are verified before they leave.
 * Why: hashing and the handling of sockets would otherwise stand between the kernel and its replies.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { reuse } from '../core/block-memory.js'
import { CID } from '../core/cid.js'
import { CidfsError, codeOf, type ErrorCode, messageOf } from '../core/errors.js'
import { type CallMessage, Calls, isCallMessage } from './calls.js'
import { parseGatewayUrl, parseKuboUrl } from './config.js'
import { Engine } from './engine.js'
import { GatewaySource } from './gateway.js'
import { KuboSource } from './kubo.js'
import { PeersSource } from './peers.js'
import type { Race } from './race.js'
import type { Source } from './source.js'
import { WorkerNode } from './worker-node.js'
import type {
  BlockPlace,
  FromWorker,
  MainMethods,
  ToWorker,
  WorkerConfig,
  WorkerMethods,
} from './worker-protocol.js'
import { WorkerQuestions } from './worker-questions.js'

/** The main thread answers within milliseconds, unless it is stuck. */
const LOCATE_MS = 10_000

if (parentPort === null) throw new Error('worker.js runs as a worker thread only')
const port = parentPort
const config = workerData as WorkerConfig
const post = (message: CallMessage) => port.postMessage(message)
const node = new WorkerNode(config, { locate })
const sources = sourcesOf(config)
const questions = new WorkerQuestions(config, sources, node)
const handlers = { ...node.handlers, ...questions.handlers }
const calls = new Calls<MainMethods, WorkerMethods>(post, handlers)
const engine = new Engine(sources)
const races = new Map<number, Race>()
node.onPeer = () => engine.recovered('peer')
node.start()

port.on('message', (message: ToWorker) => {
  if (isCallMessage(message)) {
    calls.receive(message)
    return
  }
  switch (message.op) {
    case 'fetch':
      startFetch(message)
      break
    case 'cancel':
      cancelFetch(message.id)
      break
    case 'raise':
      races.get(message.id)?.raise()
      break
    case 'reuse':
      reuse(message.buffer)
      break
    case 'status':
      void sendStatus(message.id)
      break
    case 'close':
      void close()
  }
})

/** Where blocks lie that a peer asks for. */
async function locate(cids: readonly CID[]): Promise<(BlockPlace | undefined)[]> {
  const places = await calls.call('locate', { cids: cids.map(cid => cid.bytes) }, { deadlineMs: LOCATE_MS })
  return places.map(place => place ?? undefined)
}

function sourcesOf(config: WorkerConfig): Source[] {
  const sources: Source[] = config.gateways.map(url => new GatewaySource(parseGatewayUrl(url)))
  if (config.kubo !== undefined) sources.unshift(new KuboSource(parseKuboUrl(config.kubo)))
  if (node.bitswap !== undefined) sources.unshift(new PeersSource(node.bitswap.client))
  return sources
}

function startFetch({ id, cid, deadlineMs, priority }: Extract<ToWorker, { op: 'fetch' }>): void {
  try {
    const race = engine.start(CID.decode(cid), { deadlineMs, priority })
    races.set(id, race)
    // What was cancelled is not in the table any more: nobody waits for an answer.
    race.promise.then(
      bytes => races.delete(id) && sendBlock(id, bytes),
      (err: unknown) => races.delete(id) && sendFailure(id, err),
    )
  } catch (err) {
    sendFailure(id, err)
  }
}

function cancelFetch(id: number): void {
  const race = races.get(id)
  races.delete(id)
  race?.cancel()
}

function sendBlock(id: number, bytes: Uint8Array): void {
  const { buffer } = bytes
  // Sources promise an ArrayBuffer per block; a shared one must not be torn from under its other users.
  const own = buffer instanceof ArrayBuffer && buffer.byteLength === bytes.byteLength
  const message: FromWorker = { op: 'block', id, bytes: new Uint8Array(own ? buffer : bytes) }
  port.postMessage(message, [message.bytes.buffer as ArrayBuffer])
}

function sendFailure(id: number, err: unknown): void {
  const code: ErrorCode = codeOf(err) ?? 'IO'
  port.postMessage({ op: 'failed', id, code, message: messageOf(err) } satisfies FromWorker)
}

async function sendStatus(id: number): Promise<void> {
  const sources = await engine.status()
  port.postMessage({ op: 'status', id, sources } satisfies FromWorker)
}

async function close(): Promise<void> {
  races.clear()
  calls.end(new CidfsError('INTERRUPTED', 'shutting down'))
  await engine.close()
  await questions.close()
  await node.close()
  port.close()
}
