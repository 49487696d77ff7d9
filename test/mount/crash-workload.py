"""Writes into a mount whose daemon gets killed, and knows what has to be there afterwards.

Usage: crash-workload.py STAGING SEED WORKERS LOG; commands are lines on standard input, each answered by a line of
JSON. Each worker owns some names and keeps a model of them: what every call that returned has made of them. A call
that the crash cut off leaves several worlds that are right; what is found must be one of them.
"""
import base64, collections, errno, hashlib, json, os, random, stat, sys, threading, traceback

STAGING, SEED, WORKERS, LOG = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
IPFS = os.path.join(os.path.dirname(STAGING), 'ipfs')
CHUNK = 1 << 20
DEAD = {errno.ENOTCONN, errno.ECONNABORTED}
DIR = 'directory'
KEPT_PINS = 40
# the first is published like any other, the second is a name that stays local
TEMPORARY = ('.tmp', '.part')
log_file = open(LOG, 'a', buffering=1)


class Mix(collections.namedtuple('Mix', 'old new')):
    """A file half-way through one write: the new bytes up to some point, the old ones behind it."""

    def fits(self, found):
        if not isinstance(found, bytes) or not min(map(len, self)) <= len(found) <= max(map(len, self)):
            return False
        same = len(os.path.commonprefix([found, self.new]))
        return found[same:] == self.old[same:]


def fits(expected, found):
    return expected.fits(found) if isinstance(expected, Mix) else expected == found


def cid_of(data):
    """Of content that is one raw leaf."""
    return 'b' + base64.b32encode(b'\x01\x55\x12\x20' + hashlib.sha256(data).digest()).decode().lower().rstrip('=')


def read(path):
    with open(path, 'rb', 0) as f:
        return f.read()


