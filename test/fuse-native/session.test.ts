/** The adapter under a file system in memory: what comes back from the kernel is what the file system said. */
import t from 'tap'
import { ended, python, run, sh, start } from '../fuse/fixture.js'
import { MemoryFileSystem } from '../fuse/memory-file-system.js'
import { until } from '../support/until.js'
import { mounted } from './fixture.js'

t.setTimeout(60_000)

t.test('files, directories and links are made, found, listed, renamed and removed', async t => {
  const { dir, fs, session } = await mounted(t)
  fs.addFile('f', Buffer.from('hello'))
  t.equal(await sh(`cat ${dir}/f`), 'hello')
  await sh(`cd ${dir}; mkdir -p d/e; echo one > d/e/x; ln -s x d/e/l; mv d/e/x d/y; mv d D; echo more >> D/y`)
  t.equal(
    await sh(`cd ${dir}; find . | sort | xargs echo; cat D/y; readlink D/e/l`),
    '. ./D ./D/e ./D/e/l ./D/y ./f\none\nmore\nx',
  )
  t.equal(await sh(`cd ${dir}; truncate -s 3 D/y; cat D/y; rm -r D f; ls -A`), 'one')
  t.equal(await sh(`df --output=size,avail -k ${dir} | tail -1 | xargs`), '4000 2000')
  const { operations, inFlight } = session.report()
  t.equal(inFlight, 0)
  t.ok(operations.MKDIR!.count === 2 && operations.RENAME!.count === 2 && operations.WRITE!.count === 2)
})

t.test('large files come back as they were written, from any place', async t => {
  const { dir, fs } = await mounted(t)
  await python(`
import os
data = bytes(range(256)) * 20000
with open('${dir}/f', 'wb') as f: f.write(data)
with open('${dir}/f', 'rb') as f:
    assert f.read() == data
    for at in (0, 1, 4095, 131071, 131072, len(data) - 1): assert os.pread(f.fileno(), 70000, at) == data[at:at + 70000]
    assert os.pread(f.fileno(), 10, len(data)) == b''`)
  t.ok(Math.max(...fs.writeSizes) === 128 * 1024, 'in requests of 128 KiB, not of 4')
})

t.test('access and modification times are set as they were meant', async t => {
  const { dir, fs } = await mounted(t)
  const ino = fs.addFile('f', Buffer.alloc(0))
  await sh(`python3 -c 'import os; os.utime("${dir}/f", ns=(11_500_000_000, 22_250_000_000))'`)
  const { atime, mtime } = fs.nodes.get(ino)!.attributes
  t.same(
    [atime, mtime],
    [
      { seconds: 11, nanoseconds: 500_000_000 },
      { seconds: 22, nanoseconds: 250_000_000 },
    ],
  )
  t.equal(await sh(`stat -c '%X %Y' ${dir}/f`), '11 22')
  await sh(`python3 -c 'import os; os.utime("${dir}/f", (-7, 2**33))'`)
  t.equal(fs.nodes.get(ino)!.attributes.atime.seconds, -7, 'before 1970, too')
  t.equal(fs.nodes.get(ino)!.attributes.mtime.seconds, 2 ** 33)
})

t.test('a file that is unlinked while it is open has no name, no links, and its content', async t => {
  const { dir, fs } = await mounted(t)
  fs.addFile('f', Buffer.from('kept'))
  const said = await python(`
import os
os.mkdir('${dir}/d'); f = os.open('${dir}/d/f', os.O_RDWR | os.O_CREAT); os.write(f, b'one')
os.unlink('${dir}/d/f')
print(os.listdir('${dir}/d'), os.fstat(f).st_nlink, os.fstat(f).st_size)
os.write(f, b' two'); os.ftruncate(f, 5); os.fchmod(f, 0o600); print(os.pread(f, 99, 0), oct(os.fstat(f).st_mode))
os.close(f); os.rmdir('${dir}/d'); print(os.listdir('${dir}'))`)
  t.equal(said, "[] 0 3\nb'one t' 0o100600\n['f']")
  t.equal(fs.openHandles.size, 0)
})

t.test('a rename over an open file leaves the open one as it was', async t => {
  const { dir } = await mounted(t)
  const said = await python(`
import os
for name, text in (('a', b'old'), ('b', b'new')):
    with open('${dir}/' + name, 'wb') as f: f.write(text)
f = os.open('${dir}/a', os.O_RDONLY); os.rename('${dir}/b', '${dir}/a')
print(os.pread(f, 9, 0), open('${dir}/a', 'rb').read(), os.listdir('${dir}'))`)
  t.equal(said, "b'old' b'new' ['a']")
})

t.test('extended attributes are set, listed, and refused where they do not fit', async t => {
  const { dir, fs } = await mounted(t)
  fs.addFile('f', Buffer.alloc(0))
  const said = await python(`
import ctypes, errno, os
f = '${dir}/f'
os.setxattr(f, 'user.a', b'x' * 300); os.setxattr(f, 'user.empty', b'')
print(sorted(os.listxattr(f)), len(os.getxattr(f, 'user.a')), os.getxattr(f, 'user.empty'))
os.removexattr(f, 'user.empty'); print(os.listxattr(f))
libc = ctypes.CDLL(None, use_errno=True)
def refused(call, *args): return errno.errorcode[ctypes.get_errno()] if call(*args) < 0 else 'done'
buffer = ctypes.create_string_buffer(10)
print(refused(libc.getxattr, f.encode(), b'user.a', buffer, 10), bytes(buffer) == bytes(10))
print(refused(libc.listxattr, f.encode(), buffer, 3), refused(libc.getxattr, f.encode(), b'user.none', buffer, 10))`)
  t.equal(said, "['user.a', 'user.empty'] 300 b''\n['user.a']\nERANGE True\nERANGE ENODATA")
})

