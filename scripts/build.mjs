/**
 * Compiles native/ to build/, and the TypeScript of src/, test/ and scripts/ to dist/.
 *
 * Nothing is done when no source has changed. What was compiled from a source that is gone is removed:
 * otherwise its tests would go on running.
 */
import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { join, relative } from 'node:path'
import { buildNative } from './build-native.mjs'
import { isMain, mainFile, Problem, root, run, script } from './steps.mjs'

const SOURCE_DIRECTORIES = ['src', 'test', 'scripts']

export function build() {
  nativeAddon()
  const stamp = join(root, 'dist', '.sources')
  const sources = hashOfSources()
  if (existsSync(mainFile) && existsSync(stamp) && readFileSync(stamp, 'utf8') === sources) return
  rmSync(stamp, { force: true })
  run(process.execPath, [join(root, 'node_modules', 'typescript', 'bin', 'tsc'), '-p', root])
  for (const dir of SOURCE_DIRECTORIES) removeOrphans(join(root, 'dist', dir), join(root, dir))
  chmodSync(mainFile, 0o755)
  mkdirSync(join(root, 'dist'), { recursive: true })
  writeFileSync(stamp, sources)
}

function nativeAddon() {
  try {
    buildNative()
  } catch (err) {
    throw new Problem(err.message)
  }
}

/** Names, sizes and times of everything the compiler reads. */
function hashOfSources() {
  const hash = createHash('sha256')
  const files = SOURCE_DIRECTORIES.flatMap(dir =>
    filesBelow(join(root, dir)).filter(file => file.endsWith('.ts')),
  )
  for (const file of [...files, join(root, 'tsconfig.json'), join(root, 'package-lock.json')]) {
    const { mtimeMs, size } = statSync(file)
    hash.update(JSON.stringify([relative(root, file), mtimeMs, size]))
  }
  return hash.digest('hex')
}

function removeOrphans(outputs, sources) {
  for (const file of filesBelow(outputs)) {
    const source = join(sources, relative(outputs, file).replace(/\.js(\.map)?$/, '.ts'))
    if (!existsSync(source)) rmSync(file)
  }
}

/** Files below a directory, sorted; none when it does not exist. */
export function filesBelow(dir) {
  if (!existsSync(dir)) return []
  const entries = readdirSync(dir, { withFileTypes: true, recursive: true })
  return entries
    .filter(entry => entry.isFile())
    .map(entry => join(entry.parentPath ?? entry.path, entry.name))
    .sort()
}

if (isMain(import.meta.url)) await script('build', build)
