/**
 * `cidfs ipns publish|resolve|ls` and `cidfs ipns key …`: names that can be made to lead elsewhere.
 *
 * A directory of `staging/` with the attribute `user.ipfs.key` is published by itself whenever its CID changes.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { Command } from 'commander'
import { tryParseCid } from '../../core/cid.js'
import type { KeyReport, NameReport, PublishReport, PublishRequest } from '../../daemon/name-protocol.js'
import { UNDER_WAY } from '../../p2p/ipns-record.js'
import { ControlClient } from '../control-client.js'
import { EXIT } from '../exit-codes.js'
import { daemonOfPaths, requireDaemon } from '../find-daemon.js'
import { note, oneLine, print, printJson } from '../output.js'

interface Flags {
  state?: string
  json?: boolean
}

const STATE = ['--state <DIR>', 'state directory of the daemon'] as const
const JSON_FLAG = ['--json', 'print as JSON'] as const

export function ipnsCommand(): Command {
  const ipns = new Command('ipns').description('names that lead to CIDs: publish, resolve, ls, key')
  ipns
    .command('publish')
    .description('let the name of a key lead to a CID; prints the name')
    .argument('<key-name>', 'one of `cidfs ipns key ls`; self is the key of the node')
    .argument('<cid|path>', 'a CID, /ipfs/<cid>/…, or a path in the mount')
    .option(...STATE)
    .option(...JSON_FLAG)
    .action(publish)
  ipns
    .command('resolve')
    .description('where a name leads: the path below the mountpoint')
    .argument('<name>', 'the name of a key, in any spelling or as in `cidfs ipns key ls`, or a DNS name')
    .option('--refresh', 'ask others even if what is known is fresh')
    .option(...STATE)
    .option(...JSON_FLAG)
    .action(resolve)
  ipns
    .command('ls')
    .description('what is published under keys of this daemon')
    .option(...STATE)
    .option(...JSON_FLAG)
    .action(list)
  return ipns.addCommand(keyCommand())
}

function keyCommand(): Command {
  const key = new Command('key').description('the keys that names belong to: gen, ls, rm, import, export')
  const add = (command: string, description: string) =>
    key
      .command(command)
      .description(description)
      .option(...STATE)
      .option(...JSON_FLAG)
  add('gen <key-name>', 'make an Ed25519 key; prints its name').action((name: string, flags: Flags) =>
    show(flags, client => client.generateKey(name)),
  )
  add('rm <key-name>', 'remove a key: its name cannot be changed any more, and ends with its record').action(
    (name: string, flags: Flags) => show(flags, client => client.removeKey(name)),
  )
  add('import <key-name> <file>', 'take a key from a file of `ipfs key export`, or PEM (PKCS #8)').action(
    (name: string, file: string, flags: Flags) =>
      show(flags, async client => client.importKey(name, (await readFile(file)).toString('base64'))),
  )
  add('ls', 'keys, their names, and where those lead').action(listKeys)
  key
    .command('export <key-name>')
    .description('write a key into a new file, which `ipfs key import` takes')
    .requiredOption('-o, --output <FILE>', 'the file')
    .option(...STATE)
    .action(exportKey)
  return key
}

async function publish(key: string, target: string, { state, json }: Flags): Promise<void> {
  const { client, request } = await requestOf(target, state)
  const report = await client.publish({ key, ...request })
  if (json === true) printJson(report)
  else print(report.name)
  tellOutcome(report)
}

async function requestOf(
  target: string,
  state: string | undefined,
): Promise<{ client: ControlClient; request: Omit<PublishRequest, 'key'> }> {
  if (tryParseCid(target) !== undefined || /^(?:\/ipfs\/|\/ipns\/|ipfs:\/\/|ipns:\/\/)/.test(target)) {
    return { client: new ControlClient(await requireDaemon(state)), request: { target, isPath: false } }
  }
  const { daemon, paths } = await daemonOfPaths([target])
  return { client: new ControlClient(daemon), request: { target: paths[0]!, isPath: true } }
}

function tellOutcome({ outcomes, state, error }: PublishReport): void {
  if (outcomes.length === 0) note('kept here only: there is nobody who keeps records for others')
  for (const { routing, error: why } of outcomes) {
    if (why !== null && why !== UNDER_WAY) note(oneLine(`${routing}: ${why}`))
  }
  if (state !== 'failed') return
  note(oneLine(`nobody took it (${error}); it is tried again in the background`))
  process.exitCode = EXIT.UNAVAILABLE
}

async function resolve(name: string, { state, json, refresh }: Flags & { refresh?: boolean }): Promise<void> {
  const client = new ControlClient(await requireDaemon(state))
  const resolution = await client.resolve({ name, refresh: refresh === true })
  if (json === true) printJson(resolution)
  else print(resolution.path)
  if (resolution.state !== 'fresh') note(`this is what was known before (${resolution.state})`)
}

async function list({ state, json }: Flags): Promise<void> {
  const reports = await new ControlClient(await requireDaemon(state)).published()
  if (json === true) return printJson(reports)
  for (const report of reports) print(describe(report))
}

function describe({ keyName, name, value, state, follows, error }: NameReport): string {
  const followed = follows === null ? '' : ` (follows ${follows})`
  const why = error === null ? '' : `: ${oneLine(error)}`
  return `${state.padEnd(10)} ${keyName}  ${name}  ${value}${followed}${why}`
}

async function listKeys({ state, json }: Flags): Promise<void> {
  const reports = await new ControlClient(await requireDaemon(state)).keys()
  if (json === true) return printJson(reports)
  for (const { keyName, name, value } of reports) print(`${keyName}  ${name}  ${value ?? '-'}`)
}

async function show(
  { state, json }: Flags,
  request: (client: ControlClient) => Promise<KeyReport>,
): Promise<void> {
  const report = await request(new ControlClient(await requireDaemon(state)))
  if (json === true) printJson(report)
  else print(report.name)
}

/** Only its owner may read it, and no file is replaced. */
async function exportKey(
  keyName: string,
  { output, state }: { output: string; state?: string },
): Promise<void> {
  const { file } = await new ControlClient(await requireDaemon(state)).exportKey(keyName)
  await writeFile(output, Buffer.from(file, 'base64'), { mode: 0o600, flag: 'wx' })
}
