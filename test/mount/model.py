"""Runs sequences of file operations in two folders and tells where they differ.

Usage: model.py STAGING LOCAL. Each line of standard input is a sequence: a JSON list of [operation, argument...];
each is answered by one line: null when both folders gave the same results and the same tree, else what differed.
A sequence starts with two files and three folders; descriptors that it leaves open are closed at its end.

What cannot be the same is not asked: inode numbers, times of now, sizes of directories, link counts of folders
where the local disk does not count them, hard links, access times, positions within folders.
"""
import ctypes, errno, json, mmap, os, shutil, stat, sys, time, zlib

libc = ctypes.CDLL(None, use_errno=True)
OLD = 1_500_000_000  # times before it were set by utimens
SETTLE_S = 10


def content(seed, length):
    pattern = bytes((seed * 31 + i * 7) & 0xff for i in range(251))
    return (pattern * (length // 251 + 1))[:length]


def digest(data):
    return [len(data), zlib.crc32(data)]


class Folder:
    """The operations, in one folder. Paths are relative to it; descriptors are numbered slots."""

    def __init__(self, root, staged, counts_folders):
        self.root, self.staged, self.counts_folders = root, staged, counts_folders
        self.fds = {}
        for name in ('', 'd', 'd/e', 'e'): os.mkdir(self.at(name))
        self.write('a', 'O_TRUNC', 1, 100_000)
        self.write('d/a', 'O_TRUNC', 2, 10)

    def at(self, path):
        return os.path.join(self.root, path)

    def fd(self, slot):
        if not self.fds: raise OSError(errno.EBADF, 'nothing is open')
        slots = sorted(self.fds)
        return self.fds[slots[slot % len(slots)]]

    def run(self, operation):
        name, *args = operation
        try:
            return getattr(self, name)(*args)
        except OSError as e:
            return errno.errorcode[e.errno]

    def end(self):
        for fd in self.fds.values(): os.close(fd)
        self.fds = {}

    # by path
    def create(self, path, mode): os.close(os.open(self.at(path), os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    def truncate(self, path, size): os.truncate(self.at(path), size)
    def rename(self, a, b): os.rename(self.at(a), self.at(b))
    def unlink(self, path): os.unlink(self.at(path))
    def mkdir(self, path, mode): os.mkdir(self.at(path), mode)
    def rmdir(self, path): os.rmdir(self.at(path))
    def symlink(self, target, path): os.symlink(target, self.at(path))
    def readlink(self, path): return os.readlink(self.at(path))
    def chmod(self, path, mode): os.chmod(self.at(path), mode)
    def utimens(self, path, at): os.utime(self.at(path), (at, at))
    def lutimens(self, path, at): os.utime(self.at(path), (at, at), follow_symlinks=False)
    def stat(self, path): return self.described(os.stat(self.at(path)))
    def lstat(self, path): return self.described(os.lstat(self.at(path)))
    def list(self, path): return sorted(os.listdir(self.at(path)))

    def rename2(self, a, b, flags):
        done = libc.renameat2(-100, os.fsencode(self.at(a)), -100, os.fsencode(self.at(b)), flags)
        if done != 0: raise OSError(ctypes.get_errno(), 'renameat2')

    def write(self, path, flags, seed, length):
        fd = os.open(self.at(path), os.O_WRONLY | getattr(os, flags) | os.O_CREAT, 0o644)
        try: return os.write(fd, content(seed, length))
        finally: os.close(fd)

    def read(self, path):
        with open(self.at(path), 'rb') as f: return digest(f.read())

    # by descriptor
    def open(self, slot, path, flags, mode):
        fd = os.open(self.at(path), flags, mode)
        self.close_slot(slot)
        self.fds[slot] = fd

    def close_slot(self, slot):
        if slot in self.fds: os.close(self.fds.pop(slot))

    def openat(self, slot, name, flags, mode): os.close(os.open(name, flags, mode, dir_fd=self.fd(slot)))
    def pwrite(self, slot, offset, seed, length): return os.pwrite(self.fd(slot), content(seed, length), offset)
    def put(self, slot, seed, length): return os.write(self.fd(slot), content(seed, length))
    def get(self, slot, length): return digest(os.read(self.fd(slot), length))
    def pread(self, slot, offset, length): return digest(os.pread(self.fd(slot), length, offset))
    def ftruncate(self, slot, size): os.ftruncate(self.fd(slot), size)
    def fsync(self, slot): os.fsync(self.fd(slot))
    def fstat(self, slot): return self.described(os.fstat(self.fd(slot)))
    def fchmod(self, slot, mode): os.fchmod(self.fd(slot), mode)

    def seek(self, slot, offset, whence):
        if stat.S_ISREG(os.fstat(self.fd(slot)).st_mode): return os.lseek(self.fd(slot), offset, whence)

    def fallocate(self, slot, mode, offset, length):
        done = libc.fallocate(self.fd(slot), mode, ctypes.c_long(offset), ctypes.c_long(length))
        if done != 0: raise OSError(ctypes.get_errno(), 'fallocate')

    def mapped(self, slot, offset, seed, length):
        """Writes what the file has of a range through a shared mapping."""
        fd = self.fd(slot)
        size = os.fstat(fd).st_size if stat.S_ISREG(os.fstat(fd).st_mode) else 0
        length = min(length, size - offset)
        if length <= 0: return 0
        with mmap.mmap(fd, size) as view:
            view[offset:offset + length] = content(seed, length)
            view.flush()
        return length

    def publish(self, path):
        """Waits until there is nothing more to publish, where there is anything to publish."""
        if not self.staged: return
        end = time.monotonic() + SETTLE_S
        while True:
            try: state = os.getxattr(self.at(path), 'user.ipfs.state').decode()
            except OSError: return
            if state not in ('queued', 'publishing'): return
            if self.fds and os.path.isdir(self.at(path)): return  # something in it may be open
            if time.monotonic() > end: raise RuntimeError(f'{path} stays {state}')
            time.sleep(0.002)

    def described(self, st):
        kind, mode = stat.S_IFMT(st.st_mode), stat.S_IMODE(st.st_mode)
        size = -1 if kind == stat.S_IFDIR else st.st_size
        links = st.st_nlink if kind != stat.S_IFDIR or self.counts_folders else -1
        mtime = st.st_mtime_ns if st.st_mtime < OLD else 'now'
        return [kind, mode, size, links, mtime, 'now' if st.st_ctime >= OLD else 'old']

    def tree(self):
        """Everything that is there: path to description and content."""
        found = {}
        for folder, _, _ in os.walk(self.root):
            for name in os.listdir(folder):
                path = os.path.join(folder, name)
                key, st = os.path.relpath(path, self.root), os.lstat(path)
                found[key] = self.described(st)
                if stat.S_ISREG(st.st_mode): found[key] += self.read(path)
                if stat.S_ISLNK(st.st_mode): found[key] += [os.readlink(path)]
        return found


def counts_folders(where):
    os.makedirs(os.path.join(where, 'count/in'))
    links = os.stat(os.path.join(where, 'count')).st_nlink
    shutil.rmtree(os.path.join(where, 'count'))
    return links == 3


def difference(folders, operations):
    staged, local = folders
    for i, operation in enumerate(operations):
        a, b = staged.run(operation), local.run(operation)
        if a != b: return dict(step=i, operation=operation, staged=a, local=b)
    for when in ('with open files', 'at the end'):
        a, b = staged.tree(), local.tree()
        paths = sorted(path for path in {*a, *b} if a.get(path) != b.get(path))
        if paths: return dict(tree=when, differ=[[path, a.get(path), b.get(path)] for path in paths])
        for folder in folders: folder.end()
    return None


def main(staging, local):
    os.umask(0)
    counted = counts_folders(local)
    for number, line in enumerate(sys.stdin):
        folders = [Folder(os.path.join(staging, f's{number}'), True, counted),
                   Folder(os.path.join(local, f's{number}'), False, counted)]
        try:
            found = difference(folders, json.loads(line))
        finally:
            for folder in folders:
                folder.end()
                if not os.environ.get('KEEP'): shutil.rmtree(folder.root)
        print(json.dumps(found), flush=True)


main(*sys.argv[1:])
