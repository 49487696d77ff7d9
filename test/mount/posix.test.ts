/**
 * Hard cases of POSIX: each script runs on a local disk and in `staging/`, and prints the same.
 *
 * What the model test cannot ask: several processes, mappings, locks, times of now. Files are published meanwhile.
 */
import { join } from 'node:path'
import t from 'tap'
import { Mount } from '../support/mount.js'
import { run } from '../support/run.js'
import { tempDir } from '../support/temp.js'
import { forTransport, supported } from '../support/transport.js'
import { isSound, waitFor } from './staged.js'

t.setTimeout(110_000)

/** What every script has at hand. */
const PRELUDE = `
import ctypes, errno, fcntl, mmap, os, stat, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(function, *args, **more):
    """The result, or the name of the errno."""
    try: return function(*args, **more)
    except OSError as e: return errno.errorcode[e.errno]
def call(name, *args):
    if getattr(libc, name)(*args) != 0: raise OSError(ctypes.get_errno(), name)
def write(path, data, flags=os.O_CREAT | os.O_TRUNC):
    fd = os.open(path, os.O_WRONLY | flags, 0o644)
    try: return os.write(fd, data)
    finally: os.close(fd)
def read(path):
    with open(path, 'rb') as f: return f.read()
def child(code, *args):
    """Another process in the same folder; ended by the end of its input."""
    return subprocess.Popen([sys.executable, '-c', 'import fcntl, mmap, os, sys\\n' + code, *args],
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
`

