/** Writing into a real mount, with the tools that people use. */
import { join } from 'node:path'
import t from 'tap'
import type { PathCid } from '../../src/daemon/control-protocol.js'
import { Mount } from '../support/mount.js'
import { run, runOk } from '../support/run.js'
import { tempDir } from '../support/temp.js'
import { isNative, supported } from '../support/transport.js'
import { waitFor } from './staged.js'

t.setTimeout(100_000)

/** Each is run in an empty folder of a local disk and in one of `staging/`: nobody may see a difference. */
const SCRIPTS: Record<string, string> = {
  'cp -r, over what is there too': `
    mkdir -p a/b; echo one > a/f; head -c 300000 /dev/urandom > big; cp big a/b/big; ln -s ../f a/b/l
    cp -r a copy; cp big copy/f; cmp big copy/f; rm big a/b/big copy/b/big copy/f`,
  'tar x': `
    mkdir t; for i in $(seq 50); do echo $i > t/f$i; done; mkdir t/empty; ln -s f1 t/l
    tar cf x.tar t; rm -r t; tar xf x.tar; rm x.tar; tar cf - t | tar tf - | sort`,
  'rsync -a, again with changes, and --delete': `
    mkdir -p src/d; echo a > src/a; echo b > src/d/b; touch -d @1000000000 src/a src/d/b src/d src
    rsync -a src/ dst; rsync -ai src/ dst; echo changed > src/a; echo c > src/c; rm src/d/b
    touch -d @1100000000 src/a src/c src/d src; rsync -a --delete src/ dst; stat -c '%n %Y' dst/*; cat dst/a`,
  'sed -i, mv, in place and across folders': `
    mkdir a b; seq 100 > a/f; sed -i 's/5/FIVE/' a/f; sed -i.orig '1d' a/f; mv a/f b/g; echo x > a/f
    mv a/f b/g; mv b a/b; mv -T a c; cat c/b/g; ls -R`,
  'dd to offsets, with holes, appended': `
    dd if=/dev/zero bs=1 count=0 seek=5000 of=f status=none; printf abc | dd of=f bs=1 seek=4998 conv=notrunc status=none
    printf end | dd of=f oflag=append conv=notrunc status=none; sha256sum f; stat -c %s f
    seq 100000 | dd of=g bs=64k conv=fsync iflag=fullblock status=none; sha256sum g; dd if=g bs=1 skip=77 count=9 status=none`,
  'truncate and fallocate': `
    seq 5000 > f; truncate -s 100 f; truncate -s 20000 f; sha256sum f; fallocate -l 30000 f; stat -c %s f
    fallocate -p -o 0 -l 4096 f; fallocate -n -l 90000 f; stat -c %s f; sha256sum f; truncate -s 0 f; wc -c f`,
  redirections: `
    echo one > f; echo two >> f; { echo three; cat f; } > g; : > f; cat g; wc -c f; set -C; echo x > g`,
  'find, rm, rmdir': `
    mkdir -p a/b/c a/d; touch a/f a/b/g; rmdir a/b; rmdir a/d; rm a; rm -r a/b; find . | sort; find . -type f -delete
    rmdir missing; rm missing; find . | sort`,
  'an editor that saves': `
    seq 20 > f; vim -u NONE -es -c '3d' -c 's/4/four/' -c 'wq' f; cat f; ls -A`,
  'permissions and times': `
    umask 027; touch f; mkdir d; chmod 4755 f; chmod g+s d; mkdir d/e; stat -c '%n %a' f d d/e
    touch -d @123456789.5 f; stat -c %.1Y f; touch -r f d; stat -c %.1Y d; chmod u-w f; stat -c %a f`,
  'Python: open, os, shutil, tempfile': `python3 - <<'END'
import os, shutil, tempfile
with open('f', 'w') as f: f.write('hello\\n' * 1000)
with open('f', 'r+b') as f: f.seek(10); f.write(b'XYZ'); f.seek(0, 2); print(f.tell()); f.truncate(5000)
with open('f', 'ab') as f: print(f.tell()); f.write(b'end')
fd = os.open('f', os.O_RDWR); os.pwrite(fd, b'pw', 4000); print(os.pread(fd, 4, 3999), os.lseek(fd, 0, 2)); os.close(fd)
os.makedirs('a/b/c'); shutil.copytree('a', 'x'); shutil.copy2('f', 'a/b/c/f'); shutil.move('a', 'x/a')
with tempfile.NamedTemporaryFile(dir='.', delete=False) as tmp: tmp.write(b'atomic')
os.replace(tmp.name, 'f'); print(open('f').read(), sorted(os.listdir('.')))
for dirpath, dirnames, names in sorted(os.walk('x')): print(dirpath, sorted(dirnames), sorted(names))
shutil.rmtree('x')
try: os.open('f', os.O_CREAT | os.O_EXCL)
except FileExistsError as e: print('exists', e.errno)
END`,
  'Python: a file without a name, and one written through a mapping': `python3 - <<'END'
import mmap, os
f = open('f', 'w+b'); f.write(b'x' * 10000); f.flush(); os.unlink('f'); f.seek(0); print(len(f.read()), os.fstat(f.fileno()).st_nlink)
f.write(b'more'); f.seek(9998); print(f.read()); f.close(); print(os.listdir('.'))
with open('m', 'w+b') as m:
    m.truncate(20000)
    with mmap.mmap(m.fileno(), 20000) as view: view[5:10] = b'MAPPD'; view[19990:] = b'0123456789'; view.flush()
print(open('m', 'rb').read()[5:10], open('m', 'rb').read()[19990:])
END`,
  'a database': `python3 - <<'END'
import os, sqlite3
db = sqlite3.connect('x.db'); db.execute('create table t(a, b)')
for i in range(20):
    with db: db.executemany('insert into t values (?, ?)', [(i, 'x' * 100)] * 50)
db.execute('delete from t where a < 5'); db.commit(); db.execute('vacuum'); db.close()
db = sqlite3.connect('x.db'); print(db.execute('select count(*), sum(a) from t').fetchone(), os.listdir('.'))
print(db.execute('pragma integrity_check').fetchone())
END`,
  git: `
    export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_DATE='1000000000 +0000' GIT_COMMITTER_DATE='1000000000 +0000'
    export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e
    git init -q -b main r; cd r; for i in $(seq 30); do echo $i > f$i; done; git add .; git commit -qm one
    git mv f1 g1; echo x >> f2; git commit -qam two; git gc -q; git fsck; git log --oneline; git status --short
    cd ..; rm -rf r`,
}

