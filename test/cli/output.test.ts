import t from 'tap'
import { count, formatBytes, formatDuration, oneLine } from '../../src/cli/output.js'

t.test('sizes are for people', async t => {
  const sizes = [0, 1023, 1024, 1536, 1024 ** 2 - 1, 1024 ** 2, 5.25 * 1024 ** 3, 3 * 1024 ** 6]
  const texts = ['0 B', '1023 B', '1.0 KiB', '1.5 KiB', '1.0 MiB', '1.0 MiB', '5.3 GiB', '3072.0 PiB']
  t.same(sizes.map(formatBytes), texts)
})

t.test('durations are for people', async t => {
  const durations = [0, 850.4, 1000, 59_400, 60_000, 3_599_000, 3_600_000, 90_000_000]
  const texts = ['0 ms', '850 ms', '1 s', '59 s', '1 min 0 s', '59 min 59 s', '1 h 0 min', '1 d 1 h']
  t.same(durations.map(formatDuration), texts)
})

t.test('nouns are counted, lines are joined', async t => {
  t.same([count(1, 'file'), count(0, 'file'), count(2, 'pin')], ['1 file', '0 files', '2 pins'])
  t.equal(oneLine('a\n  b\r\n\nc '), 'a b c')
})
