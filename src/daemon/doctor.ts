/**
 * `cidfs doctor`: whether this machine can do what the configuration asks for, and what to do where it cannot.
 *
 * Invariant: it finds out by trying (it mounts, links extents, asks the sources), within time limits, and leaves
 * nothing behind. Nobody is contacted but the sources of the configuration. `fail` means that `cidfs mount` with the
 * same options would fail or serve nothing; `warn`, that something would be missing.
 */
import type { Config } from './config.js'
import type { DoctorCheck, DoctorReport, DoctorState } from './doctor-check.js'
import { addonCheck, kernelCheck, nodeCheck, privilegesCheck } from './doctor-machine.js'
import { probeMount } from './doctor-probe.js'
import { sourceChecks } from './doctor-sources.js'
import { stateChecks } from './doctor-state.js'
import { allowOtherCheck, deviceCheck, fusermountCheck, transportCheck } from './doctor-transport.js'

/** Tries everything. Never fails: what cannot be tried is a check that fails. */
export async function examine(config: Config): Promise<DoctorReport> {
  const checks = [nodeCheck(), addonCheck(), deviceCheck()]
  const native = await probeMount('native', config)
  const fuseNative = await probeMount('fuse-native', config)
  checks.push(
    transportCheck('native', native, config),
    transportCheck('fuse-native', fuseNative, config),
    fusermountCheck(),
    allowOtherCheck(config),
    kernelCheck(native),
    privilegesCheck(native, config),
    ...(await stateChecks(config)),
    ...(await sourceChecks(config)),
  )
  return { state: worst(checks), checks }
}

function worst(checks: DoctorCheck[]): DoctorState {
  if (checks.some(({ state }) => state === 'fail')) return 'fail'
  return checks.some(({ state }) => state === 'warn') ? 'warn' : 'ok'
}
