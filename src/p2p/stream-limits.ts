/**
 * A limit on what comes in on each stream of a libp2p service.
 *
 * Invariant: a stream that brings more is aborted before the service has read it all. Nothing else changes for it.
 * Why: kad-dht takes messages of 4 MiB, and parses them into a hundred times as much when they are all addresses.
 * Why not libp2p's middleware: `libp2p` 3.3 appends the handler of each incoming stream to the registered list.
 */
import type { Connection, Stream, StreamHandler } from '@libp2p/interface'
import type { kadDHT } from '@libp2p/kad-dht'

type ServiceComponents = Parameters<ReturnType<typeof kadDHT>>[0]
type Components = Pick<ServiceComponents, 'connectionManager' | 'registrar'>

/** The components of a node, to be given to one service. */
export function limitStreams<C extends Components>(components: C, maxBytes: number): C {
  const { connectionManager, registrar } = components
  const limit = (stream: Stream): Stream => {
    let bytes = 0
    stream.addEventListener('message', ({ data }) => {
      bytes += data.byteLength
      if (bytes > maxBytes) stream.abort(new Error(`more than ${maxBytes} bytes`))
    })
    return stream
  }
  const openStream: Components['connectionManager']['openStream'] = async (...args) =>
    limit(await connectionManager.openStream(...args))
  const handle: Components['registrar']['handle'] = (protocol, handler, options) =>
    registrar.handle(protocol, limited(handler), options)
  // the service listens to the stream in the same turn, so that nothing is lost to this listener
  const limited =
    (handler: StreamHandler): StreamHandler =>
    (stream: Stream, connection: Connection) =>
      handler(limit(stream), connection)
  return replaced(components, {
    connectionManager: replaced(connectionManager, { openStream }),
    registrar: replaced(registrar, { handle }),
  } as Partial<C>)
}

/** The same object with some properties of it replaced. Methods keep their `this`: they have private state. */
function replaced<T extends object>(target: T, replacements: Partial<T>): T {
  return new Proxy(target, {
    get: (_, key) => {
      if (Object.hasOwn(replacements, key)) return Reflect.get(replacements, key)
      const value: unknown = Reflect.get(target, key)
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}
