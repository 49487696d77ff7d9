/**
 * Network namespaces that are joined by a cable, as two machines on one local network.
 *
 * Invariant: nothing in them reaches anything outside; they end with the test. Needs root and iproute2.
 */
import { runOk } from './run.js'
import { atEnd, type Owner } from './temp.js'

/** For the option `skip` of a test: false, or why it cannot run. */
export function missingNetns(): string | false {
  return process.getuid?.() === 0 ? false : 'only root can make network namespaces'
}

/** A machine without any network; returns the command to run a program on it. */
export async function noNetwork(t: Owner): Promise<string[]> {
  const name = await namespace(t, 'none')
  await runOk('ip', ['-n', name, 'link', 'set', 'lo', 'up'])
  return enter(name)
}

/** Two machines, 10.77.0.1 and 10.77.0.2; returns the commands to run a program on each. */
export async function localNetwork(t: Owner): Promise<[string[], string[]]> {
  const names = [await namespace(t, 'a'), await namespace(t, 'b')] as const
  const cable = ['veth', 'peer', 'name', 'lan0', 'netns', names[1]]
  await runOk('ip', ['link', 'add', 'lan0', 'netns', names[0], 'type', ...cable])
  for (const [i, name] of names.entries()) {
    const ip = (...args: string[]) => runOk('ip', ['-n', name, ...args])
    await ip('link', 'set', 'lo', 'up')
    await ip('addr', 'add', `10.77.0.${i + 1}/24`, 'dev', 'lan0')
    await ip('link', 'set', 'lan0', 'up')
    // as every machine with a router has
    await ip('route', 'add', 'default', 'dev', 'lan0')
  }
  // not `ip netns exec`: it would hide the mount in a mount namespace of its own
  return [enter(names[0]), enter(names[1])]
}

async function namespace(t: Owner, suffix: string): Promise<string> {
  const name = `cidfs-${process.pid}-${suffix}`
  await runOk('ip', ['netns', 'add', name])
  atEnd(t, async () => void (await runOk('ip', ['netns', 'del', name])))
  return name
}

function enter(name: string): string[] {
  return ['nsenter', `--net=/run/netns/${name}`]
}
