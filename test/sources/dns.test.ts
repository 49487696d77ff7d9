import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import t from 'tap'
import { codeOf } from '../../src/core/errors.js'
import { SystemResolver, txtResolver } from '../../src/sources/dns.js'
import { decodeAnswer, encodeQuery } from '../../src/sources/dns-message.js'
import { resolveDnsLink } from '../../src/sources/dnslink.js'
import { answerTo, startDns } from '../support/name-servers.js'

const forever = new AbortController().signal
const CID = 'bafkreifzjut3te2nhyekklss27nh3k72ysco7y32koao5eei66wof36n5e'

t.test('records come over HTTPS, as messages and as JSON', async t => {
  for (const only of ['messages', 'json'] as const) {
    const dns = await startDns(t, only)
    const resolver = txtResolver(dns.url)
    t.teardown(() => resolver.close())
    dns.txt.set('a.example', ['one', 'with "quotes" and \\', `long ${'x'.repeat(600)}`])
    const { records } = await resolver.resolve('a.example', forever)
    t.same(
      records.map(({ text }) => text),
      dns.txt.get('a.example'),
      only,
    )
    t.equal(records[0]?.ttlMs, 60_000)
    t.same(await resolver.resolve('b.example', forever), { records: [] }, `${only}: no such name`)
    dns.rcode = 2
    await t.rejects(resolver.resolve('a.example', forever), {
      code: 'UNREACHABLE',
      message: /failed \(code 2\)/,
    })
    dns.hang = true
    await t.rejects(resolver.resolve('a.example', AbortSignal.timeout(50)), { code: 'INTERRUPTED' })
  }
})

t.test('a server that is not there, or is none, is an error', async t => {
  const nowhere = txtResolver('http://127.0.0.1:1/dns-query')
  t.teardown(() => nowhere.close())
  await t.rejects(nowhere.resolve('a.example', forever), {
    code: 'UNREACHABLE',
    message: /connection refused/,
  })
  const dns = await startDns(t)
  const wrong = txtResolver(dns.url.replace('dns-query', 'other'))
  t.teardown(() => wrong.close())
  await t.rejects(wrong.resolve('a.example', forever), { code: 'UNREACHABLE', message: /HTTP 404/ })
  t.throws(() => txtResolver('ftp://x'), { code: 'BAD_CONFIG' })
})

t.test('records come from the system resolver', async t => {
  const socket = createSocket('udp4')
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  t.teardown(() => socket.close())
  const txt = new Map([['_dnslink.docs.example', [`dnslink=/ipfs/${CID}`]]])
  socket.on('message', (query, { port, address }) => socket.send(answerTo(query, txt, 60), port, address))
  const resolver = new SystemResolver([`127.0.0.1:${socket.address().port}`])
  const { path } = await resolveDnsLink('docs.example', resolver, forever)
  t.equal(path.root, `/ipfs/${CID}`)
  await t.rejects(resolveDnsLink('none.example', resolver, forever), { code: 'NOT_FOUND' })
  socket.removeAllListeners('message')
  await t.rejects(resolver.resolve('slow.example', AbortSignal.timeout(100)), { code: 'INTERRUPTED' })
})

t.test('of several links the first valid one counts, whatever the order', async t => {
  const links = ['dnslink=/ipns/b.example', `dnslink=/ipfs/${CID}/x`, 'dnslink=', 'dnslink=/etc', 'other']
  for (const order of [links, [...links].reverse()]) {
    const records = order.map((text, i) => ({ text, ttlMs: i }))
    const resolver = { name: 'fake', resolve: async () => ({ records }), close: async () => {} }
    const { path } = await resolveDnsLink('x.example', resolver, forever)
    t.same(path, { root: `/ipfs/${CID}`, segments: ['x'] })
  }
})

t.test('other records on the way are passed over', async t => {
  const query = encodeQuery('a.example')
  const answer = answerTo(query, new Map([['a.example', ['text']]]), 60)
  const cname = Buffer.from([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 60, 0, 3, 1, 120, 0])
  const message = Buffer.concat([answer.subarray(0, query.length), cname, answer.subarray(query.length)])
  message.writeUInt16BE(2, 6)
  t.same(decodeAnswer(message).records, [{ text: 'text', ttlMs: 60_000 }])
})

t.test('no message makes the parser do anything but answer or refuse', async t => {
  const good = answerTo(encodeQuery('a.example'), new Map([['a.example', ['text', 'x'.repeat(300)]]]), 60)
  t.equal(decodeAnswer(good).records.length, 2)
  let refused = 0
  let seed = 1
  const random = (below: number) => {
    seed = (Math.imul(seed, 1103515245) + 12345) >>> 0
    return (seed >>> 8) % below
  }
  for (let i = 0; i < 50_000; i++) {
    const bytes = Buffer.from(good.subarray(0, i % 3 === 0 ? random(good.length + 1) : good.length))
    for (let n = random(4); n >= 0 && bytes.length > 0; n--) bytes[random(bytes.length)] = random(256)
    try {
      if (decodeAnswer(bytes).records.length > 64) t.fail('too many records')
    } catch (err) {
      if (codeOf(err) !== 'UNREACHABLE') t.fail(`${err}`)
      refused++
    }
  }
  t.ok(refused > 1000, `${refused} were refused`)
})
