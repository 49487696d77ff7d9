import { readdir, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { privateKeyFromProtobuf } from '@libp2p/crypto/keys'
import t from 'tap'
import { KEY_FILE, loadOrCreateKey } from '../../src/p2p/identity.js'
import { tempDir } from '../support/temp.js'

t.test('the key is made once, readable by nobody else, in the format of libp2p', async t => {
  const dir = await tempDir(t)
  const key = await loadOrCreateKey(dir)
  t.ok((await loadOrCreateKey(dir)).equals(key))
  t.equal((await stat(join(dir, KEY_FILE))).mode & 0o777, 0o600)
  t.ok(privateKeyFromProtobuf(await readFile(join(dir, KEY_FILE))).equals(key))
  t.same(await readdir(dir), [KEY_FILE], 'nothing else is left')
})

t.test('two that start at a time agree on one key', async t => {
  const dir = await tempDir(t)
  const [a, b] = await Promise.all([loadOrCreateKey(dir), loadOrCreateKey(dir)])
  t.ok(a.equals(b))
  t.same(await readdir(dir), [KEY_FILE])
})

t.test('a file that is no key is an error, and stays', async t => {
  const dir = await tempDir(t)
  await writeFile(join(dir, KEY_FILE), 'nonsense')
  await t.rejects(loadOrCreateKey(dir), { code: 'STORE_DAMAGED', message: /node\.key/ })
  t.equal(await readFile(join(dir, KEY_FILE), 'utf8'), 'nonsense')
})
