import t from 'tap'
import { CODEC_RAW, cidOf } from '../../src/core/cid.js'
import { parsePinTarget } from '../../src/staging/pin-target.js'

const cid = cidOf(CODEC_RAW, Buffer.from('x')).toString()

function parse(target: string | Uint8Array): string {
  const found = parsePinTarget(Buffer.from(target))
  return [found.cid, ...found.segments.map(String)].join('|')
}

t.test('every spelling of a path to a CID names it', async t => {
  const spellings = [cid, `../ipfs/${cid}`, `/ipfs/${cid}`, `/home/me/ipfs/ipfs/${cid}`, `ipfs/${cid}/`]
  for (const target of [...spellings, `ipfs://${cid}`, `./ipfs//${cid}//`, `/ipfs/x/ipfs/${cid}`]) {
    t.equal(parse(target), cid, target)
  }
})

t.test('names below the CID are kept as they are', async t => {
  t.equal(parse(`../ipfs/${cid}/a//b/./ipfs/`), `${cid}|a|b|ipfs`)
  t.equal(parse(`${cid}/a`), `${cid}|a`)
  const raw = Buffer.concat([Buffer.from(`/ipfs/${cid}/`), Buffer.from([0xff, 0xfe])])
  t.same(parsePinTarget(raw).segments, [Buffer.from([0xff, 0xfe])])
})

t.test('what names no CID is refused', async t => {
  const refused = [
    '',
    '/',
    'nonsense',
    `/${cid}`,
    `/tmp/${cid}`,
    '../staging/x',
    '/ipfs/',
    '/ipfs/x',
    '../ipfs/..',
  ]
  for (const target of [...refused, `../ipfs/${cid}x`, `../ipfs/${cid}/../other`]) {
    t.throws(() => parsePinTarget(Buffer.from(target)), { code: 'INVALID' }, target)
  }
})
