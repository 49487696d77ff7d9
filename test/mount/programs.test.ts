/**
 * Real programs, unchanged, in `staging/`: they say what they say on a local disk, and what they leave is published
 * under the CIDs that a real Kubo gives to the same tree.
 *
 * Shorter scripts of the everyday tools are in staging-tools.test.ts.
 */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import type { PathCid } from '../../src/daemon/control-protocol.js'
import { KuboNode, missingKubo } from '../support/kubo.js'
import { Mount } from '../support/mount.js'
import { run, runOk } from '../support/run.js'
import { tempDir } from '../support/temp.js'
import { isSound, waitFor } from './staged.js'

t.setTimeout(110_000)

const GIT = `
export GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null GIT_AUTHOR_DATE='1000000000 +0000' GIT_COMMITTER_DATE='1000000000 +0000'
export GIT_AUTHOR_NAME=n GIT_AUTHOR_EMAIL=e GIT_COMMITTER_NAME=n GIT_COMMITTER_EMAIL=e
`

/** Each runs in an empty folder of a local disk, then in one of `staging/`. The first word is the program. */
const SCRIPTS: Record<string, string> = {
  'cp -a, mv, rm -rf': `
    mkdir -p a/b/c; seq 1000 > a/f; ln -s f a/l; chmod 750 a/b; touch -d @1000000000 a/f a/b/c
    cp -a a copy; mv copy/b copy/moved; cp -a a/. copy; rm -rf a; stat -c '%n %a %Y' copy/f; stat -c '%n %a' copy/b; ls -R`,
  'zip and unzip': `
    mkdir -p src/deep; seq 50000 > src/deep/big; for i in $(seq 40); do echo $i > src/f$i; done; head -c 200000 /dev/zero > src/zeros
    zip -qr x.zip src; mkdir out; unzip -q x.zip -d out; diff -r src out/src && echo same; rm -r src
    unzip -qo x.zip -d out; unzip -tq x.zip | sed 's/.*No errors/No errors/'; zip -qd x.zip src/f1; unzip -l x.zip | tail -1; rm x.zip`,
  'git clone, commit, branch, merge, stash': `${GIT}
    git init -q -b main origin; cd origin; for i in $(seq 40); do mkdir -p d$((i % 5)); seq $i > d$((i % 5))/f$i; done; git add .; git commit -qm one; cd ..
    git clone -q --no-hardlinks origin clone; cd clone; git checkout -q -b topic; echo change > d1/f1; git mv d2/f2 d2/g2; git commit -qam two
    git checkout -q main; echo other > d3/f3; git commit -qam three; git merge -q -m merged topic; git log --oneline | wc -l
    echo stashed > d4/f4; git stash -q; git stash pop -q; git diff --stat; git reset -q --hard; git push -q origin topic
    git gc -q; git fsck; git status --short; git worktree add -q ../tree topic; cat ../tree/d1/f1; git rev-parse HEAD`,
  'sqlite3 with a rollback journal': `
    db() { sqlite3 x.db "$@"; }
    db 'create table t(a integer primary key, b text)'
    for i in 1 2 3 4 5; do db "with recursive c(n) as (select 1 union all select n+1 from c where n < 500) insert into t(b) select 'row ' || n from c"; done
    db 'begin; delete from t; rollback'; db 'select count(*), max(a) from t'; db 'delete from t where a % 3 = 0; vacuum'
    db 'pragma journal_mode=truncate; update t set b = b || b'; db 'pragma journal_mode=persist; update t set b = 1 where a < 9'
    db 'pragma integrity_check; select count(*) from t'; db .dump | sha256sum; rm -f x.db-journal; ls`,
  'sqlite3 with a write-ahead log, and two connections': `python3 - <<'END'
import os, sqlite3
a, b = (sqlite3.connect('x.db', isolation_level=None, timeout=0.1) for _ in range(2))
print(a.execute('pragma journal_mode=wal').fetchone()); a.execute('create table t(n)')
for i in range(300): a.execute('insert into t values (?)', [i])
b.execute('begin'); print(b.execute('select count(*) from t').fetchone())
a.execute('begin immediate'); a.executemany('insert into t values (?)', [[i] for i in range(1000)])
try: b.execute('insert into t values (1)')
except sqlite3.OperationalError as e: print(e)
a.execute('commit'); print(b.execute('select count(*) from t').fetchone()); b.execute('commit')
print(b.execute('select count(*) from t').fetchone(), sorted(os.listdir('.')))
print(a.execute('pragma wal_checkpoint(truncate)').fetchone(), b.execute('pragma integrity_check').fetchone())
a.close(); b.close(); print(os.listdir('.'))
END`,
  'make of a small C project': `
    mkdir src; for i in 1 2 3; do echo "int f$i(void) { return $i; }" > src/f$i.c; done
    printf '#include <stdio.h>\\nint f1(void), f2(void), f3(void);\\nint main(void) { printf("%%d\\\\n", f1() + f2() + f3()); }\\n' > src/main.c
    printf 'OBJ = src/main.o src/f1.o src/f2.o src/f3.o\\nall: prog lib.a\\nprog: $(OBJ)\\n\\tcc -o $@ $^\\nlib.a: $(OBJ)\\n\\tar crD $@ $^\\nclean:\\n\\trm -f $(OBJ) prog lib.a\\n' > Makefile
    make -s -j2 && ./prog; make -q all && echo 'up to date'; touch -d '1 hour ago' src/f2.o; make -n | wc -l
    echo 'int f2(void) { return 20; }' > src/f2.c; touch -d '1 hour ago' src/f2.o; make -s; ./prog; make -s clean; make -s; cp prog copy; ./copy; ls`,
  'Python: tempfile, zipfile, shutil': `python3 - <<'END'
import os, shutil, tempfile, zipfile
os.environ['TMPDIR'] = '.'
with tempfile.TemporaryFile(dir='.') as f: f.write(b'x' * 100000); f.seek(5); print(len(f.read()))
with tempfile.SpooledTemporaryFile(max_size=10, dir='.') as f: f.write(b'y' * 100); f.seek(0); print(len(f.read()))
with tempfile.TemporaryDirectory(dir='.') as d: open(f'{d}/f', 'w').write('z'); print(len(os.listdir('.')))
with zipfile.ZipFile('x.zip', 'w', zipfile.ZIP_DEFLATED) as z:
    for i in range(50): z.writestr(f'dir/{i}', str(i) * 1000)
with zipfile.ZipFile('x.zip', 'a') as z: z.writestr('late', 'appended')
with zipfile.ZipFile('x.zip') as z: print(z.testzip(), len(z.namelist())); z.extractall('out')
shutil.make_archive('y', 'gztar', 'out'); shutil.unpack_archive('y.tar.gz', 'again'); os.unlink('y.tar.gz')
shutil.copytree('out', 'copy', symlinks=True); shutil.move('again', 'out/again'); shutil.rmtree('out/dir')
shutil.copyfile('x.zip', 'z.zip'); os.unlink('x.zip'); print(sorted(os.listdir('.')), sorted(os.listdir('out')), shutil.disk_usage('.').total > 0)
END`,
  'rsync -a and --inplace': `
    mkdir src; seq 100000 > src/big; seq 10 > src/small; rsync -a src/ dst
    sed 's/^5/five/' src/big > big; mv big src/big; echo more >> src/small
    rsync -a --inplace --no-whole-file src/ dst; diff -r src dst && echo same
    head -c 1000 src/big > big; mv big src/big; rsync -a --inplace src/ dst; rsync -a --append-verify src/ dst
    echo partial | rsync -a --partial-dir=.part src/ dst; rsync -ac --backup --suffix=.old src/small dst; diff -r src dst && echo same; ls -A dst`,
  'sed -i, and editors that write a backup': `
    seq 1000 > f; sed -i 's/7/seven/g' f; sed -i.bak '1,10d' f; sed -i -e '$a end' f f.bak; wc -l f f.bak
    vim -u NONE -N -es -c 'set backup writebackup backupcopy=no' -c '1d' -c 'w' -c 'wq' f; vim -u NONE -N -es -c 'set backup backupcopy=yes' -c '1d' -c 'wq' f
    head -1 f; head -1 f~; ls -A`,
}

