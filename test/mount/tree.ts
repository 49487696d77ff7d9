/** A tree of some hundred files that exists twice: on the local disk, and behind a gateway. */
import { mkdir, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { CID } from '../../src/core/cid.js'
import { type Dag, link, pattern } from '../support/dag.js'

/** Sizes around pages, chunks and requests of the kernel. */
const ODD_SIZES = [0, 1, 4095, 4096, 4097, 262_143, 262_144, 262_145, 1_048_575, 1_048_577, 3_500_000]

/** Path to content; the same each time. */
export function sampleFiles(): Map<string, Uint8Array> {
  const files = new Map<string, Uint8Array>()
  for (const [i, size] of ODD_SIZES.entries()) files.set(`sizes/${size}`, pattern(size, i + 1))
  for (let i = 0; i < 300; i++) {
    files.set(
      `many/${i % 10}/${'deep/'.repeat(i % 4)}file ${i}.txt`,
      Buffer.from(`file ${i}: ${'x'.repeat(i * 7)}\n`),
    )
  }
  files.set('žluťoučký kůň', Buffer.from('needle in a haystack\n'))
  files.set('-rf', Buffer.from('a name that looks like an option\n'))
  return files
}

/** Writes the files below `dir` and puts them into a DAG. Returns its root. */
export async function makeTree(dag: Dag, dir: string): Promise<CID> {
  const files = sampleFiles()
  for (const [path, content] of files) {
    await mkdir(dirname(join(dir, path)), { recursive: true })
    await writeFile(join(dir, path), content)
  }
  const source = [...files].map(([path, content]) => ({ path: `root/${path}`, content }))
  return await dag.import(source)
}

/** A directory of files with a root block each. */
export function manyChildren(dag: Dag, count: number): CID {
  const children = Array.from({ length: count }, (_, i) => {
    const data = Buffer.from(`child ${i}`)
    return link(
      dag.node({ type: 'file', data, filesize: data.length }),
      `child-${String(i).padStart(4, '0')}`,
      20,
    )
  })
  return dag.directory(children)
}