class Worker:
    def __init__(self, number):
        self.number = number
        self.top = f'w{number}'
        self.model = {}
        self.worlds = [{}]
        self.pinned = collections.OrderedDict()
        self.recent = collections.deque(maxlen=12)
        self.done = collections.Counter()
        self.files = [f'r{number}-{i}' for i in range(3)] + [f'{self.top}/f{i}' for i in range(6)]
        self.dirs = [f'{self.top}/d{i}' for i in range(3)]

    # calls: the worlds that are right while one runs, and the one that is right once it has returned

    def call(self, what, worlds, run):
        self.worlds = worlds
        self.note(what)
        result = run()
        self.apply(worlds[-1])
        self.worlds = [{}]
        self.note('ok')
        self.done[what.split(' ')[0]] += 1
        return result

    def note(self, text):
        self.recent.append(text)
        log_file.write(f'{self.number} {text}\n')

    def apply(self, world):
        for path, value in world.items():
            if isinstance(value, Mix):
                value = value.new
            if value is None:
                self.model.pop(path, None)
            else:
                self.model[path] = value

    def path(self, name):
        return os.path.join(STAGING, name)

    def with_parent(self, name):
        """Makes the directory that `name` lies in."""
        parent = os.path.dirname(name)
        if parent != '' and parent not in self.model:
            self.with_parent(parent)
            self.call(f'mkdir {parent}', [{}, {parent: DIR}], lambda: os.mkdir(self.path(parent)))

    def write_to(self, fd, name, data, append=False):
        """write(2) in pieces; `data` replaces the beginning of the file, or is added to it."""
        for at in range(0, len(data), CHUNK):
            old, piece = self.model[name], data[at:at + CHUNK]
            offset = len(old) if append else at
            new = old[:offset] + piece + old[offset + len(piece):]
            run = (lambda: os.write(fd, piece)) if append else (lambda: os.pwrite(fd, piece, offset))
            taken = self.call(f'write {name} {offset}+{len(piece)}', [{name: Mix(old, new)}], run)
            if taken < len(piece):
                # the kernel asks page by page; what was taken before the daemon died counts as written
                self.model[name] = old[:offset] + piece[:taken] + old[offset + taken:]
                raise OSError(errno.ENOTCONN, f'{taken} of {len(piece)} bytes taken')

    def edit(self, name, flags, data, sync):
        self.with_parent(name)
        old = self.model.get(name, b'')
        opened = {name: b'' if flags & os.O_TRUNC else old}
        what = f'open {name} {"truncate" if flags & os.O_TRUNC else "append" if flags & os.O_APPEND else "edit"}'
        worlds = [{}, opened]
        fd = self.call(what, worlds, lambda: os.open(self.path(name), flags | os.O_WRONLY | os.O_CREAT, 0o644))
        try:
            self.write_to(fd, name, data, bool(flags & os.O_APPEND))
            if sync:
                self.call(f'fsync {name}', [{}], lambda: os.fsync(fd))
        finally:
            os.close(fd)

    def rename(self, a, b):
        moved = {b + path[len(a):]: value for path, value in self.model.items() if path == a or path.startswith(a + '/')}
        gone = {path: None for path in self.model if path == a or path.startswith(a + '/')}
        self.call(f'rename {a} {b}', [{}, {**gone, **moved}], lambda: os.rename(self.path(a), self.path(b)))

    def look_at(self, name):
        """Notes the CID of a file that says it is pinned. Nobody else changes it."""
        path = self.path(name)
        self.note(f'look {name}')
        if os.getxattr(path, 'user.ipfs.state') != b'pinned':
            return
        cid, data = os.getxattr(path, 'user.ipfs.cid').decode(), self.model[name]
        assert len(data) > CHUNK or cid == cid_of(data), f'{name}: {cid} is not the CID of what was written'
        self.pinned[cid] = data
        self.pinned.move_to_end(cid)
        if len(self.pinned) > KEPT_PINS:
            self.pinned.popitem(last=False)
        self.done['pinned'] += 1

    def step(self, rng):
        files = sorted(name for name, value in self.model.items() if isinstance(value, bytes) and not name.endswith(TEMPORARY))
        subs = sorted(name for name in self.dirs if name in self.model)
        target = rng.choice(self.files + [f'{d}/g{i}' for d in self.dirs for i in range(2)])
        size = rng.choice([0, rng.randrange(200), 4096, rng.randrange(9000), rng.randrange(65000, 66100),
                           rng.randrange(300000)] * 3 + [rng.randrange(CHUNK, 2 * CHUNK + 100000)])
        data, sync = rng.randbytes(size), rng.random() < 0.4
        choice = rng.random()
        if choice < 0.25:
            self.edit(target, os.O_TRUNC, data, sync)
        elif choice < 0.38:
            self.edit(target, os.O_APPEND, data[:100000], sync)
        elif choice < 0.46:
            self.edit(target, 0, data[:100000], sync)
        elif choice < 0.64:
            temporary = target + rng.choice(TEMPORARY)
            self.edit(temporary, os.O_TRUNC, data, sync)
            self.rename(temporary, target)
        elif choice < 0.70 and files:
            name, length = rng.choice(files), rng.randrange(5000)
            new = self.model[name][:length].ljust(length, b'\0')
            self.call(f'truncate {name} {length}', [{}, {name: new}], lambda: os.truncate(self.path(name), length))
        elif choice < 0.78 and files:
            name = rng.choice(files)
            self.call(f'unlink {name}', [{}, {name: None}], lambda: os.unlink(self.path(name)))
        elif choice < 0.84 and files:
            self.with_parent(target)
            name = rng.choice(files)
            if name != target:
                self.rename(name, target)
        elif choice < 0.88 and subs:
            free = [name for name in self.dirs if name not in self.model]
            if free:
                self.rename(rng.choice(subs), rng.choice(free))
        elif choice < 0.90 and subs:
            self.remove_tree(rng.choice(subs))
        elif choice < 0.92:
            name, to = f'r{self.number}-link', rng.choice(self.files)
            if name in self.model:
                self.call(f'unlink {name}', [{}, {name: None}], lambda: os.unlink(self.path(name)))
            self.call(f'symlink {name}', [{}, {name: ('link', to)}], lambda: os.symlink(to, self.path(name)))
        elif files:
            self.look_at(rng.choice(files))

    def remove_tree(self, directory):
        for name in [name for name in self.model if name.startswith(directory + '/')]:
            self.call(f'unlink {name}', [{}, {name: None}], lambda name=name: os.unlink(self.path(name)))
        self.call(f'rmdir {directory}', [{}, {directory: None}], lambda: os.rmdir(self.path(directory)))

    def run(self, round_number, stop, faults):
        rng = random.Random(f'{SEED} {round_number} {self.number}')
        try:
            while not stop.is_set():
                self.step(rng)
        except OSError as e:
            if e.errno not in DEAD:
                faults.append(f'worker {self.number}: {e!r} after {list(self.recent)}')
        except AssertionError as e:
            faults.append(f'worker {self.number}: {e} after {list(self.recent)}')

    # what is there after the restart

    def check(self, found, faults):
        right = [world for world in self.worlds if self.is_world(world, found)]
        if not right:
            faults.append(f'worker {self.number}: {self.difference(found)} after {list(self.recent)}')
        self.model, self.worlds = found, [{}]

    def is_world(self, world, found):
        expected = {path: value for path, value in {**self.model, **world}.items() if value is not None}
        return expected.keys() == found.keys() and all(fits(value, found[path]) for path, value in expected.items())

    def difference(self, found):
        expected = {path: value for path, value in {**self.model, **self.worlds[-1]}.items() if value is not None}
        paths = [path for path in {*expected, *found} if not fits(expected.get(path), found.get(path))]
        return '; '.join(f'{path}: expected {show(expected.get(path))}, found {show(found.get(path))}' for path in sorted(paths))

    def forget_unstaged(self):
        """Garbage was collected: what is not staged any more need not be there (what is short may be staged anew)."""
        staged = {value for value in self.model.values() if isinstance(value, bytes) and len(value) > 64}
        self.pinned = collections.OrderedDict((cid, data) for cid, data in self.pinned.items() if data in staged)

    def check_pins(self, faults):
        for cid, data in self.pinned.items():
            if read(os.path.join(IPFS, cid)) != data:
                faults.append(f'worker {self.number}: ipfs/{cid} reads as something else')