/** Without what stays local, which is no part of a CID. */
const DESCRIBE = `find . -mindepth 1 ! -type d ! -name '*~' -printf '%P %y %m %l\\n' -o -type d -printf '%P %y %m\\n' | sort`

async function outcome(folder: string, script: string): Promise<object> {
  const done = await run('bash', ['-c', script], { cwd: folder, timeoutMs: 60_000 })
  const { stdout } = await runOk('bash', ['-c', DESCRIBE], { cwd: folder })
  const quiet = (text: string): string => text.replaceAll(folder, '')
  return {
    status: done.status,
    stdout: quiet(done.stdout).split('\n'),
    stderr: quiet(done.stderr),
    tree: stdout,
  }
}

t.test(
  'programs work as on a local disk, and Kubo agrees to the CIDs',
  { skip: await missingKubo() },
  async t => {
    const mount = await Mount.start(t)
    const kubo = await KuboNode.init(t, { profiles: ['unixfs-v1-2025'] })
    const temp = await tempDir(t)
    for (const [i, [name, script]] of Object.entries(SCRIPTS).entries()) {
      const [local, staged, copy] = [join(temp, `l${i}`), mount.path('staging', `${i}`), join(temp, `c${i}`)]
      await mount.run('mkdir', [local, staged])
      const expected = await outcome(local, script)
      t.match(expected, { status: 0 }, `${name}: the script is right`)
      t.same(await outcome(staged, script), expected, name)
      t.same((await waitFor(mount, [staged])).failed, [])
      await mount.run('cp', ['-a', staged, copy])
      await mount.run('find', [copy, '-name', '*~', '-delete'])
      const { cid } = await mount.json<PathCid>(['cid', staged])
      t.equal(cid, await kubo.add(copy, ['--only-hash', '--hidden']), `${name}: the CID is Kubo's`)
    }
    await isSound(t, mount)
  },
)

t.test('a folder where an editor is at work keeps its CID', async t => {
  const mount = await Mount.start(t)
  await mount.run('mkdir', ['staging/d'])
  await writeFile(mount.path('staging', 'd', 'f'), 'content')
  await waitFor(mount, [mount.path('staging')])
  const before = await mount.json<PathCid>(['cid', mount.path('staging', 'd')])
  for (const name of ['.f.swp', 'movie.part', 'movie.crdownload', 'f~']) {
    await writeFile(mount.path('staging', 'd', name), 'x'.repeat(100_000))
    const told = await mount.json<PathCid>(['cid', mount.path('staging', 'd')])
    t.same(told, before, `with ${name}`)
    const own = await mount.cli(['cid', mount.path('staging', 'd', name), '--json'])
    t.match(JSON.parse(own.stdout), { cid: null, state: 'local' })
  }
  await mount.run('mv', ['staging/d/movie.part', 'staging/d/movie'])
  await waitFor(mount, [mount.path('staging')])
  const after = (await mount.json<PathCid>(['cid', mount.path('staging', 'd')])).cid!
  const listed = await mount.run('ls', ['-A', `ipfs/${after}`])
  t.same(listed.stdout.split('\n').filter(Boolean), ['f', 'movie'])
})
