/**
 * What a program sees of paths in a mount, with the exact errno, asked by Python.
 *
 * Paths are bytes: names that are not UTF-8 can be asked for. All questions of a call are asked by one process.
 */
import { runOk } from '../support/run.js'

export type Question =
  /** The content from `offset`, `length` bytes or to the end. */
  | { op: 'read'; path: string | Uint8Array; offset?: number; length?: number }
  /** As `read`, but size and SHA-256 of it. */
  | { op: 'digest' | 'stat' | 'list' | 'readlink'; path: string | Uint8Array }
  | { op: 'xattr'; path: string | Uint8Array; name: string }

export interface Stat {
  ino: string
  type: 'file' | 'dir' | 'symlink'
  sizeBytes: number
  /** Four octal digits. */
  mode: string
  mtimeNs: string
}

/** What came, or the name of the errno. Bytes and names are Buffers. */
export interface Answer {
  errno?: string
  ms: number
  bytes?: Buffer
  names?: Buffer[]
  stat?: Stat
  sizeBytes?: number
  sha256?: string
}

const SCRIPT = `
import errno, hashlib, json, os, stat, sys, time
def read(path, offset=0, length=None):
    fd = os.open(path, os.O_RDONLY)
    try:
        parts, left = [], length
        while left is None or left > 0:
            data = os.pread(fd, min(left, 1 << 20) if left is not None else 1 << 20, offset)
            if not data: break
            parts.append(data); offset += len(data)
            if left is not None: left -= len(data)
        return b''.join(parts)
    finally:
        os.close(fd)
def describe(path):
    st = os.lstat(path)
    kind = {stat.S_IFDIR: 'dir', stat.S_IFREG: 'file', stat.S_IFLNK: 'symlink'}[stat.S_IFMT(st.st_mode)]
    return dict(ino=str(st.st_ino), type=kind, sizeBytes=st.st_size,
                mode='%04o' % stat.S_IMODE(st.st_mode), mtimeNs=str(st.st_mtime_ns))
def answer(q):
    path = bytes.fromhex(q['path'])
    if q['op'] == 'read': return dict(bytes=read(path, q.get('offset', 0), q.get('length')).hex())
    if q['op'] == 'digest':
        data = read(path)
        return dict(sizeBytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    if q['op'] == 'stat': return dict(stat=describe(path))
    if q['op'] == 'list': return dict(names=[name.hex() for name in sorted(os.listdir(path))])
    if q['op'] == 'readlink': return dict(bytes=os.readlink(path).hex())
    return dict(bytes=os.getxattr(path, q['name'], follow_symlinks=False).hex())
for q in json.load(sys.stdin):
    start = time.monotonic()
    try: result = answer(q)
    except OSError as e: result = dict(errno=errno.errorcode[e.errno].replace('ENOTSUP', 'EOPNOTSUPP'))
    print(json.dumps(dict(result, ms=(time.monotonic() - start) * 1000)))
`

/** One answer for each question, in order. @throws Error when they take longer than `timeoutMs` */
export async function ask(questions: Question[], timeoutMs = 30_000): Promise<Answer[]> {
  const input = JSON.stringify(questions.map(q => ({ ...q, path: Buffer.from(q.path).toString('hex') })))
  const { stdout } = await runOk('python3', ['-c', SCRIPT], { input, timeoutMs, cwd: '/' })
  return stdout
    .trim()
    .split('\n')
    .map(line => decode(JSON.parse(line)))
}

/** As `ask`, of one question. */
export async function askOne(question: Question, timeoutMs?: number): Promise<Answer> {
  return (await ask([question], timeoutMs))[0]!
}

function decode(result: Omit<Answer, 'bytes' | 'names'> & { bytes?: string; names?: string[] }): Answer {
  const { bytes, names, ...rest } = result
  return {
    ...rest,
    ...(bytes === undefined ? {} : { bytes: Buffer.from(bytes, 'hex') }),
    ...(names === undefined ? {} : { names: names.map(name => Buffer.from(name, 'hex')) }),
  }
}
