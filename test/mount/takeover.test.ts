/** What is open when a daemon dies is open when another has taken over. */
import { randomBytes } from 'node:crypto'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Dag, link, sha256 } from '../support/dag.js'
import { TestGateway } from '../support/gateway.js'
import { KeptMount, type KeptMountOptions } from '../support/kept-mount.js'
import { runOk } from '../support/run.js'
import { until } from '../support/until.js'
import { PythonSession } from './python-session.js'

t.setTimeout(100_000)

const NOBODY = 65534

async function setup(t: Test, options: KeptMountOptions = {}) {
  const mount = await KeptMount.start(t, options)
  const python = PythonSession.start(t, { staging: mount.path('staging'), ipfs: mount.path('ipfs') })
  const crash = async () => mount.served((await mount.kill()) ?? 0)
  const wait = async (name: string) => {
    const { status, stderr } = await mount.cli(['wait', mount.path('staging', name)])
    if (status !== 0) throw new Error(stderr)
    return (await mount.cli(['cid', mount.path('staging', name)])).stdout.trim()
  }
  return { mount, python, crash, wait }
}

/** Both ways in which the kernel can be served. */
for (const passthrough of ['auto', 'off']) {
  const args = ['--passthrough', passthrough]

  t.test(`staged files stay open (passthrough ${passthrough})`, async t => {
    const { python, crash, wait, mount } = await setup(t, { args })
    await python.run(`f = os.open(f"{staging}/f", os.O_RDWR | os.O_CREAT | os.O_APPEND)`)
    await python.run(
      `gone = os.open(f"{staging}/gone", os.O_RDWR | os.O_CREAT); os.write(gone, b"still here"); os.unlink(f"{staging}/gone")`,
    )
    await python.run(`os.write(f, b"one "); os.write(f, b"two ")`)
    await crash()
    t.equal(await python.run(`os.pread(gone, 100, 0)`), 'still here', 'also one without a name')
    t.equal(
      await python.run(`os.write(gone, b"written"), os.pread(gone, 100, 0).decode()`).then(String),
      '7,still herewritten',
    )
    t.equal(await python.run(`os.fstat(gone).st_nlink`), 0)
    await python.run(`os.write(f, b"three ")`)
    await crash()
    await python.run(`os.write(f, b"four")`)
    t.equal(await python.run(`os.pread(f, 100, 0)`), 'one two three four')
    t.equal(
      await python.run(`os.getxattr(f, "user.ipfs.state")`),
      'writing',
      'nothing is published meanwhile',
    )
    await python.run(`os.close(f); os.close(gone)`)
    t.equal(await readFile(mount.path('ipfs', await wait('f')), 'utf8'), 'one two three four')
  })

  t.test(`a reader and the writers after it stay on one file (passthrough ${passthrough})`, async t => {
    const { python, crash, wait } = await setup(t, { args })
    await python.run(
      `w = os.open(f"{staging}/f", os.O_WRONLY | os.O_CREAT); os.write(w, b"x" * 200000); r = os.open(f"{staging}/f", os.O_RDONLY); os.close(w)`,
    )
    const first = await wait('f')
    await crash()
    t.equal(await python.run(`os.pread(r, 3, 199997)`), 'xxx')
    await python.run(`w = os.open(f"{staging}/f", os.O_WRONLY); os.pwrite(w, b"yyy", 199997)`)
    t.equal(await python.run(`os.pread(r, 3, 199997)`), 'yyy')
    await crash()
    t.equal(await python.run(`os.pwrite(w, b"z", 199999); os.pread(r, 3, 199997)`), null)
    t.equal(await python.run(`os.pread(r, 3, 199997)`), 'yyz')
    await python.run(`os.close(w); os.close(r)`)
    t.not(await wait('f'), first)
    t.equal(await python.run(`open(f"{ipfs}/${await wait('f')}", "rb").read()[199996:]`), 'xyyz')
  })

  t.test(`mappings go on (passthrough ${passthrough})`, async t => {
    const { python, crash, wait, mount } = await setup(t, { args })
    const bytes = randomBytes(3_000_000)
    await writeFile(mount.path('staging', 'big'), bytes)
    const cid = await wait('big')
    await python.run(
      `big = os.open(f"{ipfs}/${cid}", os.O_RDONLY); map = mmap.mmap(big, 0, prot=mmap.PROT_READ); map[0:4]`,
    )
    await python.run(
      `f = os.open(f"{staging}/mapped", os.O_RDWR | os.O_CREAT); os.ftruncate(f, 100000); shared = mmap.mmap(f, 100000); os.close(f)`,
    )
    await python.run(`shared[0:5] = b"first"`)
    await crash()
    await python.run(`import hashlib`)
    t.equal(await python.run(`hashlib.sha256(map[:]).hexdigest()`), sha256(bytes))
    await python.run(`shared[90000:90006] = b"second"; shared.flush()`)
    await python.run(`shared.close()`)
    t.equal(
      await python.run(`(lambda d: d[0:5] + d[90000:90006])(open(f"{staging}/mapped", "rb").read())`),
      'firstsecond',
    )
  })
}

