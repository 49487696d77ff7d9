/** What one check of `cidfs doctor` says. It is printed with `--json`: fields are only ever added. */

export type DoctorState = 'ok' | 'warn' | 'fail'

export interface DoctorCheck {
  name: string
  state: DoctorState
  /** What was found, in one line. */
  found: string
  /** What to do, in one line; null where nothing is to be done. */
  advice: string | null
  /** The same for programs, where there is more to say. */
  details?: Record<string, string | number | boolean | null | string[]>
}

export interface DoctorReport {
  /** The worst of the checks. */
  state: DoctorState
  checks: DoctorCheck[]
}

export function fine(name: string, found: string, details?: DoctorCheck['details']): DoctorCheck {
  return { name, state: 'ok', found, advice: null, ...(details && { details }) }
}

export function trouble(
  name: string,
  state: 'warn' | 'fail',
  found: string,
  advice: string | null,
): DoctorCheck {
  return { name, state, found, advice }
}
