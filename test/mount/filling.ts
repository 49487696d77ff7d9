/** Filling what has an end, and what has to hold of it afterwards. */
import { rm, stat } from 'node:fs/promises'
import type { Test } from 'tap'
import type { StatusReport } from '../../src/daemon/control-protocol.js'
import type { Mount } from '../support/mount.js'
import { run } from '../support/run.js'
import { until } from '../support/until.js'

export const MIB = 1024 * 1024

/** Small disks are mounted. */
export const skip = process.geteuid?.() === 0 ? false : 'needs root to mount a small disk'

/** Writes files until there is no room, large ones to the disk; prints for each what was accepted of it, then the error of the last. */
const FILL = `
import errno, hashlib, json, os, sys
accepted, code, i = {}, None, 0
while code is None and i < 1000:
    name, digest, size, i = 'full-%03d' % i, hashlib.sha256(), 0, i + 1
    try:
        f = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except OSError as e:
        code = errno.errorcode[e.errno]; break
    try:
        for part in range(int(sys.argv[2])):
            data = os.urandom(int(sys.argv[1]))
            n = os.write(f, data); digest.update(data[:n]); size += n
        if size > 1 << 20: os.fsync(f)
    except OSError as e: code = errno.errorcode[e.errno]
    os.close(f)
    accepted[name] = [digest.hexdigest(), size]
print(json.dumps([accepted, code]))`

/** Prints what is not under a name and its CID as it was accepted. */
const COMPARE = `
import hashlib, json, os, sys
def found(path):
    with open(path, 'rb') as f: return [hashlib.sha256(f.read()).hexdigest(), os.stat(path).st_size]
wrong = []
for name, expected in json.load(sys.stdin).items():
    cid = os.getxattr('staging/' + name, 'user.ipfs.cid').decode()
    for path in ('staging/' + name, 'ipfs/' + cid):
        if found(path) != expected: wrong.append([path, expected, found(path)])
print(json.dumps(wrong))`

export type Accepted = Record<string, [sum: string, size: number]>

/** Files of so many parts, each of so many bytes. */
export async function fill(mount: Mount, partBytes = MIB, parts = 5): Promise<Accepted> {
  const options = { cwd: mount.path('staging'), timeoutMs: 60_000 }
  const { stdout } = await mount.run('python3', ['-c', FILL, String(partBytes), String(parts)], options)
  const [accepted, code] = JSON.parse(stdout) as [Accepted, string]
  if (code !== 'ENOSPC') throw new Error(`the disk was to be full, and not ${code}`)
  return accepted
}

export async function report(mount: Mount): Promise<StatusReport> {
  return mount.json<StatusReport>(['status', '--state', mount.stateDir])
}

export async function published(mount: Mount): Promise<true> {
  return until(
    'everything is published',
    async () => {
      const { writing, queued, publishing, failed } = (await report(mount)).staging
      return writing + queued + publishing + failed === 0
    },
    40_000,
  )
}

/** Each is under its name and under its CID what was accepted. */
export async function isKept(t: Test, mount: Mount, accepted: Accepted): Promise<void> {
  await published(mount)
  const { stdout } = await mount.run('python3', ['-c', COMPARE], {
    input: JSON.stringify(accepted),
    timeoutMs: 60_000,
  })
  t.same(
    JSON.parse(stdout),
    [],
    `${Object.keys(accepted).length} files are what was accepted, under name and CID`,
  )
}

export function tryToWrite(mount: Mount, name: string, sizeBytes: number): Promise<boolean> {
  const script = `head -c ${sizeBytes} /dev/urandom > staging/${name}`
  return run('sh', ['-c', script], { cwd: mount.dir }).then(({ status }) => status === 0)
}

/** Space comes back when files go. */
export async function goesOn(t: Test, mount: Mount, accepted: Accepted): Promise<void> {
  let freed = 0
  for (const [name, [, size]] of Object.entries(accepted)) {
    if (freed > 12 * MIB) break
    await rm(mount.path('staging', name))
    freed += size
  }
  await until('there is room again', () => tryToWrite(mount, 'again', 2 * MIB), 30_000)
  await published(mount)
  t.equal((await stat(mount.path('staging', 'again'))).size, 2 * MIB)
}
