/** What processes cost, as /proc tells it. */
import { readFile } from 'node:fs/promises'

/** USER_HZ: fixed by the kernel's interface, whatever its own clock. */
const TICKS_PER_SECOND = 100

/** CPU time of a process and all its threads so far. @throws when it has ended. */
export async function cpuSeconds(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ') // the name may hold spaces
  return (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND
}

export interface Memory {
  /** Resident now. */
  rssBytes: number
  /** The most that was ever resident. */
  peakBytes: number
}

export async function memoryOf(pid: number): Promise<Memory> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8')
  const bytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1]) * 1024
  return { rssBytes: bytes('VmRSS'), peakBytes: bytes('VmHWM') }
}
