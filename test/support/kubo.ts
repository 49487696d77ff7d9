/**
 * A real Kubo on loopback.
 *
 * Invariant: it talks to nobody but the nodes it is told to connect to: no bootstrap, routing, discovery,
 * relay, telemetry or remote configuration. Its repository is a temporary directory.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { importScript } from './root.js'
import { type RunOptions, type RunResult, runOk } from './run.js'
import { atEnd, type Owner, tempDir } from './temp.js'

const START_TIMEOUT_MS = 60_000
const STOP_TIMEOUT_MS = 10_000

/** The binary, or undefined: `node scripts/kubo.mjs` builds it. */
export async function findKubo(): Promise<string | undefined> {
  return (await importScript<{ findKubo(): string | undefined }>('kubo.mjs')).findKubo()
}

/** For the option `skip` of a test: false, or why it cannot run. */
export async function missingKubo(): Promise<string | false> {
  return (await findKubo()) === undefined ? 'there is no Kubo: build it with node scripts/kubo.mjs' : false
}

export interface KuboOptions {
  /** Configuration profiles besides `test`, for example `unixfs-v1-2025`. */
  profiles?: string[]
  /** Merged into the sections of the configuration. */
  config?: Record<string, object>
}

export class KuboNode {
  private daemon: ChildProcess | undefined
  /** RPC, `http://127.0.0.1:port`. */
  rpcUrl = ''
  gatewayUrl = ''

  private constructor(
    private readonly binary: string,
    readonly repo: string,
  ) {}

  /** Initialises a repository and starts the daemon; both end with the test. */
  static async start(t: Owner, options: KuboOptions = {}): Promise<KuboNode> {
    const node = await KuboNode.init(t, options)
    await node.startDaemon()
    return node
  }

  /** A repository without a daemon: enough for `ipfs add --only-hash` and the like. */
  static async init(t: Owner, options: KuboOptions = {}): Promise<KuboNode> {
    const binary = await findKubo()
    if (binary === undefined) throw new Error(String(await missingKubo()))
    const node = new KuboNode(binary, await tempDir(t, 'cidfs-kubo-'))
    atEnd(t, () => node.stop()) // before its directory goes: teardowns run last in, first out
    await node.ipfs(['init', '--empty-repo', '--profile', ['test', ...(options.profiles ?? [])].join(',')])
    await node.configure(options.config ?? {})
    return node
  }

  private async configure(extra: Record<string, object>): Promise<void> {
    const file = join(this.repo, 'config')
    const config = JSON.parse(await readFile(file, 'utf8')) as Record<string, object>
    const isolation: Record<string, object> = {
      Routing: { Type: 'none', DelegatedRouters: [] },
      Discovery: { MDNS: { Enabled: false } },
      AutoConf: { Enabled: false },
      AutoTLS: { Enabled: false },
      HTTPRetrieval: { Enabled: false },
      Swarm: { DisableNatPortMap: true, RelayClient: { Enabled: false }, RelayService: { Enabled: false } },
      AutoNAT: { ServiceMode: 'disabled' },
      Version: { SwarmCheckEnabled: false },
      Plugins: { Plugins: { telemetry: { Disabled: true } } },
    }
    config.Bootstrap = []
    for (const [section, values] of [...Object.entries(isolation), ...Object.entries(extra)]) {
      config[section] = { ...config[section], ...values }
    }
    await writeFile(file, JSON.stringify(config))
  }

  async startDaemon(): Promise<void> {
    const daemon = spawn(this.binary, ['daemon'], { env: this.env(), stdio: ['ignore', 'pipe', 'pipe'] })
    this.daemon = daemon
    let output = ''
    for (const stream of [daemon.stdout, daemon.stderr]) {
      stream.on('data', chunk => {
        output = (output + chunk).slice(-10_000)
      })
    }
    const end = performance.now() + START_TIMEOUT_MS
    while (!output.includes('Daemon is ready')) {
      if (daemon.exitCode !== null || performance.now() > end)
        throw new Error(`Kubo did not start: ${output}`)
      await sleep(20)
    }
    this.rpcUrl = toUrl(await readFile(join(this.repo, 'api'), 'utf8'))
    this.gatewayUrl = (await readFile(join(this.repo, 'gateway'), 'utf8')).trim()
  }