def show(value):
    if isinstance(value, Mix):
        return f'{show(value.old)} turning into {show(value.new)}'
    return f'{len(value)} bytes {value[:8].hex()}' if isinstance(value, bytes) else str(value)


def find(top, faults):
    """Everything below a directory, read in full; what listing, lookup and content say must agree."""
    found = {}
    names = sorted(os.scandir(os.path.join(STAGING, top)), key=lambda entry: entry.name)
    if len({entry.name for entry in names}) != len(names):
        faults.append(f'{top}: a name is listed twice')
    for entry in names:
        name = os.path.join(top, entry.name)
        st = os.lstat(entry.path)
        if entry.inode() != st.st_ino:
            faults.append(f'{name}: listed as inode {entry.inode()}, looked up as {st.st_ino}')
        if stat.S_ISDIR(st.st_mode):
            found[name] = DIR
            found.update(find(name, faults))
        elif stat.S_ISLNK(st.st_mode):
            found[name] = ('link', os.readlink(entry.path))
        else:
            found[name] = read(entry.path)
            if st.st_size != len(found[name]):
                faults.append(f'{name}: size {st.st_size}, but {len(found[name])} bytes')
    return found


workers = [Worker(number) for number in range(WORKERS)]
running, stop, run_faults = [], threading.Event(), []


def start(round_number):
    stop.clear()
    run_faults.clear()
    running[:] = [threading.Thread(target=worker.run, args=(round_number, stop, run_faults)) for worker in workers]
    for thread in running:
        thread.start()
    return {}


def join(_=None):
    """Until every worker has met the end of the daemon, or has done a last step."""
    for thread in running:
        thread.join()
    return {'faults': run_faults, 'calls': sum(sum(worker.done.values()) for worker in workers)}


def finish(_=None):
    stop.set()
    return join()


def check(collected):
    faults = []
    found = find('', faults)
    for worker in workers:
        mine = (f'r{worker.number}-', worker.top)
        worker.check({path: value for path, value in found.items() if path.startswith(mine)}, faults)
        if collected:
            worker.forget_unstaged()
        worker.check_pins(faults)
    return {'faults': faults + run_faults, 'files': len(found)}


def published(_=None):
    """Everything is said to be published: with the CID of its content, in every file."""
    faults = []
    for worker in workers:
        for name, data in worker.model.items():
            if isinstance(data, bytes) and not name.endswith('.part'):
                cid = os.getxattr(worker.path(name), 'user.ipfs.cid').decode()
                if (len(data) <= CHUNK and cid != cid_of(data)) or read(os.path.join(IPFS, cid)) != data:
                    faults.append(f'{name}: {cid} is not the CID of its content')
    return {'faults': faults}


def mirror(directory):
    """Writes what must be staged below a local directory."""
    for worker in workers:
        for name, value in sorted(worker.model.items()):
            path = os.path.join(directory, name)
            if value == DIR:
                os.mkdir(path)
            elif isinstance(value, bytes) and not name.endswith('.part'):
                with open(path, 'wb') as f:
                    f.write(value)
    return {'done': dict(sum((worker.done for worker in workers), collections.Counter()))}


COMMANDS = {'start': start, 'join': join, 'finish': finish, 'check': check, 'published': published,
            'mirror': mirror}
for line in sys.stdin:
    command, _, argument = line.strip().partition(' ')
    try:
        answer = COMMANDS[command](argument)
    except OSError:
        answer = {'faults': [traceback.format_exc()]}
    print(json.dumps(answer), flush=True)
