/** A real `ipfs` as an oracle: its command, with a repository of its own, never a daemon, never the network. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const binary = process.env.CIDFS_TEST_IPFS

/** Why tests against Kubo are skipped; false when they are not. */
export const withoutKubo: string | false =
  binary === undefined ? 'CIDFS_TEST_IPFS does not name an ipfs binary: not compared with Kubo' : false

export class Kubo {
  readonly directory = mkdtempSync(join(tmpdir(), 'cidfs-kubo-'))

  constructor() {
    this.#run('init', '--profile=test,unixfs-v1-2025')
  }

  /** The CID `ipfs add` computes of a file or directory. */
  add(path: string, ...options: string[]): string {
    return this.#run('add', '--offline', '--only-hash', '-r', '-Q', ...options, path).trim()
  }

  #run(...args: string[]): string {
    const env = { ...process.env, IPFS_PATH: join(this.directory, 'repo'), HOME: this.directory }
    return execFileSync(binary!, args, {
      env,
      encoding: 'utf8',
      timeout: 60_000,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
  }

  remove(): void {
    rmSync(this.directory, { recursive: true, force: true })
  }
}
