/**
 * Which transport a run of the tests is about: the same tests run once with each (scripts/transports.mjs).
 *
 * What `fuse-native` cannot do is left out here and there with `isNative`; that it cannot is what
 * test/fuse-native/differences.test.ts expects, row by row of docs/SEMANTICS.md.
 */
export type Transport = 'native' | 'fuse-native'

export const testTransport: Transport =
  process.env.CIDFS_TEST_TRANSPORT === 'fuse-native' ? 'fuse-native' : 'native'

export const isNative = testTransport === 'native'

/** A script without the lines that end in this mark, where the transport cannot do what they do. */
export function forTransport(script: string): string {
  return isNative ? script : script.replaceAll(/^.*# not fuse-native$/gm, '')
}

/** The entries of `all` less those named in `lacking`, where the transport lacks them. */
export function supported<T>(all: Record<string, T>, lacking: readonly string[]): Record<string, T> {
  const left = Object.entries(all).filter(([name]) => isNative || !lacking.includes(name))
  const unknown = lacking.filter(name => !(name in all))
  if (unknown.length > 0) throw new Error(`no such entry: ${unknown.join(', ')}`)
  return Object.fromEntries(left)
}