/** Everything that a walk sees: names, types, sizes, modes, link targets, content. */
const DESCRIBE = `find . -mindepth 1 ! -type d -printf '%P %y %s %m %l\\n' -o -printf '%P %y %m\\n' | sort
  find . -type f -print0 | sort -z | xargs -0r sha256sum`

async function outcome(folder: string, script: string): Promise<object> {
  const done = await run('bash', ['-c', script], { cwd: folder, timeoutMs: 40_000 })
  const { stdout } = await runOk('bash', ['-c', DESCRIBE], { cwd: folder })
  const quiet = (text: string): string => text.replaceAll(folder, '').replace(/tmp\w{8}/g, 'TMP')
  return { status: done.status, stdout: quiet(done.stdout), stderr: quiet(done.stderr), tree: stdout }
}

const title = 'tools leave in staging what they leave on a local disk, and say the same'

// one and the same with fuse-native
for (const passthrough of isNative ? ['auto', 'off'] : ['off'])
  t.test(`${title}: passthrough ${passthrough}`, async t => {
    const mount = await Mount.start(t, { args: ['--passthrough', passthrough] })
    const local = await tempDir(t)
    for (const [name, script] of Object.entries(supported(SCRIPTS, ['truncate and fallocate']))) {
      const folder = String(Object.keys(SCRIPTS).indexOf(name))
      await mount.run('mkdir', [join(local, folder), mount.path('staging', folder)])
      const expected = await outcome(join(local, folder), script)
      t.notMatch(JSON.stringify(expected), /command not found|fatal:/, `${name}: the script is right`)
      t.same(await outcome(mount.path('staging', folder), script), expected, name)
    }
    await waitFor(mount, [mount.path('staging')])
    const described = (path: string) => runOk('bash', ['-c', DESCRIBE], { cwd: path, timeoutMs: 60_000 })
    const { cid } = await mount.json<PathCid>(['cid', mount.path('staging')])
    const content = (text: string): string[] => text.split('\n').filter(line => /^[0-9a-f]{64} /.test(line))
    t.same(
      content((await described(mount.path('ipfs', cid!))).stdout),
      content((await described(mount.path('staging'))).stdout),
      'staging and ipfs/<its CID> agree byte for byte',
    )
  })
