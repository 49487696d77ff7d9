/** The structs on the wire, byte for byte, without a kernel. */
import t from 'tap'
import type { Attributes } from '../../src/fs/file-system.js'
import { FOPEN, INIT, INIT2, OP } from '../../src/fuse/abi.js'
import { PackedDirectory } from '../../src/fuse/directory-sink.js'
import { initOut, negotiate } from '../../src/fuse/init.js'
import { OPERATIONS, operationName } from '../../src/fuse/operations.js'
import { Reply } from '../../src/fuse/reply.js'
import { Arguments, Request, uniqueKey } from '../../src/fuse/request.js'

const attributes: Attributes = {
  ino: 2 ** 52 + 3,
  sizeBytes: 2 ** 40 + 1,
  blocks: 8,
  atime: { seconds: -2, nanoseconds: 5 },
  mtime: { seconds: 2 ** 33, nanoseconds: 6 },
  ctime: { seconds: 3, nanoseconds: 7 },
  mode: 0o100644,
  nlink: 1,
  uid: 0xfffffffe,
  gid: 12,
  rdev: 13,
  blksize: 4096,
}

t.test('an entry is written as struct fuse_entry_out', async t => {
  const reply = new Reply()
  reply.bytes.fill(0xff)
  reply.begin()
  reply.entry({ attributes, entryTtlMs: 1500, attributesTtlMs: 365 * 86_400_000 })
  const body = reply.bytes.subarray(16)
  t.equal(reply.length, 16 + 128)
  t.equal(body.readBigUInt64LE(0), BigInt(attributes.ino), 'nodeid')
  t.equal(body.readBigUInt64LE(8), 0n, 'generation')
  t.equal(body.readBigUInt64LE(16), 1n, 'entry_valid')
  t.equal(body.readBigUInt64LE(24), 31_536_000n, 'attr_valid')
  t.equal(body.readUInt32LE(32), 5e8, 'entry_valid_nsec')
  t.equal(body.readUInt32LE(36), 0, 'attr_valid_nsec')
  t.equal(body.readBigUInt64LE(40), BigInt(attributes.ino), 'ino')
  t.equal(body.readBigUInt64LE(48), 2n ** 40n + 1n, 'size')
  t.equal(body.readBigInt64LE(64), -2n, 'a time before 1970')
  t.equal(body.readBigInt64LE(72), 2n ** 33n, 'a time after 2038')
  t.equal(body.readUInt32LE(88), 5, 'atimensec')
  t.equal(body.readUInt32LE(92), 6, 'mtimensec')
  t.equal(body.readUInt32LE(100), 0o100644, 'mode')
  t.equal(body.readUInt32LE(108), 0xfffffffe, 'uid')
  t.equal(body.readUInt32LE(120), 4096, 'blksize')
  t.equal(body.readUInt32LE(124), 0, 'flags')
})

t.test('a proven absence is an entry with node id 0 and a TTL', async t => {
  const reply = new Reply()
  reply.bytes.fill(0xff)
  reply.begin()
  reply.entry({ attributes: undefined, entryTtlMs: 2000 })
  t.equal(reply.bytes.readBigUInt64LE(16), 0n)
  t.equal(reply.bytes.readBigUInt64LE(32), 2n)
  t.ok(reply.bytes.subarray(56, 144).every(byte => byte === 0))
})

t.test('a created file is an entry followed by its handle', async t => {
  const reply = new Reply()
  reply.begin()
  reply.entry({ attributes, entryTtlMs: 0, attributesTtlMs: 0 })
  reply.opened({ fh: 2 ** 40, keepCache: true, directIo: true })
  t.equal(reply.length, 16 + 128 + 16)
  t.equal(reply.bytes.readBigUInt64LE(144), 2n ** 40n)
  t.equal(reply.bytes.readUInt32LE(152), 3)
})

t.test('a file that is passed through names its backing file, and nothing of our page cache', async t => {
  const reply = new Reply()
  reply.begin()
  reply.opened({ fh: 5, keepCache: true, noFlush: true }, 7)
  t.equal(reply.length, 16 + 16)
  t.equal(reply.bytes.readUInt32LE(24), FOPEN.PASSTHROUGH | FOPEN.NOFLUSH)
  t.equal(reply.bytes.readUInt32LE(28), 7)
})

t.test('the reply header echoes all 64 bits of unique', async t => {
  const args = new Arguments()
  args.words.set([40, OP.GETATTR, 0xfffffffe, 0x80000001, 7, 1 << 20, 5, 6, 99])
  const request = new Request(args.words)
  const reply = new Reply()
  reply.header(2, request.uniqueLow, request.uniqueHigh, 16)
  t.equal(request.ino, 7 + 2 ** 52)
  t.same([request.uid, request.gid, request.pid], [5, 6, 99])
  t.equal(reply.bytes.readInt32LE(4), -2)
  t.equal(reply.bytes.readBigUInt64LE(8), 0x80000001fffffffen)
  t.equal(uniqueKey(request.uniqueLow, request.uniqueHigh), 0x80000001fffffffen)
})

t.test('a signal that is asked for after the interrupt is aborted already', async t => {
  const early = new Request(new Uint32Array(10))
  const { signal } = early
  t.notOk(signal.aborted)
  early.interrupt()
  t.ok(signal.aborted)
  const late = new Request(new Uint32Array(10))
  late.interrupt()
  t.ok(late.signal.aborted)
  t.throws(() => late.signal.throwIfAborted(), { code: 'INTERRUPTED' })
})

