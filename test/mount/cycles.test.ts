/** Many short lives of a mount: what one of them leaves, twenty show. */
import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { Dag, link } from '../support/dag.js'
import { isMounted } from '../support/mount.js'
import { mainFile } from '../support/root.js'
import { isAlive, runOk } from '../support/run.js'
import { atEnd, tempDir } from '../support/temp.js'

t.setTimeout(110_000)

t.test('twenty mounts in the background, one after the other, leave nothing', async t => {
  const temp = await tempDir(t)
  const [dir, stateDir, runtimeDir] = ['mnt', 'state', 'run'].map(name => join(temp, name)) as [
    string,
    string,
    string,
  ]
  for (const path of [dir, runtimeDir]) await mkdir(path, { mode: 0o700 })
  const env = { ...process.env, XDG_RUNTIME_DIR: runtimeDir }
  const cidfs = (args: string[]) => runOk(process.execPath, [mainFile, ...args], { env, cwd: '/' })
  atEnd(t, async () => {
    if (await isMounted(dir)) await cidfs(['unmount', '--lazy', dir])
  })
  const dag = new Dag({ add: () => {} })
  const identity = dag.node(
    { type: 'directory' },
    [link(dag.raw(Buffer.from('!'), 'identity'), 'f', 1)],
    'identity',
  )
  const names: string[][] = []
  for (let i = 0; i < 20; i++) {
    const { pid } = JSON.parse(
      (await cidfs(['mount', '--isolated', '--json', '--state', stateDir, dir])).stdout,
    )
    t.equal((await runOk('cat', [join(dir, 'ipfs', `${identity}`, 'f')])).stdout, '!')
    await cidfs(['unmount', dir])
    if ((await isAlive(pid)) || (await isMounted(dir))) t.fail(`cycle ${i} left something`)
    names.push((await readdir(stateDir, { recursive: true })).sort())
  }
  t.same(names.at(-1), names[0], 'nor new files in its state')
  t.same(await readdir(runtimeDir, { recursive: true }), ['cidfs'])
  t.same(await readdir(dir), [])
})