const SCRIPTS: Record<string, string> = {
  'times change as on a local disk': `
def tick(after):
    """The clock of the file system has gone on."""
    while True:
        os.utime('probe')
        if os.stat('probe').st_ctime_ns > after: return
write('probe', b''); write('f', b'content'); os.mkdir('d'); os.mkdir('e'); write('d/f', b'x')
paths = ['f', 'd', 'e', 'd/f']
def changes(what, operation):
    fds = [os.open(path, os.O_RDONLY) for path in paths]
    for path in paths: os.utime(path, (1, 1))
    before = [os.fstat(fd) for fd in fds]
    tick(max(st.st_ctime_ns for st in before))
    operation()
    after = [os.fstat(fd) for fd in fds]
    for fd in fds: os.close(fd)
    print(what, [path + ('m' if b.st_mtime_ns != 10**9 else '') + ('c' if a.st_ctime_ns != b.st_ctime_ns else '')
                 for path, a, b in zip(paths, before, after)])
def mapped():
    with open('f', 'r+b') as f, mmap.mmap(f.fileno(), 0) as view: view[0:1] = b'M'; view.flush()
def by_fd(operation):
    with open('f', 'r+b', 0) as f: operation(f)
changes('nothing', lambda: None)
changes('read', lambda: read('f'))
changes('write', lambda: by_fd(lambda f: f.write(b'C')))
changes('write of nothing', lambda: by_fd(lambda f: f.write(b'')))
changes('append', lambda: write('f', b'more', os.O_APPEND))
changes('truncate', lambda: os.truncate('f', 3))
changes('truncate to what it is', lambda: os.truncate('f', 3))
changes('ftruncate', lambda: by_fd(lambda f: f.truncate(5)))
changes('open', lambda: by_fd(lambda f: None))
changes('O_TRUNC', lambda: write('f', b''))
changes('O_TRUNC when it is empty', lambda: write('f', b''))
changes('fallocate', lambda: by_fd(lambda f: os.posix_fallocate(f.fileno(), 0, 100)))
changes('punch', lambda: by_fd(lambda f: call('fallocate', f.fileno(), 3, ctypes.c_long(0), ctypes.c_long(10)))) # not fuse-native
changes('mapping', mapped)
changes('chmod', lambda: os.chmod('f', 0o600))
changes('chmod of a directory', lambda: os.chmod('d', 0o700))
changes('chown', lambda: os.chown('f', 0, 0))
changes('utime', lambda: os.utime('f', (2, 10**9)))
changes('create', lambda: write('d/new', b''))
changes('unlink', lambda: os.unlink('d/new'))
changes('mkdir', lambda: os.mkdir('d/sub'))
changes('rename of a directory', lambda: os.rename('d/sub', 'e/sub'))
changes('rmdir', lambda: os.rmdir('e/sub'))
changes('symlink', lambda: os.symlink('x', 'd/l'))
changes('rename within', lambda: os.rename('d/f', 'd/g'))
os.rename('d/g', 'd/f')
changes('rename across', lambda: os.rename('d/f', 'e/f'))
os.rename('e/f', 'd/f')
write('e/over', b'')
changes('rename over', lambda: os.rename('e/over', 'd/f'))
changes('unlink of the last', lambda: os.unlink('d/f'))`,
  'UTIME_OMIT and UTIME_NOW': `
class Timespec(ctypes.Structure): _fields_ = [('seconds', ctypes.c_long), ('nanoseconds', ctypes.c_long)]
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
write('f', b'')
def utimens(a, m):
    call('utimensat', -100, b'f', (Timespec * 2)(Timespec(*a), Timespec(*m)), 0)
    st = os.stat('f'); recent = 1500000000 * 10**9
    return [('now' if ns > recent else ns) for ns in (st.st_atime_ns, st.st_mtime_ns)]
print(utimens((1, 500), (2, 999999999)), utimens((0, OMIT), (3, 0)), utimens((4, 0), (0, OMIT)))
print(utimens((0, NOW), (5, 0)), utimens((6, 0), (0, NOW)), utimens((0, OMIT), (0, OMIT)), utimens((-1, 5), (0, 0)))
print(attempt(utimens, (0, 10**9), (0, 0)))`,
  'a rename over open files': `
write('a', b'old'); write('b', b'new')
r, w = os.open('a', os.O_RDONLY), os.open('a', os.O_RDWR | os.O_APPEND)
os.rename('b', 'a')
os.write(w, b' more')
print(read('a'), os.pread(r, 99, 0), os.fstat(r).st_nlink, os.fstat(w).st_size, os.listdir('.'))
os.ftruncate(w, 2); print(os.pread(r, 99, 0), read('a')); os.close(r); os.close(w)
os.mkdir('d'); f = os.open('d/f', os.O_RDWR | os.O_CREAT); os.write(f, b'one')
os.rename('d', 'e'); os.write(f, b' two'); os.rename('e/f', 'g'); os.write(f, b' three'); os.close(f)
print(read('g'), os.listdir('e'))
f = os.open('g', os.O_RDWR); os.unlink('g'); write('g', b'another'); os.pwrite(f, b'X', 0)
print(os.pread(f, 99, 0), read('g')); os.close(f)`,
  'folders that are removed while open': `
os.mkdir('d'); fd = os.open('d', os.O_RDONLY); os.rmdir('d')
print(os.listdir(fd), os.fstat(fd).st_nlink, attempt(os.open, 'x', os.O_CREAT, dir_fd=fd), attempt(os.mkdir, 'x', dir_fd=fd))
print(attempt(os.symlink, 'x', 'x', dir_fd=fd), attempt(os.stat, 'x', dir_fd=fd), attempt(os.rename, 'y', 'x', dst_dir_fd=fd))
os.mkdir('d'); print(os.listdir(fd), os.listdir('d')); os.close(fd)
os.makedirs('a/b'); os.chdir('a/b'); os.rmdir('../b'); print(attempt(write, 'x', b''), attempt(os.listdir, '.')); os.chdir('..')`,
  'renames that are refused': `
os.makedirs('d/sub/sub'); os.makedirs('e/full'); write('f', b'f'); os.mkdir('empty'); os.symlink('d', 'l')
for pair in ['d d/sub/x', 'd d/sub', 'd d', 'd e', 'd f', 'f d', 'f f/x', 'missing f', 'f missing/x', 'd .', '. d', 'f empty', 'd/sub d', 'l d', 'd l', 'f/ g', 'f g/']:
    print(pair, attempt(os.rename, *pair.split()))
print(attempt(os.rename, 'd', 'empty'), sorted(os.listdir('.')), os.listdir('empty/sub'))`,
  'RENAME_NOREPLACE and RENAME_EXCHANGE': `
def rename(a, b, flags): return attempt(call, 'renameat2', -100, a.encode(), -100, b.encode(), flags)
write('a', b'A'); write('b', b'B'); os.makedirs('d/e'); write('d/e/f', b'F')
print(rename('a', 'b', 1), rename('a', 'c', 1), rename('c', 'b', 2), read('b'), read('c'), rename('b', 'missing', 2))
print(rename('b', 'd', 2), read('d'), sorted(os.listdir('b')), rename('d', 'b/e', 2), read('b/e'), os.listdir('d'))
print(rename('b', 'b/e', 2), rename('b/e', 'b', 2), rename('b', 'c', 3), rename('d', 'd', 1), os.stat('b').st_nlink, os.stat('.').st_nlink)`,
  'two processes append, and lose nothing': `
code = '''
fd = os.open('log', os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for i in range(200): os.write(fd, (sys.argv[1] * (1 + i % 50) + "\\\\n").encode())'''
writers = [child(code, name) for name in 'ab']
print([w.communicate(timeout=20) and w.returncode for w in writers])
lines = read('log').decode().splitlines()
print(len(lines), sorted(lines) == sorted(n * (1 + i % 50) for n in 'ab' for i in range(200)))`,
  'of those who create a name with O_EXCL one wins': `
code = '''
won = 0
for i in range(60):
    for make in (lambda: os.close(os.open(f"f{i}", os.O_CREAT | os.O_EXCL)), lambda: os.mkdir(f"d{i}"), lambda: os.symlink("x", f"l{i}")):
        try: make(); won += 1
        except FileExistsError: pass
print(won)'''
racers = [child(code) for _ in range(4)]
print(sum(int(r.communicate(timeout=20)[0]) for r in racers), len(os.listdir('.')))`,
  'a mapping is shared between processes, and a private one is not': `
write('f', b'.' * 10000)
f = os.open('f', os.O_RDWR); view = mmap.mmap(f, 10000); private = mmap.mmap(f, 10000, mmap.MAP_PRIVATE); private[0:3] = b'own'
other = child('''
f = os.open("f", os.O_RDWR); view = mmap.mmap(f, 10000); view[0:5] = b"child"; view[9000:9003] = b"end"; print("x", flush=True); sys.stdin.read()''')
other.stdout.readline()
print(view[0:6], view[8999:9004], private[0:6], os.pread(f, 6, 0)); other.communicate(timeout=10)
os.pwrite(f, b'WRITE', 0); print(view[0:6], private[0:6]); os.close(f); print(read('f')[:6], read('f')[8999:9004])
os.unlink('f'); view[1:2] = b'!'; print(view[0:6])`,
  'a mapping of what is cut off is a bus error, and zeros when it comes back': `
write('f', b'x' * 20000)
f = os.open('f', os.O_RDWR); view = mmap.mmap(f, 20000)
os.ftruncate(f, 5000); print(view[4990:5010])
gone = child('f = os.open("f", os.O_RDWR); v = mmap.mmap(f, 5000); os.truncate("f", 0); v[0]'); gone.communicate(timeout=10); print(gone.returncode)
os.ftruncate(f, 20000); print(set(view[:]) == {0}); view[12345:12350] = b'again'; view.flush(); print(read('f')[12344:12351], len(read('f')))`,
  'holes are zeros': `
f = os.open('f', os.O_RDWR | os.O_CREAT); os.pwrite(f, b'x' * 100000, 0)
call('fallocate', f, 3, ctypes.c_long(4000), ctypes.c_long(60000)); data = read('f')
print(len(data), data.count(b'x'), data.index(b'\\0'), data.rindex(b'\\0'))
call('fallocate', f, 3, ctypes.c_long(90000), ctypes.c_long(1 << 20)); print(os.fstat(f).st_size, read('f').count(b'x'))
print(attempt(call, 'fallocate', f, 2, ctypes.c_long(0), ctypes.c_long(10)), attempt(call, 'fallocate', f, 3, ctypes.c_long(0), ctypes.c_long(0)))
call('fallocate', f, 1, ctypes.c_long(0), ctypes.c_long(1 << 20)); print(os.fstat(f).st_size)
call('fallocate', f, 0, ctypes.c_long(0), ctypes.c_long(1 << 20)); print(os.fstat(f).st_size)
os.ftruncate(f, 0); os.pwrite(f, b'end', 3 << 20); print(read('f').strip(b'\\0'), os.fstat(f).st_size)`,
  umask: `
for mask in (0o022, 0o077, 0o000, 0o777):
    os.umask(mask); os.close(os.open(f'f{mask}', os.O_CREAT, 0o666)); os.mkdir(f'd{mask}'); os.mknod(f'n{mask}', 0o644)
    print([oct(os.stat(f'{kind}{mask}').st_mode) for kind in 'fdn'])`,
  'names of 255 bytes, and deep paths': `
for name in ['x' * 255, 'x' * 256, 'ž' * 127, 'ž' * 128, '\\n', ' ', '-rf', '*', 'a\\\\b']:
    print(len(os.fsencode(name)), attempt(write, name, b'1'), attempt(os.stat, name).__class__.__name__)
    print(attempt(os.rename, name, 'y' * len(os.fsencode(name))), attempt(os.mkdir, name), attempt(os.symlink, 'x', 's' + name[1:]))
print(attempt(write, b'\\xff\\xfe', b'1'), sorted(map(len, os.listdir(b'.')))) # not fuse-native
here = os.getcwd()
for i in range(150): os.mkdir('d' * 40); os.chdir('d' * 40)
write('deep', b'deep'); print(read('deep')); os.chdir(here)
print(attempt(os.stat, '/'.join(['d' * 40] * 150)), attempt(read, '/'.join(['d' * 40] * 60 + ['deep'])))
print(subprocess.run(['rm', '-rf', 'd' * 40]).returncode, os.path.exists('d' * 40))
print([attempt(os.symlink, 'x' * n, f'l{n}') for n in (0, 1, 4094, 4095, 4096)], len(os.readlink('l4095')))`,
  'copy_file_range, sendfile, splice': `
write('a', bytes(range(256)) * 1000); a, b = os.open('a', os.O_RDWR), os.open('b', os.O_RDWR | os.O_CREAT)
n = 0
while n < 256000: n += os.copy_file_range(a, b, 256000 - n)
print(read('b') == read('a'), os.copy_file_range(a, b, 10, 5, 100), read('b')[99:111], os.copy_file_range(a, b, 10, 256000))
print(attempt(os.copy_file_range, a, a, 100, 0, 50), os.copy_file_range(a, a, 50, 0, 256000), os.fstat(a).st_size)
c = os.open('c', os.O_RDWR | os.O_CREAT); print(os.sendfile(c, a, 7, 1000), read('c') == read('a')[7:1007])
r, w = os.pipe(); print(os.splice(a, w, 300, 3), os.splice(r, c, 300, None, 0), read('c')[:300] == read('a')[3:303])`,
  'locks between two processes': `
write('f', b'x' * 100)
def held(code):
    p = child(code + '; print("held", flush=True); sys.stdin.read()'); p.stdout.readline(); return p
def probe(): 
    """What another process may lock: all of it, a part, with flock."""
    code = '''
f = os.open("f", os.O_RDWR)
def can(lock, *args):
    try: lock(f, *args); return 1
    except OSError as e: return e.errno in (11, 13) and 0
print(can(fcntl.lockf, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 0), can(fcntl.lockf, fcntl.LOCK_EX | fcntl.LOCK_NB, 10, 50),
      can(fcntl.lockf, fcntl.LOCK_SH | fcntl.LOCK_NB, 10, 20), can(fcntl.flock, fcntl.LOCK_EX | fcntl.LOCK_NB), can(fcntl.flock, fcntl.LOCK_SH | fcntl.LOCK_NB))'''
    return child(code).communicate(timeout=10)[0].strip()
print(probe())
for lock in ('fcntl.lockf(f, fcntl.LOCK_EX, 30, 0)', 'fcntl.lockf(f, fcntl.LOCK_SH)', 'fcntl.flock(f, fcntl.LOCK_EX)', 'fcntl.flock(f, fcntl.LOCK_SH)'):
    p = held('f = os.open("f", os.O_RDWR); ' + lock); print(lock, probe()); p.communicate(timeout=10); print(probe())
p = held('f = os.open("f", os.O_RDWR); fcntl.lockf(f, fcntl.LOCK_EX, 30, 0); os.close(os.open("f", os.O_RDONLY))'); print(probe()); p.kill(); p.communicate()
p = held('f = os.open("f", os.O_RDWR); fcntl.flock(f, fcntl.LOCK_EX)')
waiting = child('f = os.open("f", os.O_RDWR); print("asks", flush=True); fcntl.flock(f, fcntl.LOCK_EX); print("got")')
waiting.stdout.readline(); p.kill(); p.communicate(); print(waiting.communicate(timeout=10)[0].strip())`,
  'link counts': `
count = lambda path: os.stat(path).st_nlink
os.makedirs('a/b'); os.mkdir('c'); write('a/f', b''); print(count('.'), count('a'), count('a/b'), count('c'), count('a/f'))
os.rename('a/b', 'c/b'); print(count('a'), count('c')); os.mkdir('c/x'); os.rename('c/x', 'c/y'); print(count('c'))
os.rmdir('c/y'); os.rename('c/b', 'a/b'); os.mkdir('b'); os.rename('b', 'a/b'); print(count('.'), count('a'), count('c'))
f = os.open('a/f', os.O_RDONLY); os.unlink('a/f'); print(os.fstat(f).st_nlink); print(attempt(os.link, 'missing', 'x'))`,
  'what may not be opened or done': `
write('f', b'content'); os.mkdir('d'); os.symlink('f', 'l'); os.symlink('loop', 'loop'); os.symlink('missing', 'dangling')
r, w = os.open('f', os.O_RDONLY), os.open('f', os.O_WRONLY)
print(attempt(os.write, r, b'x'), attempt(os.read, w, 1), attempt(os.ftruncate, r, 0), attempt(os.ftruncate, w, -1), attempt(os.pread, r, 1, -1))
print(attempt(os.open, 'd', os.O_RDWR), attempt(os.open, 'f', os.O_DIRECTORY), attempt(os.open, 'l', os.O_NOFOLLOW), attempt(os.open, 'loop', os.O_RDONLY))
print(attempt(os.open, 'f/', os.O_RDONLY), attempt(os.open, 'f/x', os.O_CREAT), attempt(os.open, 'dangling', os.O_CREAT | os.O_EXCL), attempt(os.mkdir, 'dangling'))
print(attempt(os.unlink, 'd'), attempt(os.rmdir, 'f'), attempt(os.rmdir, '.'), attempt(os.unlink, 'l/'), attempt(os.mkdir, 'f/x'), attempt(os.readlink, 'f'))
print(attempt(os.truncate, 'd', 0), attempt(os.listdir, 'f'), attempt(os.pwrite, w, b'x', 1 << 62), attempt(os.lseek, r, -1, 0), attempt(os.lseek, r, 99, os.SEEK_DATA))
os.close(os.open('dangling', os.O_CREAT)); print(os.listdir('.').count('missing'), attempt(os.pread, os.open('d', os.O_RDONLY), 1, 0))
print(attempt(os.fsync, r), attempt(os.fsync, os.open('d', os.O_RDONLY)), attempt(os.fdatasync, w))`,
  'set-user-id goes with a write by somebody else, groups come from folders': `
write('f', b'x'); os.chmod('f', 0o6755); os.chown('f', 1000, 1000); print(oct(os.stat('f').st_mode), os.stat('f').st_uid)
os.chmod('f', 0o6777)
child('os.setuid(1234); f = os.open("f", os.O_WRONLY); os.write(f, b"y")').communicate(timeout=10); print(oct(os.stat('f').st_mode))
os.mkdir('d'); os.chown('d', -1, 4321); os.chmod('d', 0o2775); write('d/f', b''); os.mkdir('d/d')
print([(oct(st.st_mode), st.st_gid) for st in map(os.stat, ('d', 'd/f', 'd/d'))])`,
  'a listing while names come and go has what was there all the time, once': `
for i in range(1500): write(f'keep{i:04}', b'')
for i in range(500): write(f'gone{i:04}', b'')
seen = []
with os.scandir('.') as entries:
    for n, entry in enumerate(entries):
        seen.append(entry.name)
        if n < 500: os.unlink(f'gone{n:04}'); write(f'new{n:04}', b'')
kept = [name for name in seen if name.startswith('keep')]
print(len(kept), len(set(seen)) == len(seen), len(os.listdir('.')))`,
}

