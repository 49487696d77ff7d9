/**
 * The network worker: the thread that all sources live in.
 *
 * Invariant: the only state is what is being fetched; the main thread can lose this thread at any moment and ask
 * another one the same questions. Blocks are verified before they leave.
 * Why: hashing and the handling of sockets would otherwise stand between the kernel and its replies.
 */
import { parentPort, workerData } from 'node:worker_threads'
import { CID } from '../core/cid.js'
import { codeOf, type ErrorCode, messageOf } from '../core/errors.js'
import { parseGatewayUrl, parseKuboUrl } from './config.js'
import { Engine } from './engine.js'
import { GatewaySource } from './gateway.js'
import { KuboSource } from './kubo.js'
import type { Race } from './race.js'
import type { Source } from './source.js'
import type { FromWorker, ToWorker, WorkerConfig } from './worker-protocol.js'

if (parentPort === null) throw new Error('worker.js runs as a worker thread only')
const port = parentPort
const engine = new Engine(sourcesOf(workerData as WorkerConfig))
const races = new Map<number, Race>()

port.on('message', (message: ToWorker) => {
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
    case 'status':
      void sendStatus(message.id)
      break
    case 'close':
      void close()
  }
})

function sourcesOf(config: WorkerConfig): Source[] {
  const gateways = config.gateways.map(url => new GatewaySource(parseGatewayUrl(url)))
  return config.kubo === undefined ? gateways : [new KuboSource(parseKuboUrl(config.kubo)), ...gateways]
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
  await engine.close()
  port.close()
}
