/**
 * Callbacks on names: making, removing, renaming.
 *
 * Invariant: a name that leads elsewhere afterwards leaves the table in the same turn in which the file system has
 * changed it. Files that are unlinked while they are open lose their name, whatever libfuse calls them (names.ts).
 */
import { CidfsError } from '../core/errors.js'
import { type MaybePromise, then } from '../core/maybe-promise.js'
import type { Entry, Ino } from '../fs/file-system.js'
import { answerVoid, answerWith, type Host, inDirectory, onNode } from './host.js'
import { isHiding, keyOf } from './names.js'
import type { FuseOperations } from './package.js'
import { bytesOf, textOf } from './paths.js'

export type NameOperations = Pick<
  FuseOperations,
  'readlink' | 'mknod' | 'mkdir' | 'symlink' | 'link' | 'unlink' | 'rmdir' | 'rename'
>

export function nameOperations(host: Host): NameOperations {
  const { fs, names, requests } = host
  const ctx = requests.context
  /** Makes a name, and remembers it: the kernel asks for it next. */
  const make = (path: string, work: (parent: Ino, name: Buffer) => MaybePromise<Entry>) =>
    inDirectory(host, path, (parent, name) =>
      then(work(parent, name), entry => void names.add(keyOf(parent, name), entry)),
    )
  const remove = (path: string, work: (parent: Ino, name: Buffer) => MaybePromise<void>) =>
    inDirectory(host, path, (parent, name) => then(work(parent, name), () => names.forgetName(parent, name)))
  return {
    readlink: (path, answer) =>
      answerWith(host, 'READLINK', answer, () =>
        onNode(host, path, ino => then(fs.readlink(ino, ctx), textOf)),
      ),
    mknod: (path, mode, dev, answer) =>
      answerVoid(host, 'MKNOD', answer, () =>
        make(path, (parent, name) => fs.mknod(parent, name, mode, dev, ctx)),
      ),
    mkdir: (path, mode, answer) =>
      answerVoid(host, 'MKDIR', answer, () =>
        make(path, (parent, name) => fs.mkdir(parent, name, mode, ctx)),
      ),
    symlink: (target, path, answer) =>
      answerVoid(host, 'SYMLINK', answer, () => {
        const bytes = bytesOf(target)
        return make(path, (parent, name) => fs.symlink(parent, name, bytes, ctx))
      }),
    link: (from, to, answer) =>
      answerVoid(host, 'LINK', answer, () =>
        onNode(host, from, ino => make(to, (parent, name) => fs.link(ino, parent, name, ctx))),
      ),
    unlink: (path, answer) =>
      answerVoid(host, 'UNLINK', answer, () =>
        remove(path, (parent, name) =>
          names.unlinksHidden(parent, name) ? undefined : fs.unlink(parent, name, ctx),
        ),
      ),
    rmdir: (path, answer) =>
      answerVoid(host, 'RMDIR', answer, () => remove(path, (parent, name) => fs.rmdir(parent, name, ctx))),
    rename: (from, to, answer) => answerVoid(host, 'RENAME', answer, () => rename(host, from, to)),
  }
}

function rename(host: Host, from: string, to: string): MaybePromise<void> {
  const { fs, names, requests } = host
  return inDirectory(host, from, (parent, name) =>
    inDirectory(host, to, (newParent, newName) => {
      if (parent === newParent && isHiding(newName)) return hide(host, from, newName)
      return then(fs.rename(parent, name, newParent, newName, 0, requests.context), () => {
        names.forgetName(parent, name)
        names.forgetName(newParent, newName)
      })
    }),
  )
}

/** libfuse unlinks a file that is open, or makes room for one that is renamed over it. */
function hide(host: Host, path: string, hiddenName: Buffer): MaybePromise<void> {
  const { fs, names, files, requests } = host
  return inDirectory(host, path, (parent, name) =>
    then(names.resolve(path, requests.context), file =>
      names.during(file, () => {
        if (!files.isOpen(file.ino)) throw new CidfsError('INVALID', 'a name that libfuse keeps for itself')
        return then(fs.unlink(parent, name, requests.context), () => {
          names.forgetName(parent, name)
          names.hide(file, parent, hiddenName)
        })
      }),
    ),
  )
}