/** Not with `fuse-native`. */
const LACKING = [
  'UTIME_OMIT and UTIME_NOW',
  'folders that are removed while open',
  'RENAME_NOREPLACE and RENAME_EXCHANGE',
  'holes are zeros',
]

t.test('hard cases are as on a local disk', async t => {
  const mount = await Mount.start(t, { args: ['--settle', '20ms', '--allow-other'] })
  const local = await tempDir(t)
  const outcome = async (folder: string, script: string) => {
    const { status, stdout, stderr } = await run('python3', ['-c', PRELUDE + forTransport(script)], {
      cwd: folder,
      timeoutMs: 40_000,
    })
    return { status, stdout: stdout.split('\n'), stderr }
  }
  for (const [i, [name, script]] of Object.entries(supported(SCRIPTS, LACKING)).entries()) {
    await mount.run('mkdir', [join(local, `${i}`), mount.path('staging', `${i}`)])
    const expected = await outcome(join(local, `${i}`), script)
    t.equal(expected.status, 0, `${name}: the script is right`, { stderr: expected.stderr })
    t.same(await outcome(mount.path('staging', `${i}`), script), expected, name)
  }
  t.same((await waitFor(mount, [mount.path('staging')])).failed, [], 'and what is left of it is published')
  await isSound(t, mount)
})
