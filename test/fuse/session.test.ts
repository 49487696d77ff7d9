/** The protocol against a real kernel and real tools. */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { ended, mounted, python, run, sh, start, until } from './fixture.js'
import { MemoryFileSystem } from './memory-file-system.js'

t.setTimeout(90_000)

t.test('tools can create, read, change and remove files and directories', async t => {
  const { dir, fs } = await mounted(t)
  t.equal(await sh(`cd ${dir}; echo one > a; echo two >> a; cat a`), 'one\ntwo')
  t.equal(
    await sh(`cd ${dir}; mkdir -p d/e; cp a d/e/b; mv a d/a; ls -R | tr '\\n' ' '`),
    '.: d  ./d: a e  ./d/e: b',
  )
  t.equal(await sh(`cd ${dir}; ln -s d/a link; readlink link; cat link`), 'd/a\none\ntwo')
  t.equal(await sh(`cd ${dir}/d; ln a hard; stat -c '%h %s' hard; truncate -s 3 hard; cat a`), '2 8\none')
  t.equal(
    await sh(`cd ${dir}; mkfifo p; stat -c %F p; mknod c c 1 3; stat -c '%F %t %T' c`),
    'fifo\ncharacter special file 1 3',
  )
  t.equal(
    await sh(`cd ${dir}; chmod 4750 d/a; chown 5:6 d/a; touch -d @1.5 d/a; stat -c '%a %u %g %.1Y' d/a`),
    '750 5 6 1.5',
  )
  t.equal(await sh(`cd ${dir}; touch -d @-5 d/a; stat -c %Y d/a`), '-5')
  t.match(await run('rmdir', [join(dir, 'd')]), { status: 1, stderr: /not empty/ })
  t.equal(await sh(`cd ${dir}; rm -r d link p c; ls -A`), '')
  t.equal(fs.openHandles.size, 0)
})

t.test('an umask is applied exactly once', async t => {
  const { dir } = await mounted(t)
  t.equal(await sh(`cd ${dir}; umask 027; touch f; mkdir d; stat -c %a f d`), '640\n750')
})

t.test('names are bytes', async t => {
  const { dir } = await mounted(t)
  await python(`open(b'${dir}/\\xff\\xfe', 'w').close()`)
  t.equal(
    await python(`import os; print(os.listdir(b'${dir}'), os.path.exists(b'${dir}/\\xff\\xfe'))`),
    "[b'\\xff\\xfe'] True",
  )
  t.match(await run('touch', [join(dir, 'x'.repeat(256))]), { status: 1, stderr: /File name too long/ })
})

t.test('rename honours NOREPLACE and EXCHANGE', async t => {
  const { dir, fs } = await mounted(t)
  fs.addFile('a', Buffer.from('A'))
  fs.addFile('b', Buffer.from('B'))
  const renameat2 = (flags: number) =>
    python(`import ctypes, errno
libc = ctypes.CDLL(None, use_errno=True)
result = libc.renameat2(-100, b'${dir}/a', -100, b'${dir}/b', ${flags})
print(result, errno.errorcode.get(ctypes.get_errno()))`)
  t.equal(await renameat2(1), '-1 EEXIST')
  t.equal(await renameat2(2), '0 None')
  t.equal(await sh(`cat ${dir}/a ${dir}/b`), 'BA')
  t.equal(await sh(`mv ${dir}/a ${dir}/b; ls ${dir}`), 'b')
})

t.test('reads and writes come in requests of up to 1 MiB', async t => {
  const { dir, fs } = await mounted(t)
  await sh(`dd if=/dev/urandom of=${dir}/f bs=1M count=8 status=none`)
  t.equal(Math.max(...fs.writeSizes), 1 << 20)
  t.equal(
    await sh(`dd if=${dir}/f bs=1M iflag=direct status=none | sha256sum`),
    await sh(`sha256sum < ${dir}/f`),
  )
  t.equal(Math.max(...fs.readSizes), 1 << 20)
})

t.test('a listing of 10,000 entries is complete and uses readdirplus', async t => {
  const fs = new MemoryFileSystem({ ttlMs: 60_000 })
  for (let i = 0; i < 10_000; i++) fs.addFile(`file-${i}`, Buffer.from('x'))
  const { dir, session } = await mounted(t, fs)
  t.equal(await sh(`ls -l ${dir} | grep -c 'root *1 '`), '10000')
  const { READDIRPLUS, LOOKUP, GETATTR, GETXATTR } = session.stats()
  t.ok(READDIRPLUS!.count > 10)
  t.ok((LOOKUP?.count ?? 0) + (GETATTR?.count ?? 0) < 20, 'attributes came with the names')
  t.ok((GETXATTR?.count ?? 0) < 20, 'ls asks for attributes it will not get only once')
})

