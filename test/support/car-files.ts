/** CAR files of known content, made for a test. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { CID } from '../../src/core/cid.js'
import { encodeHeader, encodeSectionHead } from '../../src/store/car-format.js'
import { Dag, pattern } from './dag.js'

export interface SampleCar {
  path: string
  root: CID
  blocks: { cid: CID; bytes: Uint8Array }[]
}

/** CARv1 of a directory with a file of several leaves and two files of the same content. */
export async function sampleCar(dir: string, name = 'sample.car'): Promise<SampleCar> {
  const blocks: SampleCar['blocks'] = []
  const dag = new Dag({ add: (cid, bytes) => blocks.push({ cid, bytes }) })
  const file = (path: string, content: Uint8Array) => ({ path: `top/${path}`, content })
  const small = pattern(1000)
  const files = [file('large', pattern(3_000_000, 2)), file('a', small), file('sub/b', small)]
  const root = await dag.import(files, { wrapWithDirectory: false })
  return writeCar(join(dir, name), root, blocks)
}

/** Writes these blocks, in this order. */
export async function writeCar(path: string, root: CID, blocks: SampleCar['blocks']): Promise<SampleCar> {
  const parts: Uint8Array[] = [encodeHeader([root])]
  for (const { cid, bytes } of blocks) parts.push(encodeSectionHead(cid, bytes.length), bytes)
  await writeFile(path, Buffer.concat(parts))
  return { path, root, blocks }
}

/** CARv2 without an index around a CARv1: https://ipld.io/specs/transport/car/carv2/ */
export async function wrapCarV2(path: string, carV1: Uint8Array): Promise<void> {
  const pragma = Buffer.from('0aa16776657273696f6e02', 'hex')
  const header = Buffer.alloc(40)
  header.writeBigUInt64LE(BigInt(pragma.length + header.length), 16)
  header.writeBigUInt64LE(BigInt(carV1.length), 24)
  await writeFile(path, Buffer.concat([pragma, header, carV1]))
}