  /** Of the daemon, which runs. */
  get pid(): number {
    return this.daemon!.pid!
  }

  /** `ipfs …` for others to run. */
  command(args: string[]): string[] {
    return ['env', `IPFS_PATH=${this.repo}`, 'IPFS_TELEMETRY=off', this.binary, ...args]
  }

  private env(): NodeJS.ProcessEnv {
    return { ...process.env, IPFS_PATH: this.repo, IPFS_TELEMETRY: 'off', GOLOG_LOG_LEVEL: 'error' }
  }

  /** Runs `ipfs …` against this node. @throws Error when it fails. */
  ipfs(args: string[], options: RunOptions = {}): Promise<RunResult> {
    return runOk(this.binary, args, { ...options, env: this.env() })
  }

  /** Adds a file or directory; returns its CID. */
  async add(path: string, flags: string[] = []): Promise<string> {
    return (await this.ipfs(['add', '-r', '-Q', ...flags, path], { timeoutMs: 120_000 })).stdout.trim()
  }

  /** Blocks and all of a CAR file. */
  async importCar(file: string): Promise<void> {
    await this.ipfs(['dag', 'import', '--pin-roots=false', file])
  }

  async cat(path: string, timeoutMs = 30_000): Promise<Buffer> {
    return (await this.ipfs(['cat', path], { timeoutMs })).bytes
  }

  /** Recursive pins. */
  async pins(): Promise<string[]> {
    const { stdout } = await this.ipfs(['pin', 'ls', '--type', 'recursive', '--quiet'])
    return stdout.split('\n').filter(Boolean)
  }

  async peerId(): Promise<string> {
    return (await this.ipfs(['id', '-f', '<id>'])).stdout.trim()
  }

  /** TCP multiaddrs with peer id. */
  async addresses(): Promise<string[]> {
    const { stdout } = await this.ipfs(['id', '-f', '<addrs>'])
    return stdout.split('\n').filter(address => address.includes('/tcp/') && address.includes('/p2p/'))
  }

  /** Opens a connection and keeps it: without it, bitswap peers come and go. */
  async connect(other: KuboNode): Promise<void> {
    const [address] = await other.addresses()
    if (address === undefined) throw new Error('the other Kubo listens nowhere')
    await this.ipfs(['swarm', 'peering', 'add', address])
    await this.ipfs(['swarm', 'connect', address])
  }

  /** Kubo's own mount of /ipfs, /ipns and /mfs below `dir`; ends with the daemon. Needs FUSE. */
  async mount(dir: string): Promise<{ ipfs: string; ipns: string; mfs: string }> {
    const points = { ipfs: join(dir, 'ipfs'), ipns: join(dir, 'ipns'), mfs: join(dir, 'mfs') }
    for (const point of Object.values(points)) await mkdir(point, { recursive: true })
    await this.ipfs(['mount', '-f', points.ipfs, '-n', points.ipns, '-m', points.mfs])
    return points
  }

  /** Ends the daemon and waits for it; does nothing when it does not run. */
  async stop(): Promise<void> {
    const { daemon } = this
    this.daemon = undefined
    if (daemon === undefined || daemon.exitCode !== null || daemon.signalCode !== null) return
    const timer = setTimeout(() => daemon.kill('SIGKILL'), STOP_TIMEOUT_MS)
    daemon.kill('SIGTERM')
    await once(daemon, 'exit')
    clearTimeout(timer)
  }
}

/** `/ip4/127.0.0.1/tcp/5001` as a URL. */
function toUrl(multiaddr: string): string {
  const [, , host, , port] = multiaddr.trim().split('/')
  return `http://${host}:${port}`
}