t.test('what a file system throws by mistake is EIO, and the mount goes on', async t => {
  const { dir, fs } = await mounted(t)
  fs.brokenName = 'broken'
  fs.addFile('nonsense', { sizeBytes: 10, reader: () => Promise.reject(new TypeError('on purpose')) })
  fs.addFile('f', Buffer.from('fine'))
  t.match(await run('cat', [`${dir}/broken`]), { status: 1, stderr: /Input\/output error/ })
  t.match(await run('cat', [`${dir}/nonsense`]), { status: 1, stderr: /Input\/output error/ })
  t.equal(await sh(`cat ${dir}/f`), 'fine')
})

t.test('many readers at a time all get their content', async t => {
  const { dir, fs } = await mounted(t)
  for (let i = 0; i < 40; i++) fs.addFile(`f${i}`, Buffer.alloc(300_000, i))
  const digests = await sh(
    `cd ${dir}; ls | xargs -P 20 -n 1 sh -c 'tr -d "\\0" < $0 | wc -c' | sort | uniq -c | xargs`,
  )
  t.equal(digests, '1 0 39 300000')
})

t.test('the size of a file that tells none is known when it is read', async t => {
  const { dir, fs } = await mounted(t)
  let made = 0
  const texts = ['short', `${'long '.repeat(60_000)}end`, 'short again']
  const reader = (offset: number, sizeBytes: number) => {
    const text = Buffer.from(texts[Math.min(made, texts.length - 1)]!)
    if (offset >= text.length) made++
    return text.subarray(offset, offset + sizeBytes)
  }
  const ino = fs.addFile('status', { sizeBytes: 0, reader })
  fs.nodes.get(ino)!.directIo = true
  const seen = new Set<string>()
  await until('all texts were read', async () => {
    seen.add(await sh(`cat ${dir}/status`))
    return seen.has(texts[2]!)
  })
  t.same([...seen], texts, 'each as a whole, although the kernel remembers sizes for a second')
})

t.test('a wrong size that is found out when the file is opened is put right before it is read', async t => {
  class Sized extends MemoryFileSystem {
    override open(ino: number, flags: number) {
      const node = this.nodes.get(ino)!
      if (node.attributes.sizeBytes !== node.data!.length) {
        node.attributes.sizeBytes = node.data!.length
        this.notifier!.invalidateInode(ino, -1, 0)
      }
      return super.open(ino, flags)
    }
  }
  const fs = new Sized()
  for (const [name, told] of [
    ['more', 3],
    ['less', 5000],
  ] as const) {
    fs.nodes.get(fs.addFile(name, Buffer.from('the truth')))!.attributes.sizeBytes = told
  }
  const { dir } = await mounted(t, fs)
  t.equal(await sh(`stat -c %s ${dir}/more; cat ${dir}/more; stat -c %s ${dir}/more`), '3\nthe truth9')
  t.equal(await sh(`stat -c %s ${dir}/less; cat ${dir}/less; stat -c %s ${dir}/less`), '5000\nthe truth9')
  t.equal(fs.openHandles.size, 0)
})

t.test(
  'names that are not UTF-8 are not listed, and nothing is made under others in their place',
  async t => {
    const { dir, fs } = await mounted(t)
    fs.mkdir(1, Buffer.from([0xff, 0xfe]), 0o755, {
      uid: 0,
      gid: 0,
      pid: 0,
      signal: new AbortController().signal,
    })
    fs.addFile('ä', Buffer.from('here'))
    t.equal(await sh(`ls ${dir}; cat ${dir}/ä`), Buffer.from('ä\nhere').toString('latin1'))
    t.match(await run('bash', ['-c', `mkdir ${dir}/$'\\xfd'`]), {
      status: 1,
      stderr: /Invalid or incomplete multibyte/,
    })
    t.match(await run('bash', ['-c', `ln -s $'\\xfd' ${dir}/l`]), {
      status: 1,
      stderr: /Invalid or incomplete multibyte/,
    })
    t.match(await run('bash', ['-c', `stat ${dir}/$'\\xff\\xfe'`]), { status: 1, stderr: /No such file/ })
    t.equal(fs.nodes.size, 3)
  },
)

t.test('lookups are given back: what is held is bounded by what is open and remembered', async t => {
  const fs = new MemoryFileSystem()
  const { dir } = await mounted(t, fs)
  for (let i = 0; i < 300; i++) fs.addFile(`f${i}`, Buffer.from('x'))
  await sh(`cd ${dir}; cat * > /dev/null; cat * > /dev/null; rm *`)
  t.equal(fs.lookups, 0, 'nothing has a name any more')
})

t.test('requests that hang are let go when the mount ends', async t => {
  const { dir, fs, session } = await mounted(t)
  fs.addHangingFile('hangs')
  const reader = start('cat', [`${dir}/hangs`])
  const result = ended(reader)
  await until('a read hangs', () => fs.hanging > 0)
  t.equal(await session.drain(50), false)
  await sh(`umount -f ${dir} || true`) // ends the connection, and with it the session
  await session.closed
  t.not((await result).status, 0)
  t.equal(fs.openHandles.size, 0)
  t.equal(session.report().inFlight, 0)
})
