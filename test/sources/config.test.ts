import t from 'tap'
import { checkSourcesConfig, parseGatewayUrl, parseKuboUrl } from '../../src/sources/config.js'

t.test('a gateway URL may end with a slash or with /ipfs', async t => {
  for (const text of ['http://127.0.0.1:8080', 'http://127.0.0.1:8080/', 'http://127.0.0.1:8080/ipfs/']) {
    t.match(parseGatewayUrl(text), {
      origin: 'http://127.0.0.1:8080',
      pathPrefix: '',
      name: 'http://127.0.0.1:8080',
    })
  }
  t.equal(parseGatewayUrl('https://example.org/gw/ipfs').pathPrefix, '/gw')
})

t.test('a Kubo address is a URL or a Unix socket', async t => {
  t.match(parseKuboUrl('http://127.0.0.1:5001/api/v0'), { origin: 'http://127.0.0.1:5001', pathPrefix: '' })
  t.equal(parseKuboUrl('unix:/run/kubo.sock').socketPath, '/run/kubo.sock')
  t.equal(parseKuboUrl('unix:///run/kubo.sock').socketPath, '/run/kubo.sock')
  t.throws(() => parseKuboUrl('unix:kubo.sock'), { code: 'BAD_CONFIG' })
})

t.test('credentials become a header and are not shown', async t => {
  const address = parseGatewayUrl('https://user:p%40ss@example.org')
  t.equal(address.authorization, `Basic ${Buffer.from('user:p@ss').toString('base64')}`)
  t.notMatch(address.name, /user|p@ss|p%40ss/)
  t.throws(() => parseGatewayUrl('ftp://user:secret@example.org'), {
    code: 'BAD_CONFIG',
    message: /^((?!secret).)*$/,
  })
})

t.test('a bad configuration is refused with one line that names the value', async t => {
  const good = { gateways: [], readDeadlineMs: 30_000, offline: false }
  const cases: [object, RegExp][] = [
    [{ gateways: ['example.org'] }, /gateway "example.org" cannot be used: it is not a URL/],
    [{ gateways: ['ipfs://example.org'] }, /scheme must be http or https, not "ipfs"/],
    [{ gateways: ['http://a.example/?x=1'] }, /query/],
    [{ gateways: ['http://a.example', 'http://a.example/'] }, /named twice/],
    [{ kubo: 'nonsense' }, /kubo "nonsense"/],
    [{ readDeadlineMs: 0 }, /deadline/],
    [{ readDeadlineMs: Number.NaN }, /deadline/],
  ]
  checkSourcesConfig(good)
  for (const [change, message] of cases) {
    t.throws(() => checkSourcesConfig({ ...good, ...change }), { code: 'BAD_CONFIG', message })
    t.throws(() => checkSourcesConfig({ ...good, ...change }), { message: /^[^\n]+$/ })
  }
})
