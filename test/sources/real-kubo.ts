/** A Kubo of the test's own: offline, on loopback, in a temporary directory, gone when the test is. */
import { execFile, spawn } from 'node:child_process'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { Test } from 'tap'

const START_TIMEOUT_MS = 20_000

/** The binary to test with. */
export const ipfsBinary = process.env.CIDFS_TEST_IPFS

/** For the `skip` of a test: says aloud why, where there is no Kubo. */
export const withoutKubo = ipfsBinary === undefined ? 'CIDFS_TEST_IPFS names no ipfs binary' : false

export interface RealKubo {
  gateway: string
  rpc: string
  socket: string
  /** Runs `ipfs` with these arguments; returns what it prints, trimmed. */
  ipfs(args: string[], input?: Uint8Array): Promise<string>
}

const SETTINGS: [string, string][] = [
  ['Bootstrap', '[]'],
  ['Routing.Type', '"none"'],
  ['Discovery.MDNS.Enabled', 'false'],
  ['AutoConf.Enabled', 'false'],
  ['AutoTLS.Enabled', 'false'],
  ['Swarm.RelayClient.Enabled', 'false'],
  ['Swarm.DisableNatPortMap', 'true'],
  ['Addresses.Swarm', '["/ip4/127.0.0.1/tcp/0"]'],
  ['Addresses.Gateway', '"/ip4/127.0.0.1/tcp/0"'],
]

/** Ends with the test. */
export async function realKubo(t: Test): Promise<RealKubo> {
  const binary = ipfsBinary ?? ''
  const home = await mkdtemp(join(tmpdir(), 'cidfs-kubo-'))
  const env = { ...process.env, IPFS_PATH: home }
  t.teardown(() => rm(home, { recursive: true, force: true }))
  const ipfs = async (args: string[], input?: Uint8Array): Promise<string> => {
    const running = promisify(execFile)(binary, args, { env, timeout: START_TIMEOUT_MS })
    running.child.stdin?.end(input)
    return (await running).stdout.trim()
  }
  await ipfs(['init', '--profile=test'])
  const socket = join(home, 'rpc.sock')
  const api = JSON.stringify(['/ip4/127.0.0.1/tcp/0', `/unix${socket}`])
  for (const [key, value] of [...SETTINGS, ['Addresses.API', api] as const]) {
    await ipfs(['config', '--json', key, value])
  }
  await startDaemon(t, binary, env)
  const gateway = (await readFile(join(home, 'gateway'), 'utf8')).trim()
  const port = /\/tcp\/(\d+)/.exec(await readFile(join(home, 'api'), 'utf8'))?.[1]
  return { gateway, rpc: `http://127.0.0.1:${port}`, socket, ipfs }
}

async function startDaemon(t: Test, binary: string, env: NodeJS.ProcessEnv): Promise<void> {
  const daemon = spawn(binary, ['daemon', '--offline'], { env, stdio: ['ignore', 'pipe', 'pipe'] })
  const exited = new Promise<void>(resolve => daemon.once('exit', () => resolve()))
  t.teardown(async () => {
    daemon.kill('SIGTERM')
    const timer = setTimeout(() => daemon.kill('SIGKILL'), 5_000)
    await exited
    clearTimeout(timer)
  })
  let output = ''
  await new Promise<void>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`no Kubo in time: ${output}`)), START_TIMEOUT_MS)
    const onData = (chunk: Buffer): void => {
      output += chunk
      if (!output.includes('Daemon is ready')) return
      clearTimeout(timer)
      resolve()
    }
    daemon.stdout.on('data', onData)
    daemon.stderr.on('data', onData)
    void exited.then(() => {
      clearTimeout(timer)
      reject(new Error(`Kubo ended: ${output}`))
    })
  })
}
