"""Changes files in every way there is, beside a copy of each in memory.

Usage: model-data.py STAGING IPFS SHADOWS. Each line of standard input is JSON: {"file": name, "operations": [...]};
each is answered by one line: null, or what was not as in the copy. Copies are kept in the folder SHADOWS, so that
another run goes on with the same files.
"""
import ctypes, json, mmap, os, sys, time

libc = ctypes.CDLL(None, use_errno=True)
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE = 1, 2, 0x10
PUBLISH_S = 15


def content(seed, length):
    pattern = bytes((seed * 31 + i * 7) & 0xff for i in range(251))
    return (pattern * (length // 251 + 1))[:length]


class Data:
    """One open file, perhaps mapped, and what it must hold."""

    def __init__(self, path, ipfs, shadow):
        self.path, self.ipfs = path, ipfs
        self.view = None
        self.bytes = bytearray(open(shadow, 'rb').read() if os.path.exists(shadow) else b'')
        self.fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)

    def put(self, offset, data):
        if len(self.bytes) < offset: self.bytes.extend(bytes(offset - len(self.bytes)))
        self.bytes[offset:offset + len(data)] = data

    def clear(self, offset, length):
        end = min(len(self.bytes), offset + length)
        if end > offset: self.bytes[offset:end] = bytes(end - offset)

    def same(self, found, offset, length):
        expected = bytes(self.bytes[offset:offset + length])
        if found == expected: return None
        at = next((i for i, (a, b) in enumerate(zip(found, expected)) if a != b), min(len(found), len(expected)))
        return f'{len(found)} bytes instead of {len(expected)} at {offset}, first difference at {offset + at}'

    def pwrite(self, offset, seed, length):
        data = content(seed, length)
        written = os.pwrite(self.fd, data, offset)
        if length > 0: self.put(offset, data[:written])
        return None if written == length else f'{written} of {length} bytes written'

    def pread(self, offset, length): return self.same(os.pread(self.fd, length, offset), offset, length)

    def append(self, seed, length):
        fd = os.open(self.path, os.O_WRONLY | os.O_APPEND)
        try: self.put(len(self.bytes), content(seed, os.write(fd, content(seed, length))))
        finally: os.close(fd)

    def truncate(self, size):
        os.ftruncate(self.fd, size)
        self.bytes[size:] = bytes(max(0, size - len(self.bytes)))

    def by_path(self, size):
        os.truncate(self.path, size)
        self.bytes[size:] = bytes(max(0, size - len(self.bytes)))

    def empty(self):
        os.close(os.open(self.path, os.O_WRONLY | os.O_TRUNC))
        self.bytes = bytearray()

    def fallocate(self, mode, offset, length):
        done = libc.fallocate(self.fd, mode, ctypes.c_long(offset), ctypes.c_long(length))
        if done != 0: raise OSError(ctypes.get_errno(), 'fallocate')
        if mode & (PUNCH_HOLE | ZERO_RANGE): self.clear(offset, length)
        if not mode & KEEP_SIZE and len(self.bytes) < offset + length:
            self.bytes.extend(bytes(offset + length - len(self.bytes)))

    def map(self):
        self.unmap()
        if self.bytes: self.view = mmap.mmap(self.fd, len(self.bytes))

    def poke(self, offset, seed, length):
        """Through the mapping, within what the file has: what is behind its end would be SIGBUS."""
        if self.view is None: self.map()
        if self.view is None: return None
        end = min(len(self.view), len(self.bytes), offset + length)
        if end > offset:
            self.view[offset:end] = content(seed, end - offset)
            self.put(offset, content(seed, end - offset))

    def peek(self, offset, length):
        if self.view is None: return None
        end = min(len(self.view), len(self.bytes), offset + length)
        return self.same(self.view[offset:end], offset, end - offset) if end > offset else None

    def msync(self):
        if self.view is not None: self.view.flush()

    def unmap(self):
        if self.view is not None: self.view.close()
        self.view = None

    def private(self, offset, seed, length):
        """What is written to a private mapping is seen there, and never in the file."""
        if not self.bytes: return None
        with mmap.mmap(self.fd, len(self.bytes), mmap.MAP_PRIVATE) as view:
            data = content(seed, max(0, min(length, len(view) - offset)))
            view[offset:offset + len(data)] = data
            if view[offset:offset + len(data)] != data: return 'a private mapping lost what was written'
        return self.pread(offset, length)

    def fsync(self): os.fsync(self.fd)
    def size(self): return None if os.fstat(self.fd).st_size == len(self.bytes) else f'size {os.fstat(self.fd).st_size}'

    def holes(self):
        """Data and holes alternate to the end, and every hole reads as zeros."""
        at = 0
        while at < len(self.bytes):
            try: data = os.lseek(self.fd, at, os.SEEK_DATA)
            except OSError: data = len(self.bytes)  # ENXIO: nothing but a hole
            if any(self.bytes[at:data]): return f'[{at}, {data}) is no hole'
            if data >= len(self.bytes): return None
            at = os.lseek(self.fd, data, os.SEEK_HOLE)
            if at <= data: return f'the hole behind {data} begins at {at}'
        os.lseek(self.fd, 0, os.SEEK_SET)

    def reopen(self):
        os.close(self.fd)
        self.fd = os.open(self.path, os.O_RDWR)
        return self.size()

    def publish(self):
        """Until it is pinned: its CID has the same bytes."""
        self.unmap()
        os.close(self.fd)
        try:
            end = time.monotonic() + PUBLISH_S
            while (state := os.getxattr(self.path, 'user.ipfs.state')) != b'pinned':
                if time.monotonic() > end: return f'stays {state}'
                time.sleep(0.002)
            cid = os.getxattr(self.path, 'user.ipfs.cid').decode()
            return self.same(open(f'{self.ipfs}/{cid}', 'rb').read(), 0, len(self.bytes))
        finally:
            self.fd = os.open(self.path, os.O_RDWR)

    def whole(self): return self.size() or self.pread(0, len(self.bytes) + 1)

    def end(self):
        self.unmap()
        os.close(self.fd)


def difference(data, operations):
    for i, (name, *args) in enumerate(operations):
        try: found = getattr(data, name)(*args)
        except OSError as e: found = str(e)
        if found is not None: return dict(step=i, operation=[name, *args], found=found)
    found = data.whole()
    return None if found is None else dict(end=found)


def main(staging, ipfs, shadows):
    for line in sys.stdin:
        task = json.loads(line)
        shadow = os.path.join(shadows, task['file'])
        data = Data(os.path.join(staging, task['file']), ipfs, shadow)
        try: found = difference(data, task['operations'])
        finally: data.end()
        with open(shadow, 'wb') as f: f.write(data.bytes)
        print(json.dumps(found), flush=True)


main(*sys.argv[1:])
