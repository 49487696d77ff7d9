import { mkdir, symlink, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { CidfsError } from '../../src/core/errors.js'
import { DEFAULT_GATEWAYS, loadConfig, type RawOptions } from '../../src/daemon/config.js'
import { nearest, readDuration } from '../../src/daemon/config-options.js'
import { tempDir } from '../support/temp.js'

/** An environment that has no configuration. */
const EMPTY = { HOME: '/nonexistent' }

async function withFile(t: Test, text: string) {
  const dir = await tempDir(t)
  const file = join(dir, 'cidfs.toml')
  await writeFile(file, text)
  return {
    dir,
    file,
    load: (options: RawOptions = {}) => loadConfig('/mnt', { config: file, ...options }, EMPTY),
  }
}

async function refused(t: Test, promise: Promise<unknown>, ...parts: (string | RegExp)[]) {
  const err = await promise.then(
    () => undefined,
    (err: unknown) => err,
  )
  if (!(err instanceof CidfsError)) return void t.fail(`not refused: ${err}`)
  t.equal(err.code, 'BAD_CONFIG')
  for (const part of parts) t.match(err.message, part)
  t.notMatch(err.message, '\n', 'one line')
}

t.test('without options: the defaults', async t => {
  const { node, ...config } = await loadConfig('/mnt/x', {}, EMPTY)
  t.match(node, { peers: [], dht: 'client', mdns: true })
  t.same(config, {
    mountpoint: '/mnt/x',
    stateDir: '/nonexistent/.local/share/cidfs/default',
    gateways: DEFAULT_GATEWAYS,
    kubo: undefined,
    provide: 'roots',
    dns: 'system',
    offline: false,
    isolated: false,
    transport: 'native',
    passthrough: 'auto',
    allowOther: false,
    space: { maxBytes: undefined, minFree: undefined },
    readDeadlineMs: 30_000,
    settleMs: 50,
    localNames: ['.*.sw?', '*.part', '*.crdownload', '*~'],
    log: undefined,
  })
})

t.test('sizes have units of 1000 and of 1024, and the floor may be a part of the disk', async t => {
  const space = async (options: RawOptions) => (await loadConfig('/mnt', options, EMPTY)).space
  t.same(await space({ 'max-size': '20GiB', 'min-free': '500MB' }), { maxBytes: 20 * 2 ** 30, minFree: 5e8 })
  t.same(await space({ 'max-size': '1.5TB', 'min-free': '2.5%' }), {
    maxBytes: 1.5e12,
    minFree: { percent: 2.5 },
  })
  t.equal((await space({ 'min-free': '0B' })).minFree, 0)
})

t.test('XDG_DATA_HOME is used when it is absolute, and ignored when it is not', async t => {
  const at = (value: string) => loadConfig('/mnt', {}, { ...EMPTY, XDG_DATA_HOME: value })
  t.equal((await at('/data')).stateDir, '/data/cidfs/default')
  t.equal((await at('data')).stateDir, '/nonexistent/.local/share/cidfs/default')
})

t.test('the command line wins over the file, the file over the defaults', async t => {
  const { load } = await withFile(
    t,
    'read-deadline = "5s"\nlocal-names = ["*.tmp"]\nsettle = "1s"\nallow-other = true\n',
  )
  const config = await load({ settle: '20ms' })
  t.match(config, {
    readDeadlineMs: 5000,
    settleMs: 20,
    localNames: ['*.tmp'],
    allowOther: true,
    isolated: false,
  })
})

t.test('naming gateways replaces the default list', async t => {
  const { load } = await withFile(t, 'gateway = ["http://127.0.0.1:1/", "http://127.0.0.1:1"]\n')
  t.same((await load()).gateways, ['http://127.0.0.1:1'])
  t.same((await load({ gateway: ['https://example.test/base/'] })).gateways, ['https://example.test/base'])
})

t.test('one gateway in the file needs no array', async t => {
  const { load } = await withFile(t, 'gateway = "http://127.0.0.1:1"\n')
  t.same((await load()).gateways, ['http://127.0.0.1:1'])
})

t.test('isolated: nothing is contacted but what is named', async t => {
  t.same((await loadConfig('/mnt', { isolated: true }, EMPTY)).gateways, [])
  const named = await loadConfig(
    '/mnt',
    { isolated: true, gateway: ['http://[::1]:80'], kubo: 'unix:/k' },
    EMPTY,
  )
  t.match(named, { gateways: ['http://[::1]'], kubo: 'unix:/k' })
})

t.test('isolated on the command line: the default file is not read, a named one is', async t => {
  const dir = await tempDir(t)
  await mkdir(join(dir, 'cidfs'))
  const file = join(dir, 'cidfs', 'config.toml')
  await writeFile(file, 'gateway = "http://127.0.0.1:1"\n')
  const env = { ...EMPTY, XDG_CONFIG_HOME: dir }
  t.same((await loadConfig('/mnt', {}, env)).gateways, ['http://127.0.0.1:1'])
  t.same((await loadConfig('/mnt', { isolated: true }, env)).gateways, [])
  t.same((await loadConfig('/mnt', { isolated: true, config: file }, env)).gateways, ['http://127.0.0.1:1'])
})

t.test('offline: no source is left, whatever is named', async t => {
  const named = { gateway: ['http://127.0.0.1:1'], kubo: 'http://127.0.0.1:5001', mdns: 'on' }
  const config = await loadConfig('/mnt', { offline: true, ...named }, EMPTY)
  t.match(config, { gateways: [], kubo: undefined, node: undefined, offline: true })
})

t.test('a relative state directory in a file is relative to that file', async t => {
  const { dir, load } = await withFile(t, 'state = "s"\n')
  t.equal((await load()).stateDir, join(dir, 's'))
  t.equal((await load({ state: '/elsewhere' })).stateDir, '/elsewhere')
})

t.test('mountpoint and state directory are without symbolic links', async t => {
  const dir = await tempDir(t)
  await mkdir(join(dir, 'real'))
  await symlink('real', join(dir, 'link'))
  const config = await loadConfig(join(dir, 'link', 'mnt'), { state: join(dir, 'link', 's') }, EMPTY)
  t.match(config, { mountpoint: join(dir, 'real', 'mnt'), stateDir: join(dir, 'real', 's') })
})

t.test('a state directory in the mountpoint is refused', async t => {
  await refused(
    t,
    loadConfig('/mnt', { state: '/mnt/state' }, EMPTY),
    '--state',
    'must not lie in the mountpoint',
  )
  await refused(t, loadConfig('/mnt', { state: '/mnt' }, EMPTY), '--state')
  await t.resolves(loadConfig('/mnt', { state: '/mnt2' }, EMPTY))
})

t.test('an unknown key is refused with the name that was probably meant', async t => {
  const { file, load } = await withFile(t, 'gateways = []\n')
  await refused(t, load(), file, 'unknown key "gateways"', 'did you mean "gateway"?')
  const other = await withFile(t, 'entirely-different = 1\n')
  await refused(t, other.load(), 'allowed are state, gateway, kubo')
})

const BAD_VALUES: [string, string][] = [
  ['gateway = ["ftp://127.0.0.1"]', 'gateway must be an http:// or https:// URL (it is "ftp://127.0.0.1")'],
  ['gateway = [1]', 'gateway must be an http:// or https:// URL (it is 1)'],
  ['gateway = "http://127.0.0.1/?x"', 'gateway must be a URL without'],
  ['kubo = "unix:relative"', 'kubo must be like'],
  ['kubo = "/ip4/127.0.0.1/tcp/5001"', 'kubo must be like'],
  ['read-deadline = 30', 'read-deadline must be a duration with a unit'],
  ['read-deadline = "0s"', 'read-deadline must be longer than 0'],
  ['read-deadline = "1000h"', 'read-deadline must be a duration'],
  ['settle = "-1s"', 'settle must be a duration'],
  ['max-size = 20', 'max-size must be a size with a unit, like "500MB" or "20GiB" (it is 20)'],
  ['max-size = "20G"', 'max-size must be a size with a unit'],
  ['max-size = "1MiB"', 'max-size must be at least "16MiB"'],
  ['min-free = "100%"', 'min-free must be a size like "2GiB", or a part of the disk like "5%"'],
  ['min-free = 1', 'min-free must be a size like "2GiB"'],
  ['offline = "yes"', 'offline must be true or false'],
  ['state = ""', 'state must be a string that is not empty'],
  ['transport = "other"', 'transport must be "native" or "fuse-native"'],
  ['passthrough = "on"', 'passthrough must be "auto" or "off"'],
  ['peer = ["/ip4/127.0.0.1/tcp/4001"]', 'peer must end in /p2p/ and the id of the peer'],
  ['peer = ["/ip4/127.0.0.1/tcp/4001/p2p/nobody"]', 'peer names no peer'],
  [
    'peer = ["/ip4/127.0.0.1/udp/4001/quic-v1/p2p/12D3KooWRf4pNDSgHhYcrJbAShTYsjo5Uwo8oe4uYXXUMwa4VagH"]',
    'TCP',
  ],
  ['listen = ["/dns4/localhost/tcp/4001"]', 'listen must be an address for TCP'],
  ['listen = ["/ip4/127.0.0.1/tcp/70000"]', 'listen must be an address for TCP'],
  ['bootstrap = "4001"', 'bootstrap must be an address for TCP'],
  ['router = ["ftp://x"]', 'router must be an http:// or https:// URL'],
  ['dht = "maybe"', 'dht must be "client" or "server" or "off"'],
  ['mdns = true', 'mdns must be "on" or "off"'],
  ['serve = "some"', 'serve must be "all" or "pinned" or "off"'],
  ['provide = "pins"', 'provide must be "roots" or "all" or "off"'],
  ['dial-private = "yes"', 'dial-private must be true or false'],
  ['config = "other.toml"', 'unknown key "config"'],
]

for (const [text, message] of BAD_VALUES) {
  t.test(`refused in a file: ${text}`, async t => {
    const { file, load } = await withFile(t, text)
    await refused(t, load(), file, message)
  })
}

t.test('a bad value of the command line is refused by its option', async t => {
  await refused(t, loadConfig('/mnt', { gateway: ['nonsense'] }, EMPTY), '--gateway must be an http://')
  await refused(t, loadConfig('/mnt', { peer: ['/x'] }, EMPTY), '--peer must be an address for TCP')
  await refused(t, loadConfig('', {}, EMPTY), 'mountpoint')
})

t.test('a file that is not TOML, or not there, is refused with the place', async t => {
  const { file, load } = await withFile(t, 'offline = true\nsettle = \n')
  await refused(t, load(), file, 'line 2, column')
  await refused(
    t,
    loadConfig('/mnt', { config: '/nonexistent/x.toml' }, EMPTY),
    '/nonexistent/x.toml',
    'ENOENT',
  )
})

t.test('durations are read in milliseconds', async t => {
  t.same(['150ms', '30s', '1.5m', '1h', '0s'].map(readDuration), [150, 30_000, 90_000, 3_600_000, 0])
  for (const bad of ['', '5', 's', '5 s', '5d', '1e3s', ' 5s', undefined, null, 5])
    t.throws(() => readDuration(bad))
})

t.test('only near names are suggested', async t => {
  const names = ['gateway', 'read-deadline', 'offline', 'log']
  t.same(
    ['Gateways', 'read_deadline', 'ofline', 'lgo', 'xyz'].map(typo => nearest(typo, names)),
    ['gateway', 'read-deadline', 'offline', undefined, undefined],
  )
})

t.test('DNS names are resolved by the system unless somebody else is named, or nobody', async t => {
  const dns = async (options: RawOptions) => (await loadConfig('/mnt', options, EMPTY)).dns
  t.equal(await dns({ isolated: true }), undefined)
  t.equal(await dns({ isolated: true, dns: 'system' }), 'system')
  t.equal(await dns({ dns: 'https://dns.example/dns-query' }), 'https://dns.example/dns-query')
  t.equal(await dns({ dns: 'off' }), undefined)
  t.equal(await dns({ dns: 'system', offline: true }), undefined)
  await t.rejects(dns({ dns: '8.8.8.8' }), {
    code: 'BAD_CONFIG',
    message: /--dns must be "system", "off", or the URL/,
  })
})