t.test('a name that does not end within the request is refused', async t => {
  const args = new Arguments()
  args.bytes.fill(0x61, 40, 60)
  args.length = 4
  t.throws(() => args.name(0), { code: 'INVALID' })
  args.bytes[43] = 0
  t.equal(Buffer.from(args.name(0)).toString(), 'aaa')
  t.throws(() => args.names(0), { code: 'INVALID' })
  t.throws(() => args.slice(2, 3), { code: 'INVALID' })
})

t.test('what a handler keeps of its arguments by slice() is a copy', async t => {
  const args = new Arguments()
  args.length = 8
  const kept = args.slice(0, 4).slice()
  args.bytes.fill(9)
  t.same([...kept], [0, 0, 0, 0])
})

t.test('directory entries are padded to 8 bytes and never split', async t => {
  const sink = new PackedDirectory(24 + 8 + 24 + 8 + 31)
  const entry = (name: string, nextOffset: number) => ({
    name: Buffer.from(name),
    ino: 5,
    type: 8,
    nextOffset,
  })
  t.ok(sink.add(entry('a', 1)))
  t.ok(sink.add(entry('12345678', 2)))
  t.notOk(sink.add(entry('c', 3)), 'no room')
  const packed = Buffer.from(sink.packed())
  t.equal(packed.length, 64)
  t.equal(packed.readBigUInt64LE(0), 5n, 'ino')
  t.equal(packed.readBigUInt64LE(8), 1n, 'off')
  t.equal(packed.readUInt32LE(16), 1, 'namelen')
  t.equal(packed.readUInt32LE(20), 8, 'type')
  t.equal(packed.toString('latin1', 24, 32), 'a\0\0\0\0\0\0\0')
  t.equal(packed.readBigUInt64LE(40), 2n, 'off of the second')
  t.equal(packed.toString('latin1', 56, 64), '12345678')
})

t.test('readdirplus counts exactly the lookups that the kernel counts', async t => {
  const sink = new PackedDirectory(3 * 160 + 8)
  const entry = { attributes, entryTtlMs: 0, attributesTtlMs: 0 }
  const named = (name: string) => ({ name: Buffer.from(name), ino: 1, type: 4, nextOffset: 1 })
  t.ok(sink.addPlus(named('.'), entry))
  t.ok(sink.addPlus(named('unknown'), undefined))
  t.ok(sink.addPlus(named('known'), entry))
  t.notOk(sink.addPlus(named('late'), entry))
  t.same(sink.lookedUp, [attributes.ino])
  const packed = Buffer.from(sink.packed())
  t.equal(packed.readBigUInt64LE(0), 0n, 'no node for the dot')
  t.equal(packed.readBigUInt64LE(320), BigInt(attributes.ino))
  t.equal(packed.toString('latin1', 320 + 152, 320 + 157), 'known')
})

function initArguments(minor: number, flags: number, flags2: number, length = 64): Arguments {
  const args = new Arguments()
  args.words.set([7, minor, 131_072, flags, flags2], 10)
  args.length = length
  return args
}

t.test('only what the kernel offers is negotiated', async t => {
  const all = negotiate(initArguments(99, 0xffffffff, 0xffffffff))
  t.equal(all.minor, 45)
  t.equal(all.flags2, INIT2.HAS_RESEND | INIT2.DIRECT_IO_ALLOW_MMAP | INIT2.PASSTHROUGH)
  t.notOk(all.flags & (1 << 0), 'no reads that cannot be interrupted')
  t.notOk(all.flags & (1 << 16), 'no write-back cache')
  t.notOk(all.flags & (1 << 20), 'no POSIX ACL')
  const few = negotiate(initArguments(31, INIT.BIG_WRITES | INIT.MAX_PAGES, 0, 16))
  t.same([few.minor, few.flags, few.flags2], [31, INIT.BIG_WRITES | INIT.MAX_PAGES, 0])
  t.throws(() => negotiate(initArguments(30, 0, 0)), { code: 'NOT_SUPPORTED' })
  const out = Buffer.from(initOut(all).buffer)
  t.equal(out.length, 64)
  t.equal(out.readUInt16LE(16), 64, 'max_background')
  t.equal(out.readUInt32LE(20), 1024 * 1024, 'max_write')
  t.equal(out.readUInt16LE(28), 256, 'max_pages')
  t.equal(out.readUInt32LE(36), 1, 'max_stack_depth')
  const without = negotiate(initArguments(99, 0xffffffff, 0xffffffff), false)
  t.equal(without.flags2, INIT2.HAS_RESEND | INIT2.DIRECT_IO_ALLOW_MMAP)
  t.equal(Buffer.from(initOut(without).buffer).readUInt32LE(36), 0, 'no max_stack_depth without passthrough')
})

t.test('the opcode table answers OPEN, and leaves to the kernel what the kernel does better', async t => {
  for (const op of [OP.OPEN, OP.OPENDIR, OP.INIT, OP.READDIRPLUS]) t.ok(OPERATIONS[op], operationName(op))
  for (const op of [OP.ACCESS, OP.GETLK, OP.SETLK, OP.SETLKW, OP.BMAP, OP.IOCTL, OP.POLL, OP.STATX]) {
    t.equal(OPERATIONS[op], undefined, operationName(op))
  }
  const oneWay = OPERATIONS.filter(operation => operation?.oneWay).map(operation => operation?.name)
  t.same(oneWay, ['FORGET', 'INTERRUPT', 'BATCH_FORGET'])
  t.equal(operationName(4711), 'OPCODE_4711')
})
