/**
 * Which test files run a second time, over the transport `fuse-native`: those of reading and staging on a real mount.
 * Files that are about the native transport, or the same whatever the transport is, run once.
 */

/** Files of `test/mount`. */
const BOTH = new Set([
  ...[
    'bad-input',
    'crash',
    'cycles',
    'fetches',
    'fixtures',
    'fsck',
    'hostile',
    'ipns',
    'life',
    'model',
    'model-data',
  ],
  ...['kept-once', 'pins', 'posix', 'programs', 'publish-queue', 'semantics', 'shapes', 'sources'],
  ...['space', 'space-cache', 'space-limit', 'staging', 'staging-cids', 'staging-tools', 'tools'],
])

/** The model tests and the crash test run their full length once. */
const SHORTER = { CIDFS_MODEL_RUNS: '60', CIDFS_CRASH_KILLS: '40' }

/** Runs of one compiled test file, given by its path below `dist/test`: { suffix, env }. */
export function runsOf(path) {
  const once = { suffix: '', env: {} }
  const [, name] = /^mount\/(.*)\.test\.js$/.exec(path) ?? []
  if (name === undefined || !BOTH.has(name)) return [once]
  const shorter = Object.entries(SHORTER).filter(([key]) => process.env[key] === undefined)
  const env = { ...Object.fromEntries(shorter), CIDFS_TEST_TRANSPORT: 'fuse-native' }
  return [once, { suffix: ' (fuse-native)', env }]
}
