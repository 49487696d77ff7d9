/** The lines a successful `mount` prints: where things are and what to try. Every one can be pasted. */
import { accessSync, constants, realpathSync } from 'node:fs'
import { delimiter, join, relative } from 'node:path'
import type { Config } from '../daemon/config.js'
import { VERSION } from '../daemon/version.js'

/** `hello world`: small, and held by many. */
const EXAMPLE = 'bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e'

export function welcome(config: Config, pid: number, foreground: boolean): string[] {
  const dir = quote(config.mountpoint)
  const cidfs = invocation()
  return [
    `cidfs ${VERSION}: ${config.mountpoint} is mounted (pid ${pid})`,
    `  ${config.mountpoint}/ipfs/<cid>   any CID; fetched on first read, verified, then local`,
    `  ${config.mountpoint}/staging      ordinary files; each is published and pinned when it is closed`,
    `  state    ${config.stateDir}`,
    `  sources  ${sources(config)}`,
    'Try:',
    ...(hasSource(config) ? [`  cat ${dir}/ipfs/${EXAMPLE}`] : []),
    `  echo hello > ${dir}/staging/hello.txt`,
    `  ${cidfs} wait ${dir}/staging/hello.txt && ${cidfs} cid ${dir}/staging/hello.txt`,
    `  ${cidfs} status`,
    foreground ? 'Ctrl-C unmounts.' : `  ${cidfs} unmount ${dir}`,
  ]
}

function hasSource({ gateways, kubo, node }: Config): boolean {
  return gateways.length > 0 || kubo !== undefined || node !== undefined
}

function sources(config: Config): string {
  if (config.offline) return 'none (offline)'
  const { gateways, kubo, node } = config
  const names = [
    ...(node === undefined ? [] : ['peers']),
    ...(kubo === undefined ? [] : [`Kubo at ${kubo}`]),
    ...gateways,
  ]
  return names.map(withoutCredentials).join(', ') || 'none: name one with --gateway, --kubo or --peer'
}

function withoutCredentials(name: string): string {
  return name.replace(/\/\/[^/@]*@/, '//')
}

/** For a POSIX shell. */
function quote(text: string): string {
  return /^[\w./@%+=:,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`
}

/** How this program is called from the current directory: `cidfs` where it is installed, else by its path. */
function invocation(): string {
  const main = realpathSync(process.argv[1]!)
  for (const dir of (process.env.PATH ?? '').split(delimiter)) {
    if (dir !== '' && realpath(join(dir, 'cidfs')) === main) return 'cidfs'
  }
  const near = relative(process.cwd(), main)
  const path = quote(near.startsWith('..') ? main : `./${near}`)
  return isExecutable(main) ? path : `node ${path}`
}

function realpath(path: string): string | undefined {
  try {
    return realpathSync(path)
  } catch {
    return undefined
  }
}

function isExecutable(path: string): boolean {
  try {
    accessSync(path, constants.X_OK)
    return true
  } catch {
    return false
  }
}
