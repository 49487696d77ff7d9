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

/** In the repository, or beside it where several checkouts share them. @throws Error that names both places. */
function shared(path: string): string {
  const places = [join(packageRoot, 'test', path), join(packageRoot, '..', 'shared', path)]
  const found = places.find(place => existsSync(place))
  if (found === undefined) throw new Error(`a test file is missing: ${places.join(' or ')}`)
  return found
}

/** A CAR, or `expect/<name>.json`, of the fixtures. */
export function fixture(name: string): string {
  return shared(join('fixtures', name))
}

/** A checking tool, for example `check_mount.py`. */
export function tool(name: string): string {
  return shared(join('tools', name))
}

/** A module of `scripts/`, which TypeScript does not compile. */
export async function importScript<T>(name: string): Promise<T> {
  return (await import(pathToFileURL(join(packageRoot, 'scripts', name)).href)) as T
}
