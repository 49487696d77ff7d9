/**
 * Which test files run a second time, over the transport `fuse-native`: every test of reading and staging on a real
 * mount. Test files that are about the native transport, or the same whatever the transport is, run once.
 */

/** Files of `test/mount` that run once. */
const ONCE = new Set([
  'exists', // asks neighbours, not the mount
  'fsck',
  'neighbours',
  'passthrough',
  'space',
  'space-cache',
  'space-full',
  'takeover-loop',
])

/** The model tests and the crash test run their full length once. */
const SHORTER = { CIDFS_MODEL_RUNS: '60', CIDFS_CRASH_KILLS: '40' }

/** Runs of one compiled test file, given by its path below `dist/test`: { suffix, env }. */
export function runsOf(path) {
  const once = { suffix: '', env: {} }
  const [, name] = /^mount\/(.*)\.test\.js$/.exec(path) ?? []
  if (name === undefined || ONCE.has(name)) return [once]
  const shorter = Object.entries(SHORTER).filter(([key]) => process.env[key] === undefined)
  const env = { ...Object.fromEntries(shorter), CIDFS_TEST_TRANSPORT: 'fuse-native' }
  return [once, { suffix: ' (fuse-native)', env }]
}
