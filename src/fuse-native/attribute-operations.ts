/**
 * Callbacks on attributes, extended ones too.
 *
 * Invariant: nothing is decided here: paths become node ids, answers what the package takes.
 */
import { type MaybePromise, then } from '../core/maybe-promise.js'
import { type AttributeChanges, type Fh, type Ino, ROOT_INO, type Time } from '../fs/file-system.js'
import { answerVoid, answerWith, type Host, onNode, plain } from './host.js'
import type { FuseOperations, StatWords } from './package.js'
import { statfsWords, statWords } from './stat-words.js'

/** uid_t and gid_t of chown(2) that stand for "as it is". */
const UNCHANGED = 2 ** 32 - 1

export type AttributeOperations = Pick<
  FuseOperations,
  'statfs' | 'getattr' | 'fgetattr' | 'truncate' | 'ftruncate' | 'utimens' | 'chown' | 'chmod'
>

export function attributeOperations(host: Host): AttributeOperations {
  const { fs, requests, files, unsized } = host
  const ctx = requests.context
  const setattr = (ino: Ino, changes: AttributeChanges) => fs.setattr(ino, changes, ctx)
  const getattr = (ino: Ino, fh?: Fh): MaybePromise<StatWords> =>
    then(fs.getattr(ino, fh, ctx), ({ attributes }) =>
      statWords(attributes.sizeBytes > 0 ? attributes : { ...attributes, sizeBytes: unsized.tell(ino) }),
    )
  return {
    statfs: (_path, answer) =>
      answerWith(host, 'STATFS', answer, () => then(fs.statfs(ROOT_INO, ctx), statfsWords)),

    // libfuse asks this for each LOOKUP, too
    getattr: (path, answer) =>
      answerWith(host, 'LOOKUP', answer, () => onNode(host, path, ino => getattr(ino))),
    fgetattr: (path, fd, answer) =>
      answerWith(host, 'GETATTR', answer, () => {
        const file = files.get(fd)
        return file === undefined ? onNode(host, path, ino => getattr(ino)) : getattr(file.name.ino, file.fh)
      }),

    truncate: (path, sizeBytes, answer) =>
      answerVoid(host, 'SETATTR', answer, () => onNode(host, path, ino => setattr(ino, { sizeBytes }))),
    ftruncate: (_path, fd, sizeBytes, answer) =>
      answerVoid(host, 'SETATTR', answer, () => {
        const { name, fh } = files.of(fd)
        return setattr(name.ino, { sizeBytes, fh })
      }),
    utimens: (path, atimeMs, mtimeMs, answer) =>
      answerVoid(host, 'SETATTR', answer, () => {
        const times = { atime: timeOf(atimeMs), mtime: timeOf(mtimeMs) }
        return onNode(host, path, ino => setattr(ino, times))
      }),
    chown: (path, uid, gid, answer) =>
      answerVoid(host, 'SETATTR', answer, () => {
        const owner = { ...(uid !== UNCHANGED && { uid }), ...(gid !== UNCHANGED && { gid }) }
        return onNode(host, path, ino => setattr(ino, owner))
      }),
    chmod: (path, mode, answer) =>
      answerVoid(host, 'SETATTR', answer, () => onNode(host, path, ino => setattr(ino, { mode }))),
  }
}

function timeOf(ms: number): Time {
  const seconds = Math.floor(ms / 1000)
  return { seconds, nanoseconds: (ms - seconds * 1000) * 1e6 }
}

export type XattrOperations = Pick<FuseOperations, 'setxattr' | 'getxattr' | 'listxattr' | 'removexattr'>

export function xattrOperations(host: Host): XattrOperations {
  const { fs, requests } = host
  const ctx = requests.context
  return {
    setxattr: (path, name, value, _position, flags, answer) =>
      answerVoid(host, 'SETXATTR', answer, () =>
        onNode(host, path, ino => fs.setxattr(ino, name, plain(value), flags, ctx)),
      ),
    getxattr: (path, name, _position, answer) =>
      answerWith(host, 'GETXATTR', answer, () =>
        onNode(host, path, ino => then(fs.getxattr(ino, name, ctx), value => Buffer.from(value))),
      ),
    listxattr: (path, answer) =>
      answerWith(host, 'LISTXATTR', answer, () => onNode(host, path, ino => fs.listxattr(ino, ctx))),
    removexattr: (path, name, answer) =>
      answerVoid(host, 'REMOVEXATTR', answer, () =>
        onNode(host, path, ino => fs.removexattr(ino, name, ctx)),
      ),
  }
}
