/**
 * `fetch` over Unix sockets, for libraries that offer no way to hand them a connection.
 *
 * Invariant: only URLs that `socketBaseUrl` made are affected; every other `fetch` goes where it went before.
 * Why: `kubo-rpc-client` calls the global `fetch` with a URL and nothing else, and a URL cannot name a socket.
 * The global dispatcher is the one place where the two can be brought together.
 */
import { createHash } from 'node:crypto'
import { Dispatcher, getGlobalDispatcher, Pool, setGlobalDispatcher } from 'undici'

/** `.invalid` is reserved by RFC 2606: such a name can never be somebody's host. */
const SUFFIX = '.socket.invalid'

let router: SocketRouter | undefined

/** A base URL, without a slash at its end, whose requests go to the socket at this absolute path. */
export function socketBaseUrl(socketPath: string): string {
  if (router === undefined) {
    router = new SocketRouter(getGlobalDispatcher())
    setGlobalDispatcher(router)
  }
  return router.baseUrl(socketPath)
}

class SocketRouter extends Dispatcher {
  readonly #next: Dispatcher
  readonly #pools = new Map<string, Pool>()

  constructor(next: Dispatcher) {
    super()
    this.#next = next
  }

  baseUrl(socketPath: string): string {
    const host = createHash('sha256').update(socketPath).digest('hex').slice(0, 32) + SUFFIX
    const origin = `http://${host}`
    if (!this.#pools.has(origin)) {
      // Calls have timeouts of their own: pinning is silent for as long as it takes.
      this.#pools.set(origin, new Pool(origin, { socketPath, headersTimeout: 0, bodyTimeout: 0 }))
    }
    return origin
  }

  override dispatch(options: Dispatcher.DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    const pool = this.#pools.get(String(options.origin))
    // Kubo refuses hosts it does not know; through a socket, everybody is local.
    if (pool !== undefined) return pool.dispatch({ ...options, origin: 'http://localhost' }, handler)
    return this.#next.dispatch(options, handler)
  }

  override close(callback?: () => void): Promise<void> {
    const closed = Promise.all([...this.#pools.values(), this.#next].map(dispatcher => dispatcher.close()))
    return closed.then(() => callback?.())
  }

  override destroy(...args: unknown[]): Promise<void> {
    const [err, callback] = args.length > 1 || typeof args[0] !== 'function' ? args : [null, args[0]]
    const reason = err instanceof Error ? err : null
    const ended = Promise.all([...this.#pools.values(), this.#next].map(each => each.destroy(reason)))
    return ended.then(() => (typeof callback === 'function' ? callback() : undefined))
  }
}