t.test('extended attributes can be set, listed, read and removed, of any size', async t => {
  const { dir, fs } = await mounted(t)
  fs.addFile('f', Buffer.from(''))
  const result = await python(`import os, errno
f = '${dir}/f'
os.setxattr(f, 'user.a', b'1' * 5000)
os.setxattr(f, 'user.b', b'')
print(sorted(os.listxattr(f)), len(os.getxattr(f, 'user.a')), os.getxattr(f, 'user.b'))
os.removexattr(f, 'user.b')
print(os.listxattr(f))
for name in ('user.none', 'security.capability', 'security.selinux', 'system.posix_acl_access'):
  try: os.getxattr(f, name)
  except OSError as err: print(errno.errorcode[err.errno])
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
print(libc.getxattr(f.encode(), b'user.a', ctypes.create_string_buffer(10), 10), errno.errorcode[ctypes.get_errno()])`)
  t.same(result.split('\n'), [
    "['user.a', 'user.b'] 5000 b''",
    "['user.a']",
    'ENODATA',
    'ENODATA',
    'ENOTSUP',
    'ENOTSUP',
    '-1 ERANGE',
  ])
})

t.test('statfs, fallocate, lseek, copy_file_range, fsync and locks work', async t => {
  const { dir, session } = await mounted(t)
  t.equal(await sh(`stat -f -c '%S %b %f %a %c %d %l' ${dir}`), '4096 1000 600 500 40 30 255')
  const result = await python(`import os, fcntl
a = os.open('${dir}/a', os.O_RDWR | os.O_CREAT)
b = os.open('${dir}/b', os.O_RDWR | os.O_CREAT)
os.posix_fallocate(a, 0, 10)
os.pwrite(a, b'0123456789', 0)
print(os.copy_file_range(a, b, 5, 3, 1), os.pread(b, 9, 0))
print(os.lseek(a, 4, os.SEEK_DATA), os.lseek(a, 4, os.SEEK_HOLE))
os.fsync(a); os.fdatasync(a); os.fsync(os.open('${dir}', os.O_RDONLY))
fcntl.flock(a, fcntl.LOCK_EX | fcntl.LOCK_NB); fcntl.lockf(b, fcntl.LOCK_EX | fcntl.LOCK_NB)
print('locked')`)
  t.same(result.split('\n'), ["5 b'\\x0034567'", '4 10', 'locked'])
  t.ok(session.stats().FSYNC!.count >= 2)
  t.ok(session.stats().FSYNCDIR!.count >= 1)
})

t.test('writing takes suid and sgid off, as on any file system', async t => {
  const { dir, fs } = await mounted(t, new MemoryFileSystem(), { allowOther: true })
  fs.addFile('f', Buffer.from('x'), 0o6777)
  const nobody = { uid: 65_534, gid: 65_534 }
  t.equal((await run('sh', ['-c', `echo y >> ${dir}/f`], nobody)).status, 0)
  t.equal(await sh(`stat -c %a ${dir}/f`), '777')
  fs.addFile('g', Buffer.from('x'), 0o6777)
  t.equal((await run('sh', ['-c', `: > ${dir}/g`], nobody)).status, 0)
  t.equal(await sh(`stat -c '%a %s' ${dir}/g`), '777 0')
})

t.test('other users may read what the mode lets them read', async t => {
  const { dir, fs } = await mounted(t, new MemoryFileSystem(), { allowOther: true })
  fs.addFile('open', Buffer.from('x'), 0o644)
  fs.addFile('shut', Buffer.from('x'), 0o640)
  const nobody = { uid: 65_534, gid: 65_534 }
  t.match(await run('cat', [join(dir, 'open')], nobody), { status: 0, stdout: 'x' })
  t.match(await run('cat', [join(dir, 'shut')], nobody), { status: 1, stderr: /Permission denied/ })
})

t.test('an error nobody foresaw is EIO for one request, and reported', async t => {
  const reported: string[] = []
  const options = { onUnforeseen: (err: unknown, operation: string) => reported.push(`${operation}: ${err}`) }
  const { dir, fs, session } = await mounted(t, new MemoryFileSystem(), options)
  fs.brokenName = 'broken'
  fs.addFile('async', {
    sizeBytes: 10,
    reader: async () => {
      throw new RangeError('also broken')
    },
  })
  fs.addFile('fine', Buffer.from('fine'))
  t.match(await run('ls', [join(dir, 'broken')]), { stderr: /Input\/output error/ })
  t.match(await run('cat', [join(dir, 'async')]), { stderr: /Input\/output error/ })
  t.equal(await sh(`cat ${dir}/fine`), 'fine')
  t.ok(reported.includes('LOOKUP: TypeError: broken on purpose'))
  t.ok(reported.includes('READ: RangeError: also broken'))
  t.ok(session.stats().LOOKUP!.errors >= 1)
  t.equal(session.inFlight, 0)
})

