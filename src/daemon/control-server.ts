/**
 * The control socket of a daemon: who may connect, how long a request lives, how the socket ends.
 *
 * Invariant: the socket file is never readable by others, not even for a moment, and belongs to a living
 * daemon: a stale one is replaced, one that answers is left alone. Closing ends every request except
 * `/unmount` and `/upgrade`, whose answers are what the caller of the stop is waiting for.
 */
import { mkdir, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { CidfsError } from '../core/errors.js'
import { logger } from '../core/log.js'
import type { DaemonActions } from './control-protocol.js'
import { answer } from './control-routes.js'
import { controlSocketPath, register } from './registry.js'

const log = logger('daemon:control')

/** How long requests that were told to end may take, before their connections are cut. */
const CLOSE_GRACE_MS = 1000

export interface ControlServer {
  socketPath: string
  /** Stops listening and ends what runs, but for `/unmount` and `/upgrade`; takes about a second at most. */
  close(options?: CloseOptions): Promise<void>
}

export interface CloseOptions {
  /** Another daemon listens at the same place next: commands wait for it. */
  keepRecord?: boolean
}

export interface ControlServerOptions {
  stateDir: string
  mountpoint: string
  keeperPid?: number | undefined
  /** The daemon before is dead, whether its socket still answers or not: threads that cannot end may hold it. */
  succeeds?: boolean
}

/**
 * Listens on the control socket of a state directory and records where it is.
 * @throws CidfsError `STATE_IN_USE`: another daemon answers there.
 */
export async function startControlServer(
  { stateDir, mountpoint, keeperPid, succeeds = false }: ControlServerOptions,
  actions: DaemonActions,
): Promise<ControlServer> {
  await mkdir(stateDir, { recursive: true, mode: 0o700 })
  const socketPath = await controlSocketPath(stateDir)
  if (!succeeds) await refuseIfAnswered(socketPath, stateDir)
  await rm(socketPath, { force: true })
  const requests = new Requests(actions)
  const server = createServer((request, response) => requests.handle(request, response))
  server.requestTimeout = 0 // a CAR may take hours
  server.keepAliveTimeout = 1000
  await listenPrivately(server, socketPath)
  const unregister = await register({ mountpoint, stateDir, socket: socketPath, keeperPid })
  log('listening on %s', socketPath)
  let closing: Promise<void> | undefined
  return {
    socketPath,
    close: ({ keepRecord = false } = {}) =>
      (closing ??= close(server, requests, keepRecord ? async () => {} : unregister)),
  }
}

async function close(server: Server, requests: Requests, unregister: () => Promise<void>): Promise<void> {
  await unregister()
  server.close()
  server.closeIdleConnections()
  await requests.end()
}

/** What runs on the socket. */
class Requests {
  private readonly running = new Map<Promise<void>, { abort: AbortController; response: ServerResponse }>()

  constructor(private readonly actions: DaemonActions) {}

  handle(request: IncomingMessage, response: ServerResponse): void {
    const abort = new AbortController()
    response.on('close', () => abort.abort())
    const done = answer(this.actions, request, response, abort.signal)
    if (request.url === '/unmount' || request.url === '/upgrade') return
    this.running.set(done, { abort, response })
    done.finally(() => this.running.delete(done))
  }

  async end(): Promise<void> {
    const running = [...this.running.values()]
    for (const { abort } of running) abort.abort()
    const timer = new AbortController()
    const grace = sleep(CLOSE_GRACE_MS, undefined, { signal: timer.signal }).catch(() => undefined)
    await Promise.race([Promise.all(this.running.keys()), grace])
    timer.abort()
    for (const { response } of running) response.destroy()
  }
}

/** The mask counts when the socket is bound, which `listen` does before it returns. */
async function listenPrivately(server: Server, path: string): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.once('listening', resolve)
    const mask = process.umask(0o177)
    try {
      server.listen(path)
    } finally {
      process.umask(mask)
    }
  })
}

async function refuseIfAnswered(path: string, stateDir: string): Promise<void> {
  const answers = await new Promise<boolean>(resolve => {
    const socket = connect(path)
    socket.once('connect', () => resolve(true) ?? socket.destroy())
    socket.once('error', () => resolve(false))
  })
  if (answers) {
    throw new CidfsError(
      'STATE_IN_USE',
      `${stateDir} is in use by another cidfs daemon; choose another --state`,
      {
        path: stateDir,
      },
    )
  }
}
