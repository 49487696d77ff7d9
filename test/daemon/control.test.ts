import { once } from 'node:events'
import { access, mkdir, stat, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { ControlClient } from '../../src/cli/control-client.js'
import { CidfsError, codeOf } from '../../src/core/errors.js'
import type { DaemonActions, WaitProgress } from '../../src/daemon/control-protocol.js'
import { type ControlServer, startControlServer } from '../../src/daemon/control-server.js'
import { tempDir } from '../support/temp.js'

const MIB = 1024 * 1024
const unexpected = () => Promise.reject(new Error('not expected'))

/** A server with these actions, and a client of it. */
async function serve(t: Test, actions: Partial<DaemonActions> = {}) {
  const dir = await tempDir(t)
  const runtimeBefore = process.env.XDG_RUNTIME_DIR
  process.env.XDG_RUNTIME_DIR = dir
  t.teardown(() => {
    if (runtimeBefore === undefined) delete process.env.XDG_RUNTIME_DIR
    else process.env.XDG_RUNTIME_DIR = runtimeBefore
  })
  const stateDir = join(dir, 'state')
  const all: DaemonActions = {
    status: unexpected,
    cidOf: unexpected,
    wait: unexpected,
    importCar: unexpected,
    exportCar: () => {
      throw new Error('not expected')
    },
    pins: unexpected,
    addPin: unexpected,
    removePin: unexpected,
    exists: unexpected,
    names: {} as DaemonActions['names'],
    prefetch: unexpected,
    fsck: unexpected,
    gc: unexpected,
    unmount: unexpected,
    upgrade: unexpected,
    ...actions,
  }
  const server = await startControlServer({ stateDir, mountpoint: join(dir, 'mnt') }, all)
  t.teardown(() => server.close())
  return { server, stateDir, actions: all, client: new ControlClient({ socket: server.socketPath }) }
}

async function codeOfRejection(promise: Promise<unknown>): Promise<string | undefined> {
  return promise.then(
    () => 'nothing was thrown',
    err => codeOf(err),
  )
}

async function collect(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const all: Uint8Array[] = []
  for await (const chunk of chunks) all.push(chunk)
  return Buffer.concat(all)
}

t.test('an answer arrives as it was given', async t => {
  const answer = { cid: 'bafkqaaa', state: 'pinned', error: null } as const
  const asked: string[] = []
  const { client } = await serve(t, {
    cidOf: async path => {
      asked.push(path)
      return answer
    },
  })
  t.same(await client.cidOf('staging/ä b&c?d#e%2F'), answer)
  t.same(asked, ['staging/ä b&c?d#e%2F'])
})

t.test('an error arrives with its code', async t => {
  const { client } = await serve(t, {
    cidOf: () => Promise.reject(new CidfsError('NOT_FOUND', 'x: no such file')),
    status: () => Promise.reject(new TypeError('a fault')),
  })
  await t.rejects(client.cidOf('x'), { code: 'NOT_FOUND', message: 'x: no such file' })
  await t.rejects(client.status(), { message: 'the daemon failed: a fault' })
})

t.test('wait: progress first, the result last', async t => {
  const { client } = await serve(t, {
    wait: async (paths, onProgress) => {
      t.same(paths, ['a', 'b'])
      for (let pinned = 0; pinned < 3; pinned++) {
        onProgress({ total: 3, pinned, failed: 0 })
        await sleep(110)
      }
      return { pinned: 2, failed: [{ path: 'b', error: 'no\nspace' }] }
    },
  })
  const seen: WaitProgress[] = []
  const result = await client.wait(['a', 'b'], progress => seen.push(progress))
  t.same(result, { pinned: 2, failed: [{ path: 'b', error: 'no\nspace' }] })
  t.same(
    seen.map(({ pinned }) => pinned),
    [0, 1, 2],
  )
})

t.test('wait: an error after progress arrives as an error', async t => {
  const { client } = await serve(t, {
    wait: async (_paths, onProgress) => {
      onProgress({ total: 1, pinned: 0, failed: 0 })
      throw new CidfsError('NOT_FOUND', 'gone')
    },
  })
  t.equal(await codeOfRejection(client.wait(['a'], () => {})), 'NOT_FOUND')
})

t.test('a client that goes away aborts what it asked for', async t => {
  let aborted: (() => void) | undefined
  const seen = new Promise<void>(resolve => {
    aborted = resolve
  })
  const { client } = await serve(t, {
    wait: async (_paths, onProgress, signal) => {
      onProgress({ total: 1, pinned: 0, failed: 0 })
      await once(signal, 'abort')
      aborted?.()
      throw new CidfsError('INTERRUPTED', 'interrupted')
    },
  })
  const abort = new AbortController()
  const waiting = client.wait(['a'], () => abort.abort(), abort.signal)
  t.equal(await codeOfRejection(waiting), 'INTERRUPTED')
  await seen
})

t.test('import: the CAR streams up without being held in memory', async t => {
  let received = 0
  const { client } = await serve(t, {
    importCar: async (car, onProgress) => {
      for await (const chunk of car) {
        received += chunk.length
        onProgress({ blocks: 1, bytes: received, position: received })
      }
      return { roots: ['bafkqaaa'], blocks: 1, bytes: received }
    },
  })
  const chunk = Buffer.alloc(MIB, 7)
  const car = Readable.from(
    (function* () {
      for (let i = 0; i < 64; i++) yield chunk
    })(),
  )
  const before = process.memoryUsage().arrayBuffers
  t.match(await client.importCar(car, () => {}), { blocks: 1, bytes: 64 * MIB })
  t.ok(process.memoryUsage().arrayBuffers - before < 48 * MIB)
})

t.test('import: an error ends the upload of what nobody reads', async t => {
  const { client } = await serve(t, {
    importCar: async car => {
      for await (const _ of car) throw new CidfsError('BAD_CAR', 'not a CAR file')
      throw new Error('empty')
    },
  })
  let sent = 0
  const endless = Readable.from(
    (function* () {
      for (;;) {
        sent += MIB
        yield Buffer.alloc(MIB)
      }
    })(),
  )
  t.equal(await codeOfRejection(client.importCar(endless, () => {})), 'BAD_CAR')
  t.ok(sent < 64 * MIB, `${sent} bytes sent`)
})

t.test('import: a file that cannot be read is told as such', async t => {
  const { client } = await serve(t, {
    importCar: async car => {
      await collect(car)
      return { roots: [], blocks: 0, bytes: 0 }
    },
  })
  const broken = new Readable({
    read() {
      this.destroy(new Error('disk on fire'))
    },
  })
  await t.rejects(
    client.importCar(broken, () => {}),
    { message: 'disk on fire' },
  )
})

t.test('export: the bytes arrive, and stop when nobody takes them', async t => {
  let made = 0
  const { client } = await serve(t, {
    exportCar: async function* () {
      for (; made < 64; made++) yield Buffer.alloc(MIB, made)
    },
  })
  const iterator = client.exportCar('bafkqaaa')
  const first = await iterator.next()
  await sleep(200)
  t.ok(made < 32, `${made} MiB made for a reader that waits`)
  const rest = await collect(iterator)
  t.equal((first.value as Uint8Array).length + rest.length, 64 * MIB)
})

t.test('export: an error before the first byte and one after it are both errors', async t => {
  const { client } = await serve(t, {
    exportCar: async function* (cid) {
      if (cid === 'late') yield Buffer.from('half a CAR')
      throw new CidfsError('UNREACHABLE', `${cid}: block ö is not there`)
    },
  })
  await t.rejects(collect(client.exportCar('early')), {
    code: 'UNREACHABLE',
    message: 'early: block ö is not there',
  })
  await t.rejects(collect(client.exportCar('late')), {
    code: 'UNREACHABLE',
    message: 'late: block ö is not there',
  })
})

t.test('closing does not cut off the answer to the unmount that caused it', async t => {
  let server: ControlServer | undefined
  const fixture = await serve(t, {
    unmount: async options => {
      t.same(options, { lazy: true })
      await server?.close()
      return { lazy: true }
    },
  })
  server = fixture.server
  t.same(await fixture.client.unmount({ lazy: true }), { lazy: true })
  t.equal(await codeOfRejection(fixture.client.status()), 'NOT_RUNNING')
})

t.test('closing ends what runs, also what does not listen', async t => {
  const { server, client } = await serve(t, { wait: () => new Promise(() => {}) })
  const waiting = codeOfRejection(client.wait(['a'], () => {}))
  await sleep(50)
  const start = performance.now()
  await server.close()
  t.equal(await waiting, 'NOT_RUNNING')
  t.ok(performance.now() - start < 3000)
})

t.test('the socket is private, and gone after the end', async t => {
  const { server } = await serve(t)
  t.equal((await stat(server.socketPath)).mode & 0o777, 0o600)
  await server.close()
  await t.rejects(access(server.socketPath), { code: 'ENOENT' })
})

t.test('a second server for the same state directory is refused, the first lives on', async t => {
  const { client, stateDir, actions } = await serve(t, { unmount: async () => ({ lazy: false }) })
  const second = startControlServer({ stateDir, mountpoint: '/mnt' }, actions)
  t.equal(await codeOfRejection(second), 'STATE_IN_USE')
  t.same(await client.unmount({ lazy: false }), { lazy: false })
})

t.test('the socket that a crashed daemon left is replaced', async t => {
  const { server, stateDir, actions } = await serve(t)
  await server.close()
  await mkdir(stateDir, { recursive: true })
  await writeFile(server.socketPath, '')
  const again = await startControlServer({ stateDir, mountpoint: '/mnt' }, actions)
  t.ok((await stat(server.socketPath)).isSocket())
  await again.close()
})

t.test('nobody there: NOT_RUNNING, with what to do', async t => {
  const dir = await tempDir(t)
  const client = new ControlClient({ socket: join(dir, 'none.sock') })
  await t.rejects(client.status(), { code: 'NOT_RUNNING', message: /cidfs mount/ })
})

t.test('a daemon that dies while it answers is not taken for the end of the data', async t => {
  const dir = await tempDir(t)
  const socket = join(dir, 's')
  const server = createServer((request, response) => {
    response.writeHead(200, { 'transfer-encoding': 'chunked' })
    response.write('{"progress":{}}\n', () => request.socket.destroy())
  })
  server.listen(socket)
  await once(server, 'listening')
  t.teardown(() => server.close())
  const client = new ControlClient({ socket })
  t.equal(await codeOfRejection(client.wait(['a'], () => {})), 'NOT_RUNNING')
  t.equal(await codeOfRejection(client.status()), 'NOT_RUNNING')
  t.equal(await codeOfRejection(collect(client.exportCar('x'))), 'NOT_RUNNING')
})
