/**
 * Where to listen.
 *
 * Invariant: addresses that were asked for are used as they are, and fail loudly when they cannot be. The default
 * ones give way: another port where the usual one is taken (by a Kubo, or another daemon of ours), no IPv6 where
 * there is none.
 */
import { createServer } from 'node:net'
import { multiaddr } from '@multiformats/multiaddr'
import type { NodeConfig } from './node-config.js'

export async function listenAddresses({ listen, listenElsewhere }: NodeConfig): Promise<string[]> {
  if (!listenElsewhere) return listen
  const usable = await Promise.all(listen.map(usableAddress))
  return usable.filter(address => address !== undefined)
}

async function usableAddress(text: string): Promise<string | undefined> {
  const [host, port] = multiaddr(text).getComponents()
  const problem = await tryListening(host?.value ?? '', Number(port?.value))
  if (problem === undefined) return text
  return problem === 'EADDRINUSE' ? text.replace(/\/tcp\/\d+$/, '/tcp/0') : undefined
}

/** The error code, or undefined when the port is free. */
function tryListening(host: string, port: number): Promise<string | undefined> {
  return new Promise(resolve => {
    const server = createServer()
    server.once('error', (err: NodeJS.ErrnoException) => resolve(err.code ?? err.message))
    server.listen({ host, port, ipv6Only: host.includes(':'), exclusive: true }, () =>
      server.close(() => resolve(undefined)),
    )
  })
}