t.test('a listing goes on where it was, a folder stays the current one', async t => {
  const gateway = await TestGateway.start(t)
  const dag = new Dag(gateway)
  const names = Array.from({ length: 3000 }, (_, i) => `a-rather-long-name-of-an-entry-${i}`)
  const links = names.map(name => link(dag.raw(Buffer.from(name)), name, 40))
  const cid = dag.directory(links.sort((a, b) => Buffer.compare(a.name, b.name)))
  const { python, crash, mount } = await setup(t, { gateways: [gateway.url] })
  await runOk('sh', ['-c', 'for i in $(seq 2000); do echo > entry-$i; done'], { cwd: mount.path('staging') })
  await python.run(`os.mkdir(f"{staging}/cwd"); os.chdir(f"{staging}/cwd")`)
  for (const dir of [`{ipfs}/${cid}`, '{staging}']) {
    await python.run(`listing = os.scandir(f"${dir}"); some = [next(listing).name for i in range(20)]`)
    await crash()
    const listed = await python.run<number[]>(
      `(lambda n: [len(n), len(set(n))])(some + [e.name for e in listing])`,
    )
    t.same(listed, dir === '{staging}' ? [2001, 2001] : [3000, 3000])
  }
  t.equal(await python.run(`os.getcwd()`), mount.path('staging', 'cwd'))
  await python.run(`open("in the current one", "w").write("x")`)
  t.same(await python.run(`os.listdir(".")`), ['in the current one'])
  await python.run(`os.unlink("in the current one"); os.rmdir(f"{staging}/cwd")`)
  await crash()
  t.equal(await python.run(`open("in one that is gone", "w")`), 'ENOENT')
})

t.test('locks hold on: they are the kernel’s', async t => {
  const { python, crash } = await setup(t)
  const other = PythonSession.start(t, { path: '' })
  await python.run(
    `f = os.open(f"{staging}/f", os.O_RDWR | os.O_CREAT); fcntl.flock(f, fcntl.LOCK_EX); fcntl.lockf(f, fcntl.LOCK_EX, 10)`,
  )
  const path = await python.run<string>(`f"{staging}/f"`)
  await other.run(`f = os.open(${JSON.stringify(path)}, os.O_RDWR)`)
  await crash()
  t.equal(await other.run(`fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)`), 'EAGAIN')
  t.equal(await other.run(`fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 5)`), 'EAGAIN')
  await python.run(`os.close(f)`)
  t.equal(await other.run(`fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)`), null)
})

t.test('what was removed while it was open is gone from the disk when it is closed', async t => {
  const { python, crash, mount } = await setup(t)
  const objects = async () =>
    (await runOk('find', [join(mount.stateDir, 'objects'), '-type', 'f', '-size', '+1000k'])).stdout
  await python.run(
    `f = os.open(f"{staging}/f", os.O_RDWR | os.O_CREAT); os.write(f, b"x" * 2000000); os.unlink(f"{staging}/f")`,
  )
  await crash()
  t.not(await objects(), '')
  await python.run(`os.close(f)`)
  await until('the object is gone', async () => (await objects()) === '')
})

const skip = process.geteuid?.() !== 0 && 'needs root to become another user'
t.test('a user without privileges keeps his mount, too', { skip }, async t => {
  const { python, crash, mount } = await setup(t, { uid: NOBODY })
  // root may not enter it, and need not
  t.equal(await python.run(`os.listdir(staging)`), 'EACCES')
  const as = ['setpriv', '--reuid', `${NOBODY}`, '--regid', `${NOBODY}`, '--clear-groups', '--']
  const user = (script: string) => runOk(as[0]!, [...as.slice(1), 'sh', '-ec', script])
  const path = mount.path('staging', 'f')
  await user(`echo before > ${path}`)
  await crash()
  t.equal((await user(`echo after >> ${path}; cat ${path}`)).stdout, 'before\nafter\n')
})
