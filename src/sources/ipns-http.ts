/**
 * Places that keep records of names and speak HTTP: delegated routers, trustless gateways, a Kubo.
 *
 * Invariant: what they answer is unverified; the caller checks signatures. Nobody but the configured server is
 * contacted.
 *
 * Specification: https://specs.ipfs.tech/routing/http-routing-v1/#ipns-api,
 * https://specs.ipfs.tech/http-gateways/trustless-gateway/, https://docs.ipfs.tech/reference/kubo/rpc/
 */
import { randomBytes } from 'node:crypto'
import { CidfsError } from '../core/errors.js'
import type { KeyName } from '../p2p/ipns-name.js'
import type { ValueRouting } from '../p2p/ipns-network.js'
import type { HttpAddress } from './config.js'
import { firstLine, getFromGateway } from './gateway.js'
import { type HttpAnswer, HttpOrigin } from './http-origin.js'
import { rpcMessage } from './kubo.js'

const IPNS_RECORD = 'application/vnd.ipfs.ipns-record'
/** More than a record may have: a longer answer is an error, not cut. */
const MAX_ANSWER_BYTES = 16 * 1024
const MAX_RPC_BYTES = 256 * 1024
const CONNECTIONS = 4
/** "There is none", in the answers of those that know no 404. */
const ABSENT = /not found|could not find|no record/i

export interface HttpRouting extends ValueRouting {
  close(): Promise<void>
}

/** `/routing/v1/ipns/<name>` of a delegated router. */
export function routerRecords(address: HttpAddress): HttpRouting {
  const http = new HttpOrigin(address, CONNECTIONS)
  const pathOf = (name: KeyName) => `/routing/v1/ipns/${name.text}`
  return {
    name: `router ${address.name}`,
    async *get(name, signal) {
      const request = { method: 'GET', path: pathOf(name), accept: IPNS_RECORD, signal } as const
      yield* recordIn(await http.request({ ...request, limitBytes: MAX_ANSWER_BYTES }))
    },
    async put(name, body, signal) {
      const request = { method: 'PUT', path: pathOf(name), contentType: IPNS_RECORD, body, signal } as const
      checkTaken(await http.request({ ...request, limitBytes: MAX_ANSWER_BYTES }))
    },
    close: () => http.close(),
  }
}

/** `/ipns/<name>?format=ipns-record` of a gateway; nothing can be given to one. */
export function gatewayRecords(address: HttpAddress): HttpRouting {
  const http = new HttpOrigin(address, CONNECTIONS)
  return {
    name: `gateway ${address.name}`,
    async *get(name, signal) {
      const path = `/ipns/${name.text}?format=ipns-record`
      const request = { method: 'GET', accept: IPNS_RECORD, limitBytes: MAX_ANSWER_BYTES, signal } as const
      yield* recordIn(await getFromGateway(http, address, path, request))
    },
    close: () => http.close(),
  }
}

/** `routing/get` and `routing/put` of a Kubo: its own records, and those of the routing that it uses. */
export function kuboRecords(address: HttpAddress): HttpRouting {
  const http = new HttpOrigin(address, CONNECTIONS)
  const post = (path: string, signal: AbortSignal, form?: Form) =>
    http.request({ method: 'POST', path, signal, limitBytes: MAX_RPC_BYTES, ...form })
  return {
    name: `kubo ${address.name}`,
    async *get(name, signal) {
      const answer = await post(`/api/v0/routing/get?arg=/ipns/${name.text}`, signal)
      if (answer.status === 200) yield* valuesIn(answer)
      else if (!ABSENT.test(rpcMessage(answer))) throw failure(answer, rpcMessage(answer))
    },
    async put(name, record, signal) {
      const path = `/api/v0/routing/put?arg=/ipns/${name.text}&allow-offline=true`
      const answer = await post(path, signal, formOf(record))
      if (answer.status !== 200) throw failure(answer, rpcMessage(answer))
    },
    close: () => http.close(),
  }
}

function* recordIn(answer: HttpAnswer): Generator<Uint8Array> {
  const type = String(answer.headers['content-type'] ?? '')
  if (answer.status === 200 && type.startsWith(IPNS_RECORD)) yield answer.body
  // routers say so with 404, older ones with 200 and a sentence
  else if (answer.status !== 404 && !ABSENT.test(firstLine(answer.body))) {
    throw failure(answer, firstLine(answer.body))
  }
}

function checkTaken(answer: HttpAnswer): void {
  if (answer.status < 200 || answer.status >= 300) throw failure(answer, firstLine(answer.body))
}

/** Lines of JSON; those of type 5 (`routing.Value`) carry a value. */
function* valuesIn(answer: HttpAnswer): Generator<Uint8Array> {
  for (const line of Buffer.from(answer.body).toString().split('\n')) {
    const event = line.trim() === '' ? undefined : (JSON.parse(line) as { Type?: unknown; Extra?: unknown })
    if (event?.Type === 5 && typeof event.Extra === 'string') yield Buffer.from(event.Extra, 'base64')
  }
}

interface Form {
  contentType: string
  body: Uint8Array
}

function formOf(file: Uint8Array): Form {
  const boundary = `cidfs-${randomBytes(16).toString('hex')}`
  const disposition = 'content-disposition: form-data; name="file"; filename="record"'
  const head = `--${boundary}\r\n${disposition}\r\ncontent-type: application/octet-stream\r\n\r\n`
  const body = Buffer.concat([Buffer.from(head), file, Buffer.from(`\r\n--${boundary}--\r\n`)])
  return { contentType: `multipart/form-data; boundary=${boundary}`, body }
}

function failure({ status }: HttpAnswer, said: string): CidfsError {
  return new CidfsError('UNREACHABLE', `HTTP ${status}${said === '' ? '' : `: ${said}`}`)
}
