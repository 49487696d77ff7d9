/**
 * libp2p's TLS, spoken by Node's TLS on the socket itself.
 *
 * Invariant: on the wire and in what it verifies it is `@libp2p/tls`, whose certificates and checks it uses; a
 * connection that is no plain socket, or that somebody has read ahead of, is left to that package. Whatever goes
 * wrong ends the socket.
 * Why: `@libp2p/tls` puts a stream of JavaScript between the socket and Node's TLS, through which every encrypted
 * byte passes once more: a sixth of the processor time of fetching by bitswap.
 *
 * Specification: https://github.com/libp2p/specs/blob/master/tls/tls.md
 */
import '../core/with-resolvers.js'
import { Socket } from 'node:net'
import { connect, createSecureContext, type SecureContext, TLSSocket } from 'node:tls'
import {
  type ConnectionEncrypter,
  type MessageStream,
  type PeerId,
  type SecureConnectionOptions,
  type SecuredConnection,
  serviceCapabilities,
} from '@libp2p/interface'
import { PROTOCOL, type TLSComponents, tls } from '@libp2p/tls'
import { generateCertificate, toMessageStream, verifyPeerCertificate } from '@libp2p/tls/utils'

/** The name in ALPN of those who negotiate the muxer later. */
const NO_EARLY_MUXER = 'libp2p'

/** A connection encrypter, to be used instead of `tls()`. */
export function fastTls(): (components: TLSComponents) => ConnectionEncrypter {
  return components => new FastTls(components)
}

class FastTls implements ConnectionEncrypter {
  readonly protocol = PROTOCOL
  readonly [Symbol.toStringTag] = 'fast-tls'
  readonly [serviceCapabilities] = ['@libp2p/connection-encryption']
  readonly #components: TLSComponents
  readonly #slow: ConnectionEncrypter
  /** Good for as long as the process lives: it names our key, not a peer. */
  #context: Promise<SecureContext> | undefined

  constructor(components: TLSComponents) {
    this.#components = components
    this.#slow = tls()(components)
  }

  async secureOutbound(
    connection: MessageStream,
    options: SecureConnectionOptions = {},
  ): Promise<SecuredConnection> {
    const socket = takeSocket(connection)
    return socket === undefined
      ? this.#slow.secureOutbound(connection, options)
      : this.#secure(connection, socket, false, options)
  }

  async secureInbound(
    connection: MessageStream,
    options: SecureConnectionOptions = {},
  ): Promise<SecuredConnection> {
    const socket = takeSocket(connection)
    return socket === undefined
      ? this.#slow.secureInbound(connection, options)
      : this.#secure(connection, socket, true, options)
  }

  async #secure(
    connection: MessageStream,
    raw: Socket,
    isServer: boolean,
    options: SecureConnectionOptions,
  ): Promise<SecuredConnection> {
    try {
      this.#context ??= this.#createContext()
      const socket = this.#wrap(raw, await this.#context, isServer, options)
      socket.on('error', err => void leaveOpenSsl().then(() => connection.abort(err)))
      await handshake(socket, options.signal)
      await leaveOpenSsl()
      const remotePeer = await verify(socket, options.remotePeer)
      const streamMuxer = this.#muxers.get(socket.alpnProtocol || NO_EARLY_MUXER)
      return {
        remotePeer,
        connection: toMessageStream(connection, socket),
        ...(streamMuxer && { streamMuxer }),
      }
    } catch (err) {
      await leaveOpenSsl()
      connection.abort(err as Error)
      throw err
    }
  }

  get #muxers() {
    return this.#components.upgrader.getStreamMuxers()
  }

  async #createContext(): Promise<SecureContext> {
    const { cert, key } = await generateCertificate(this.#components.privateKey)
    return createSecureContext({ cert, key, minVersion: 'TLSv1.3' })
  }

  #wrap(
    socket: Socket,
    secureContext: SecureContext,
    isServer: boolean,
    { skipStreamMuxerNegotiation }: SecureConnectionOptions,
  ): TLSSocket {
    const muxers = skipStreamMuxerNegotiation === true ? [] : [...this.#muxers.keys()]
    // Certificates are signed by those who show them; `verify` looks at what is in them.
    const options = { secureContext, rejectUnauthorized: false, ALPNProtocols: [...muxers, NO_EARLY_MUXER] }
    return isServer
      ? new TLSSocket(socket, { ...options, isServer, requestCert: true })
      : connect({ ...options, socket })
  }
}

/**
 * The socket of a connection, which hears nothing of its bytes from now on. What came between the choice of the
 * protocol and this call lies in the buffer of the socket, where Node's TLS finds it.
 */
function takeSocket(connection: MessageStream): Socket | undefined {
  const { socket } = connection as { socket?: unknown }
  if (!(socket instanceof Socket) || socket.destroyed || connection.readBufferLength > 0) return undefined
  socket.removeAllListeners('data')
  socket.pause()
  return socket
}

/**
 * Events of the handshake, and the promises that they settle, run inside of OpenSSL: Node crashes when the socket is
 * destroyed there, as it is for a peer that is not let in.
 */
function leaveOpenSsl(): Promise<void> {
  return new Promise(resolve => setImmediate(resolve))
}

/** @throws Error when it fails, the peer hangs up, or the signal fires. */
function handshake(socket: TLSSocket, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (end: () => void) => {
      signal?.removeEventListener('abort', onAbort)
      socket.off('secure', onSecure).off('error', onError).off('close', onClose)
      end()
    }
    const onAbort = () => settle(() => reject(signal?.reason))
    const onSecure = () => settle(resolve)
    const onError = (err: Error) => settle(() => reject(err))
    const onClose = () => settle(() => reject(new Error('the peer hung up during the handshake')))
    socket.on('secure', onSecure).on('error', onError).on('close', onClose)
    signal?.addEventListener('abort', onAbort)
    if (signal?.aborted) onAbort()
  })
}

/** Who is at the other end. @throws Error unless the certificate proves it, and it is whom we expect. */
async function verify(socket: TLSSocket, expected: PeerId | undefined): Promise<PeerId> {
  const { raw } = socket.getPeerCertificate()
  if (raw === undefined) throw new Error('the peer showed no certificate')
  const peer = await verifyPeerCertificate(raw, expected)
  if (socket.destroyed) throw new Error('the peer hung up during the handshake')
  return peer
}
