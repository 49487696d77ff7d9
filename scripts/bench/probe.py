"""One measurement, in a process of its own: `probe.py OPERATION JSON` prints seconds as JSON.

Invariant: nothing is measured but system calls on the paths given; buffers are made before the clock starts, and
the process and what it started end with the benchmark, however that ends.
Why Python: it can be killed while the kernel waits for a reply, starts with no state of the run before, and reads
extended attributes.
"""
import ctypes
import hashlib
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import threading
import time

MIB = 1 << 20
POLL_S = 0.002
clock = time.monotonic
libc = ctypes.CDLL(None)


def die_with_parent():
    PR_SET_PDEATHSIG = 1
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def read(path, requestBytes):
    buffer = bytearray(requestBytes)
    start = clock()
    fd = os.open(path, os.O_RDONLY)
    total = 0
    while (n := os.readv(fd, [buffer])) > 0:
        total += n
    os.close(fd)
    return {"seconds": clock() - start, "bytes": total}


def random_reads(path, requestBytes, count, seed):
    buffer = bytearray(requestBytes)
    fd = os.open(path, os.O_RDONLY)
    slots = random.Random(seed).sample(range(os.fstat(fd).st_size // requestBytes), count)
    latencies = []
    for slot in slots:
        start = clock()
        if os.preadv(fd, [buffer], slot * requestBytes) != requestBytes:
            raise OSError(f"{path}: short read")
        latencies.append(clock() - start)
    os.close(fd)
    return {"latencies": latencies}


def write(path, sizeBytes, requestBytes, fsync):
    data = memoryview(os.urandom(MIB))
    pieces = [data[at : at + requestBytes] for at in range(0, MIB, requestBytes)]
    start = clock()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for i in range(sizeBytes // requestBytes):
        os.write(fd, pieces[i % len(pieces)])
    if fsync:
        os.fsync(fd)
    os.close(fd)
    return {"seconds": clock() - start}


def command(argv, limitSeconds, linesExpected=None):
    path = os.devnull if linesExpected is None else os.path.join(os.environ["TMPDIR"], "probe-output")
    with open(path, "w+") as output:
        start = clock()
        try:
            child = dict(stdout=output, preexec_fn=die_with_parent, check=True, timeout=limitSeconds)
            subprocess.run(argv, **child)
        except subprocess.TimeoutExpired:
            return {"exceeded": limitSeconds}
        seconds = clock() - start
        if linesExpected is None:
            return {"seconds": seconds}
        output.seek(0)
        lines = sum(1 for _ in output)
    if lines != linesExpected:
        raise OSError(f"{argv}: {lines} lines where {linesExpected} were expected")
    return {"seconds": seconds}


def wait_until_pinned(path):
    while (state := os.getxattr(path, "user.ipfs.state")) != b"pinned":
        if state == b"failed":
            raise OSError(f"{path}: {os.getxattr(path, 'user.ipfs.error').decode()}")
        time.sleep(POLL_S)


def sync_all(path):
    fd = os.open(path, os.O_RDONLY)
    libc.syncfs(fd)
    os.close(fd)


def publish(source, target, pinned, limitSeconds):
    """Copies, then waits until the copy is pinned, or until it is on the disk."""
    start = clock()
    result = command(["cp", "-r", source, target], limitSeconds)
    if "exceeded" in result:
        return result
    copied = clock()
    (wait_until_pinned if pinned else sync_all)(target)
    end = clock()
    return {"copy": copied - start, "settled": end - copied, "total": end - start}


def sha256(path, workers):
    """All of a file that is in the page cache, on so many cores."""
    with open(path, "rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))
    starts = list(range(0, len(view), MIB))

    def work(first):
        for at in starts[first::workers]:
            hashlib.sha256(view[at : at + MIB]).digest()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(workers)]
    start = clock()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"seconds": clock() - start}


OPERATIONS = {
    "read": read,
    "random": random_reads,
    "write": write,
    "command": command,
    "publish": publish,
    "sha256": sha256,
}

die_with_parent()
print(json.dumps(OPERATIONS[sys.argv[1]](**json.loads(sys.argv[2]))))