for (const directIo of [false, true]) {
  t.test(
    `a signal ends a waiting read with EINTR and aborts the request (directIo: ${directIo})`,
    async t => {
      const { dir, fs } = await mounted(t)
      fs.addHangingFile('f', { directIo })
      const program = `import ctypes, errno, os, signal
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, True)
fd = os.open('${dir}/f', os.O_RDONLY)
signal.setitimer(signal.ITIMER_REAL, 0.2)
libc = ctypes.CDLL(None, use_errno=True)
print(libc.read(fd, ctypes.create_string_buffer(10), 10), errno.errorcode[ctypes.get_errno()])`
      t.equal(await python(program), '-1 EINTR')
      t.ok(fs.interrupted > 0)
      t.equal(fs.hanging, 0)
    },
  )
}

t.test('a killed process is gone at once, and its lookup is aborted', async t => {
  const { dir, fs, session } = await mounted(t)
  fs.hangingName = 'hangs'
  const child = start('stat', [join(dir, 'hangs')])
  const result = ended(child)
  await until(() => fs.hanging === 1, 'the lookup has come')
  t.equal(session.inFlight, 1)
  t.equal(await session.drain(20), false)
  child.kill('SIGINT')
  t.equal((await result).signal, 'SIGINT')
  await until(() => session.inFlight === 0, 'nothing is in flight')
  t.equal(fs.interrupted, 1)
  t.equal(await session.drain(1000), true)
})

t.test('a program that handles signals itself can be stopped while it reads', async t => {
  const { dir, fs, session } = await mounted(t)
  fs.addHangingFile('f')
  const child = start('dd', [`if=${join(dir, 'f')}`, 'of=/dev/null', 'bs=1M'])
  const result = ended(child)
  await until(() => fs.hanging > 0, 'the read has come')
  child.kill('SIGINT')
  t.equal((await result).signal, 'SIGINT')
  await until(() => session.inFlight === 0, 'nothing is in flight')
})

t.test('a mount can be taken away from under a request that hangs', async t => {
  const { dir, fs, session } = await mounted(t)
  fs.addHangingFile('f')
  const result = ended(start('cat', [join(dir, 'f')]))
  await until(() => fs.hanging > 0, 'the read has come')
  session.close()
  t.match(await result, { status: 1, stderr: /not connected|aborted|Input/i })
  t.same(await session.unmount(), { lazy: false })
  t.equal(fs.hanging, 0, 'requests that were waiting are aborted')
})

t.test('many requests wait at a time without holding up the others', async t => {
  const { dir, fs, session } = await mounted(t)
  fs.addFile('fine', Buffer.from('fine'))
  fs.hangingName = 'hangs'
  const children = Array.from({ length: 20 }, () => start('stat', [join(dir, 'hangs')]))
  const results = children.map(ended)
  await until(() => session.inFlight > 0, 'a lookup waits')
  t.equal(await sh(`cat ${dir}/fine`), 'fine')
  for (const child of children) child.kill('SIGKILL')
  for (const result of results) t.equal((await result).signal, 'SIGKILL')
  await until(() => session.inFlight === 0, 'nothing is in flight')
})

t.test('the kernel gives back every lookup', async t => {
  const fs = new MemoryFileSystem({ ttlMs: 60_000 })
  const { dir } = await mounted(t, fs)
  await sh(`cd ${dir}; mkdir d; for i in $(seq 300); do echo x > d/$i; done; ln -s d/1 l; ln d/2 h; mkfifo p`)
  await sh(`ls -lR ${dir} > /dev/null; cat ${dir}/l; rm ${dir}/d/3; mv ${dir}/d/4 ${dir}/d/5`)
  t.ok(fs.lookups > 300)
  for (let i = 0; i < 20 && fs.lookups > 0; i++) {
    await sh('sync; echo 2 > /proc/sys/vm/drop_caches')
    await sleep(50)
  }
  t.equal(fs.lookups, 0)
  t.ok([...fs.nlookup.values()].every(count => count === 0))
})

t.test('a file may be mapped, also for writing', async t => {
  const { dir } = await mounted(t)
  const result = await python(`import mmap
open('${dir}/f', 'wb').write(b'x' * 100000)
f = open('${dir}/f', 'r+b')
m = mmap.mmap(f.fileno(), 0)
m[70000:70003] = b'abc'
m.flush(); m.close(); f.close()
print(open('${dir}/f', 'rb').read()[69999:70004])`)
  t.equal(result, "b'xabcx'")
})
