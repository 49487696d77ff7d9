/** A daemon that hangs says where, and is replaced. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import t, { type Test } from 'tap'
import { KeptMount } from '../support/kept-mount.js'
import { runOk } from '../support/run.js'
import { tempDir } from '../support/temp.js'
import { until } from '../support/until.js'

t.setTimeout(120_000)

/** The daemon has half of it before it ends itself. */
const WATCHDOG_MS = 8000

/** A mount whose daemons can be told by SIGUSR2 to do `hang` on their main thread. */
async function setup(t: Test, hang: string): Promise<KeptMount> {
  const file = join(await tempDir(t), 'hang.mjs')
  await writeFile(
    file,
    `import { openSync } from 'node:fs'
     import { isMainThread } from 'node:worker_threads'
     if (isMainThread) process.on('SIGUSR2', function hangForTheTest() { ${hang} })`,
  )
  const env = {
    NODE_OPTIONS: `--import=${pathToFileURL(file)}`,
    CIDFS_KEEPER_WATCHDOG_MS: String(WATCHDOG_MS),
    DEBUG: 'cidfs:daemon:watchdog',
  }
  return KeptMount.start(t, { env })
}

/** Hangs the daemon with a request in flight; returns when another has answered that. */
async function hang(mount: KeptMount, signal: NodeJS.Signals): Promise<void> {
  await writeFile(mount.path('staging', 'file'), 'content')
  const before = await mount.pid()
  await until('the watching thread is there', () => mount.log.includes('watching'))
  process.kill(before, signal)
  const { stdout } = await runOk('cat', [mount.path('staging', 'file')], { timeoutMs: 60_000 })
  if (stdout !== 'content') throw new Error(`read ${stdout}`)
  await mount.served(before)
}

t.test('a main thread that runs in circles is shown in the log and replaced', async t => {
  const mount = await setup(t, 'for (;;);')
  await hang(mount, 'SIGUSR2')
  t.match(mount.log, /in the kernel:[\s\S]*\nthe main thread:\n {2}at .*hangForTheTest .*hang\.mjs/)
  t.match(mount.log, /requests in flight:\n/)
  t.match(mount.log, /died with signal 9; .* goes on with another/)
})

t.test('one that waits in the kernel is shown from there', async t => {
  const fifo = join(await tempDir(t), 'fifo')
  await runOk('mkfifo', [fifo])
  const mount = await setup(t, `openSync(${JSON.stringify(fifo)})`)
  await hang(mount, 'SIGUSR2')
  t.match(mount.log, /the main thread has hung for 4 s\nin the kernel:\n {2}wchan: .+\n {2}syscall: .+/)
})

t.test('a process that does nothing at all is ended by the keeper', async t => {
  const mount = await setup(t, '')
  await hang(mount, 'SIGSTOP')
  t.match(mount.log, /has not answered for 8 s: killing it/)
})
