/** Which opens are passed through, decided without a kernel. */
import { constants } from 'node:os'
import t from 'tap'
import type { Passthrough, PassthroughAnswer } from '../../src/fs/file-system.js'
import { BackingFiles, NO_BACKING } from '../../src/fuse/backing-files.js'

const { EPERM, ELOOP } = constants.errno

/** A kernel that gives out ids from 1, or this negative errno. */
function kernel(errno = 0) {
  const [opened, closed]: [number[], number[]] = [[], []]
  const openBacking = (fd: number): number => (errno < 0 ? errno : opened.push(fd))
  return { opened, closed, openBacking, closeBacking: (id: number) => void closed.push(id) }
}

/** An offer of `fd` that remembers what was answered. */
function offer(fd: number): Passthrough & { answers: PassthroughAnswer[] } {
  const answers: PassthroughAnswer[] = []
  return { answers, offer: attempt => void answers.push(attempt(fd)) }
}

function allowed(channel: ReturnType<typeof kernel>): BackingFiles {
  const backing = new BackingFiles(channel)
  backing.allow()
  return backing
}

t.test('all opens of an inode share one id, which ends with the last release', async t => {
  const channel = kernel()
  const backing = allowed(channel)
  const offers = [offer(10), offer(11)]
  t.equal(backing.opened(5, offers[0]), 1)
  t.equal(backing.opened(5, offers[1]), 1)
  t.equal(backing.opened(5, undefined), 1, 'also without an offer: the kernel refuses a mixture')
  t.same([offers[0]!.answers, offers[1]!.answers], [['taken'], ['taken']])
  t.same(channel.opened, [10], 'the second descriptor is not needed')
  backing.released(5)
  backing.released(5)
  t.same(channel.closed, [])
  backing.released(5)
  t.same(channel.closed, [1])
  t.equal(backing.opened(5, offer(12)), 2, 'a new decision')
  t.equal(backing.state, 'on')
})

t.test('an inode that was opened the ordinary way stays so until its last release', async t => {
  const channel = kernel()
  const backing = allowed(channel)
  t.equal(backing.opened(5, undefined), NO_BACKING)
  const late = offer(10)
  t.equal(backing.opened(5, late), NO_BACKING)
  t.same(late.answers, ['refused'])
  t.equal(backing.opened(6, offer(11)), 1, 'other inodes are their own matter')
  backing.released(5)
  backing.released(5)
  t.same(channel.closed, [], 'there is no id to close')
  t.equal(backing.opened(5, offer(12)), 2)
})

t.test('a release of what somebody else opened changes nothing', async t => {
  const channel = kernel()
  const backing = allowed(channel)
  backing.released(5)
  t.same(channel.closed, [])
  t.equal(backing.opened(5, offer(10)), 1)
})

t.test('nothing is asked of a kernel that has not agreed', async t => {
  const channel = kernel()
  const backing = new BackingFiles(channel)
  const refused = offer(10)
  t.equal(backing.opened(5, refused), NO_BACKING)
  t.same(refused.answers, ['unsupported'])
  t.same(channel.opened, [])
  t.equal(backing.state, 'not supported by the kernel')
})

t.test('without the privilege one attempt is made, and no other', async t => {
  const channel = kernel(-EPERM)
  const backing = allowed(channel)
  const offers = [offer(10), offer(11)]
  t.equal(backing.opened(5, offers[0]), NO_BACKING)
  channel.openBacking = () => t.fail('asked again') as never
  t.equal(backing.opened(6, offers[1]), NO_BACKING)
  t.same([offers[0]!.answers, offers[1]!.answers], [['unsupported'], ['unsupported']])
  t.match(backing.state, /CAP_SYS_ADMIN/)
})

t.test('a file that the kernel does not take is served the ordinary way', async t => {
  const backing = allowed(kernel(-ELOOP))
  const refused = offer(10)
  t.equal(backing.opened(5, refused), NO_BACKING)
  t.same(refused.answers, ['refused'])
  t.match(backing.state, /stacked file system/)
})

t.test('an offer that takes itself back is none', async t => {
  const channel = kernel()
  t.equal(allowed(channel).opened(5, { offer: () => {} }), NO_BACKING)
  t.same(channel.opened, [])
})
