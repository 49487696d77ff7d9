/**
 * The second daemon of the tests: inherits a connection as descriptor 3 and goes on with it, as soon as somebody
 * writes a line. Arguments: the mountpoint, what INIT negotiated. Ends when it is unmounted.
 */
import { once } from 'node:events'
import type { Negotiated } from '../../src/fuse/init.js'
import { FuseSession } from '../../src/fuse/session.js'
import { MemoryFileSystem } from './memory-file-system.js'

const [dir = '', negotiated = ''] = process.argv.slice(2)
const fs = new MemoryFileSystem()
const ino = fs.addFile('f', Buffer.from('again'))
fs.nodes.get(ino)!.directIo = true
await once(process.stdin, 'data')
process.stdin.destroy()
const session = FuseSession.adopt(3, dir, fs, JSON.parse(negotiated) as Negotiated)
await session.closed
