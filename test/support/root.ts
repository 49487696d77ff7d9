/** Where files of the repository are, whatever folder the compiled tests lie in. */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

/** The directory of package.json. */
export const packageRoot = walkUp(dirname(fileURLToPath(import.meta.url)), 'package.json')

/** The folder that holds the `src` and `test` compiled together with this file. */
export const distRoot = join(dirname(fileURLToPath(import.meta.url)), '..', '..')

/** The compiled command line that belongs to these tests. */
export const mainFile = join(distRoot, 'src', 'cli', 'main.js')

function walkUp(dir: string, name: string): string {
  if (existsSync(join(dir, name))) return dir
  if (dirname(dir) === dir) throw new Error(`no ${name} above ${fileURLToPath(import.meta.url)}`)
  return walkUp(dirname(dir), name)
}

/**
 * CAR files of other projects with what they must read as. They are not part of the repository: they lie beside
 * a checkout, or where CIDFS_FIXTURES says.
 */
const fixturesDir = process.env.CIDFS_FIXTURES ?? join(packageRoot, '..', 'shared', 'fixtures')

/** Why tests that read the fixtures are skipped; false when they are there. */
export function missingFixtures(): string | false {
  return existsSync(fixturesDir) ? false : `there are no fixtures in ${fixturesDir} (CIDFS_FIXTURES)`
}

/** A CAR, or `expect/<name>.json`, of the fixtures. */
export function fixture(name: string): string {
  return join(fixturesDir, name)
}

/** A checking tool that belongs to the fixtures, for example `check_mount.py`. */
export function tool(name: string): string {
  return join(fixturesDir, '..', 'tools', name)
}

/** A module of `scripts/`, which TypeScript does not compile. */
export async function importScript<T>(name: string): Promise<T> {
  return (await import(pathToFileURL(join(packageRoot, 'scripts', name)).href)) as T
}
