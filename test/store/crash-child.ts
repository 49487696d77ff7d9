/**
 * Writes blocks until it is killed. Prints a line for each thing that must survive:
 * `put <n>` blocks were put, `flushed <n>` blocks were flushed as well.
 */
import { Store } from '../../src/store/store.js'
import { rawBlock } from './support.js'

const [dir = '', first = '0'] = process.argv.slice(2)
const store = await Store.open(dir, { packMaxBytes: 300_000 })
for (let n = Number(first); ; n++) {
  const { cid, bytes } = rawBlock(n, 500 + (n % 7) * 1000)
  store.put(cid, bytes)
  if (n % 100 === 0) store.pins.add(cid, `test ${n}`)
  if (n % 50 === 49) process.stdout.write(`put ${n + 1}\n`)
  if (n % 400 === 399) {
    await store.flush()
    process.stdout.write(`flushed ${n + 1}\n`)
  }
}
