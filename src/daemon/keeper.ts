/** The program of `native/keeper.c`: parent of daemons, and maker of orphans. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { CidfsError } from '../core/errors.js'
import { packageRoot } from '../core/native.js'

/** @throws CidfsError `MISSING_TOOL`. */
export function keeperProgram(): string {
  const program = join(packageRoot(), 'build', 'cidfs-keeper')
  if (existsSync(program)) return program
  throw new CidfsError('MISSING_TOOL', 'the keeper is not built: run `npm run build`', { path: program })
}
