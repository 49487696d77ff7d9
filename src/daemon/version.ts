/** The version of the program, from the package.json it was installed with. */
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

/** The package's directory, wherever the compiled files lie below it. */
export const PACKAGE_ROOT = findPackageRoot(dirname(fileURLToPath(import.meta.url)))

export const VERSION = (
  JSON.parse(readFileSync(join(PACKAGE_ROOT, 'package.json'), 'utf8')) as { version: string }
).version

function findPackageRoot(dir: string): string {
  try {
    readFileSync(join(dir, 'package.json'))
    return dir
  } catch (err) {
    if (dirname(dir) === dir) throw err
    return findPackageRoot(dirname(dir))
  }
}
