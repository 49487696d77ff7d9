/**
 * The thread that watches the main thread, says where it hangs, and ends the process.
 *
 * Invariant: what can be said without the main thread is said first. A thread that runs JavaScript answers a debugger
 * in the midst of its loop; one that is in a system call does not, and then this thread may hang with it: the end is
 * left to the supervisor.
 */
import { readFileSync, writeSync } from 'node:fs'
import { type Debugger, Session } from 'node:inspector'
import { setTimeout as sleep } from 'node:timers/promises'
import { parentPort, workerData } from 'node:worker_threads'
import type { WatchdogData } from './watchdog.js'

const DUMP_TIMEOUT_MS = 2000
const STDERR = 2
/** As in `watchdog.ts`; evaluated in the main thread. */
const IN_FLIGHT = `globalThis[Symbol.for('cidfs:in-flight')]?.() ?? ''`

const { beats, limitMs } = workerData as WatchdogData
const counter = new Int32Array(beats)

async function watch(): Promise<void> {
  let [seen, since] = [Atomics.load(counter, 0), performance.now()]
  for (;;) {
    await sleep(limitMs / 8)
    const now = Atomics.load(counter, 0)
    if (now !== seen) [seen, since] = [now, performance.now()]
    else if (performance.now() - since > limitMs) return
  }
}

async function dump(): Promise<string> {
  const session = new Session()
  session.connectToMainThread()
  const urls = new Map<string, string>()
  session.on('Debugger.scriptParsed', ({ params: { scriptId, url } }) => urls.set(scriptId, url))
  const paused = new Promise<string>(resolve => {
    session.on('Debugger.paused', ({ params }) => {
      inFlight(session, params.callFrames[0]?.callFrameId, text =>
        resolve(stackOf(params.callFrames, urls) + text),
      )
    })
  })
  session.post('Debugger.enable')
  session.post('Debugger.pause')
  const nothing = 'the main thread does not answer a debugger: it is not running JavaScript\n'
  return Promise.race([paused, sleep(DUMP_TIMEOUT_MS, nothing)])
}

function inFlight(session: Session, callFrameId = '', done: (text: string) => void): void {
  const options = { callFrameId, expression: IN_FLIGHT, returnByValue: true }
  session.post('Debugger.evaluateOnCallFrame', options, (_err, answer?: object) => {
    const { result } = (answer ?? {}) as Partial<Debugger.EvaluateOnCallFrameReturnType>
    const text = String(result?.value ?? '')
    done(`requests in flight:\n${text === '' ? '  none\n' : text}`)
  })
}

function stackOf(frames: Debugger.CallFrame[], urls: Map<string, string>): string {
  const lines = frames.map(({ functionName, location }) => {
    const { scriptId, lineNumber, columnNumber = 0 } = location
    return `  at ${functionName || '(anonymous)'} (${urls.get(scriptId) ?? ''}:${lineNumber + 1}:${columnNumber + 1})\n`
  })
  return `the main thread:\n${lines.join('')}`
}

/** Where the main thread is in the kernel; its id is that of the process. */
function kernelStack(): string {
  const read = (name: string): string => {
    try {
      return readFileSync(`/proc/self/task/${process.pid}/${name}`, 'utf8').trim()
    } catch (err) {
      return String((err as Error).message)
    }
  }
  const lines = ['wchan', 'syscall', 'stack'].map(name => `  ${name}: ${read(name)}\n`)
  return `in the kernel:\n${lines.join('')}`
}

parentPort?.postMessage('watching')
await watch()
const head = `${new Date().toISOString()} cidfs (pid ${process.pid}): the main thread has hung for ${limitMs / 1000} s\n`
writeSync(STDERR, `${head}${kernelStack()}`)
writeSync(STDERR, await dump().catch(err => `no stack: ${String(err)}\n`))
writeSync(STDERR, 'ending this daemon, so that another goes on\n')
process.kill(process.pid, 'SIGKILL')
