import { mkdirSync, rmdirSync, symlinkSync, unlinkSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { mountAt, parseMountInfo, resolveMountpoint } from '../../src/fuse/mount-table.js'
import { temporaryDirectory } from './fixture.js'

const TEXT = `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
40 36 0:45 / /mnt/with\\040space\\134 rw shared:1 master:2 - fuse.cidfs cidfs rw,user_id=0
41 40 0:46 / /mnt/with\\040space\\134 rw - tmpfs none rw
`

t.test('mounts are found whatever optional fields there are and however the path is escaped', async t => {
  const table = parseMountInfo(TEXT)
  t.equal(table.length, 3)
  t.same(table[1], {
    mountId: 40,
    device: '0:45',
    mountpoint: '/mnt/with space\\',
    type: 'fuse.cidfs',
    source: 'cidfs',
  })
  t.equal(mountAt('/mnt/with space\\', table)?.type, 'tmpfs', 'the visible one is the last')
  t.equal(mountAt('/mnt', table), undefined)
})

t.test('names that are not ASCII are bytes of UTF-8', async t => {
  const table = parseMountInfo('1 2 0:3 / /mnt/ä\\040ö rw - tmpfs none rw\n')
  t.equal(table[0]?.mountpoint, '/mnt/ä ö')
})

t.test('symbolic links to a mountpoint are resolved', async t => {
  const dir = temporaryDirectory(t)
  mkdirSync(join(dir, 'real'))
  symlinkSync('real', join(dir, 'one'))
  symlinkSync(join(dir, 'one'), join(dir, 'two'))
  symlinkSync('loop', join(dir, 'loop'))
  t.teardown(() => {
    for (const name of ['one', 'two', 'loop']) unlinkSync(join(dir, name))
    rmdirSync(join(dir, 'real'))
  })
  t.equal(resolveMountpoint(join(dir, 'two')), join(dir, 'real'))
  t.throws(() => resolveMountpoint(join(dir, 'loop')), { code: 'BAD_MOUNTPOINT' })
  t.throws(() => resolveMountpoint(join(dir, 'none')), {
    code: 'BAD_MOUNTPOINT',
    message: /does not exist: mkdir/,
  })
  t.equal(resolveMountpoint('/'), '/')
})
